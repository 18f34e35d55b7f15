#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Devices on PCI with bare-metal drivers on this machine's /dev/kvm: the bus itself, MSI-X, as many functions as there can be, two buses at
# once, a hostile driver on two processors, and the payloads of single devices. Deaths of helpers and snapshots: kills.sh, snapshot.sh.
# BUILD names the build directory. One line per case: ok, not ok, skip.
#
# PCI_SEEDS (2): how many hostile runs; PCI_SEED: of the first (default: another one each time; it is said).
set -u
SUITE=pci
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm

dir=$(mktemp -d "${TMPDIR:-/tmp}/pci.XXXXXX") || exit 1
peer=''
cleanup() {
	[ -z "$peer" ] || kill "$peer" 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
truncate -s 8M "$dir/disk.img" "$dir/other.img"

# vm NAME PAYLOAD ARG...: run it to its end, which must be good; its lines are cases
vm() {
	local name=$1 payload=$2 status
	shift 2
	timeout -s KILL 100 "$RUN" --kernel "$GUESTS/$payload.elf" --metrics "$dir/m.json" "$@" </dev/null >"$dir/out" 2>"$dir/err"
	status=$?
	sed -n -e "s|^ok |ok pci/$name/|p" -e "s|^skip |skip pci/$name/|p" -e "s|^not ok |not ok pci/$name/|p" "$dir/out"
	! grep -q '^not ok ' "$dir/out" || failed=1
	[ $status = 0 ] && grep -q '^ok ' "$dir/out"
	holds "$name/end" $? "status $status; it ended with: $(tail -n 1 "$dir/out") $(tail -n 1 "$dir/err")"
	! grep -q '"restarts": *[1-9]' "$dir/m.json"
	holds "$name/no helper died" $? "$(grep restarts "$dir/m.json" | tr '\n' ' ')"
}

# ---- the bus

for cpus in 1 4; do
	vm "bus/$cpus-cpus" pci --bus pci --cpus $cpus --disk path="$dir/disk.img"
	vm "load/$cpus-cpus" pciloop --bus pci --cpus $cpus --disk path="$dir/disk.img"
done
vm bus/other-devices pci --bus pci --cpus 2 --append devices=5 --disk path="$dir/disk.img" --disk path="$dir/other.img" --vsock path="$dir/v" \
	--balloon on
vm load/threads pciloop --bus pci --cpus 2 --disk path="$dir/disk.img,engine=threads"

# As many as there can be: 30 disks, each of another size, and the source of random numbers.
disks=()
for i in $(seq 0 29); do
	truncate -s $(((2048 + i) * 512)) "$dir/d$i.img"
	disks+=(--disk "path=$dir/d$i.img,ro")
done
vm many pci --bus pci --cpus 2 --append 'many devices=31' "${disks[@]}"
grep -q "^disks 30$(printf '\r')*\$" "$dir/out"
holds many/disks $? "$(tail -n 1 "$dir/out")"
timeout -s KILL 30 "$RUN" --kernel "$GUESTS/pci.elf" --bus pci "${disks[@]}" --disk path="$dir/disk.img" --vsock path="$dir/v" </dev/null >"$dir/out" 2>"$dir/err"
status=$?
[ $status = 2 ] && [ "$(wc -l <"$dir/err")" = 1 ] && [ ! -s "$dir/out" ] && grep -q '^insula-run: --bus: 33 devices' "$dir/err"
holds 'one too many is refused' $? "status $status: $(cat "$dir/err")"

# One device on each bus, either way round: both drive their disk, and the bus has just what it should.
vm both/disk-on-pci pci --cpus 2 --append devices=1 --disk path="$dir/disk.img,bus=pci" --disk path="$dir/other.img"
vm both/source-on-pci blk --bus pci --disk path="$dir/disk.img,bus=mmio" --disk path="$dir/other.img"
(vm none pci --append 'many devices=0' --disk path="$dir/disk.img") >"$dir/none" # a disk is wanted: it ends with status 1
grep -q '^ok pci/none/functions' "$dir/none" && grep -q '^not ok each_disk' "$dir/out"
holds 'no device on PCI: no bus' $? "$(cat "$dir/none")"

# ---- hostile

seed=${PCI_SEED:-$RANDOM}
for _ in $(seq "${PCI_SEEDS:-2}"); do
	vm "hostile/seed-$seed" evilpci --bus pci --cpus 2 --mem 64M --append "seed=$seed" --disk path="$dir/disk.img" --disk path="$dir/other.img,ro" \
		--vsock path="$dir/v"
	seed=$((seed + 1))
done

# ---- devices

vm blk blk --bus pci --cpus 4 --disk path="$dir/disk.img"
vm blk-ro blk --bus pci --disk path="$dir/disk.img,ro"
vm evilblk evilblk --bus pci --disk path="$dir/disk.img"
vm rng rng --bus pci
vm blkloop blkloop --bus pci --cpus 2 --append seconds=1 --disk path="$dir/disk.img"
if python3 -c 'import json, select' 2>/dev/null; then
	python3 "$HERE/netpeer.py" "$dir/peer" >"$dir/peer.out" 2>&1 &
	peer=$!
	for _ in $(seq 200); do
		[ ! -S "$dir/peer" ] || break
		sleep 0.05
	done
	vm net net --bus pci --net socket="$dir/peer"
	kill $peer 2>/dev/null
	wait $peer 2>/dev/null
	peer=''
	# What exits to user space in all of a disk's load: what sets it up.
	vm metrics pciloop --bus pci --disk path="$dir/disk.img" --append quiet
	python3 - "$dir/m.json" >"$dir/said" <<'PY'
import json, sys
d = json.load(open(sys.argv[1]))["devices"][1]
e = d["exits"]
assert d["bus"] == "pci" and d["name"] == "vda", d
assert e["shadow_reads"] == 0 and e["doorbells"] == 0 and e["posted"] == 0, e
assert 0 < e["calls"] < 100 and d["helper"]["interrupts"] > 100, d
PY
	holds 'metrics: nothing exits but the set-up' $? "$(tail -n 1 "$dir/said")"
else
	skip net 'no python3'
fi
exit $failed
