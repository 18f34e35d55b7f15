#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Copy-on-write disks with bare-metal payloads, on this machine's /dev/kvm: every request on an overlay, what is kept and what is not, twenty
# VMs with one base at once, a full file system, refusals; the base never changes, and nothing is left.
# BUILD names the build directory. One line per case: ok, not ok, skip. OVERLAY_VMS: how many VMs at once (20).
set -u
SUITE=overlay
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm

dir=$(mktemp -d "${TMPDIR:-/tmp}/overlays.XXXXXX") || exit 1
mounted=''
# shellcheck disable=SC2317 # called by trap
cleanup() {
	[ -z "$mounted" ] || umount "$mounted"
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
mkdir "$dir/tmp"
export TMPDIR=$dir/tmp
head -c 8M /dev/urandom >"$dir/base"
touch -d '2001-02-03 04:05:06.789' "$dir/base"
base=$(sha256sum <"$dir/base")
vms=${OVERLAY_VMS:-20}

# vm PAYLOAD DISK ARG...: run it; output in $dir/out and $dir/err, exit status in $status
vm() {
	local kernel=$GUESTS/$1.elf disk=$2
	shift 2
	timeout -s KILL 120 "$RUN" --kernel "$kernel" --disk "$disk" "$@" </dev/null >"$dir/out" 2>"$dir/err"
	status=$?
}
good() { [ "$status" = 0 ] && grep -q '^ok ' "$dir/out" && ! grep -q '^not ok' "$dir/out"; }
detail() { echo "status $status: $(grep '^not ok' "$dir/out" | head -3 | tr '\n' '|') $(tail -n 1 "$dir/out") $(tail -n 1 "$dir/err")"; }
# refused NAME PATTERN DISK: status 2, one line, before anything was started
refused() {
	vm hello "$3"
	[ "$status" = 2 ] && [ "$(wc -l <"$dir/err")" = 1 ] && grep -q "$2" "$dir/err"
	holds "refused: $1" $? "status $status: $(head -c 300 "$dir/err")"
}

# ---- every request

for how in '' ,engine=threads ,direct; do
	for over in file discard; do
		name=$over${how:-,io_uring}
		[ $over = discard ] || over=$dir/over$how
		vm blk "$dir/base,overlay=$over$how" --cpus 2
		if [ "$how" = ,direct ] && grep -q 'direct I/O is not possible' "$dir/err"; then
			skip "$name" 'not on this file system'
			continue
		fi
		good
		holds "$name: every request" $? "$(detail)"
		vm blkloop "$dir/base,overlay=$over$how" --cpus 4 --append 'seconds=1 shift=3'
		good
		holds "$name: blocks that requests share" $? "$(detail)"
	done
done
[ -z "$(ls -A "$dir/tmp")" ]
holds 'discard leaves nothing' $? "$(ls -A "$dir/tmp")"

# ---- what is kept: whole blocks of a round, found in the file as docs/overlay.md has it

vm blkloop "$dir/base,overlay=$dir/kept" --cpus 2 --append seconds=1
if python3 - "$dir/kept" >"$dir/out" 2>&1 <<'PY'
import struct, sys
f = open(sys.argv[1], "rb").read()
magic, version, block, index, data, base = struct.unpack_from("<8sIIQQQ", f)
assert (magic, version, block, index, base) == (b"INSULAOV", 1, 4096, 4096, 8 << 20), (magic, version, block, index, base)
there = [b for b in range(base // block) if f[index + b // 8] >> b % 8 & 1]
assert len(there) >= 16 and max(there) < 512, there
rounds = set()
for b in there:
    words = [struct.unpack_from("<Q", f, data + b * block + s * 512)[0] for s in range(8)]
    rounds.add(words[0] >> 32)
    assert words == [words[0] >> 32 << 32 | b << 4 | s for s in range(8)], (b, words)
assert 0 not in rounds
PY
then ok 'the file is as it is documented'; else not_ok 'the file is as it is documented' "$(tail -n 1 "$dir/out")"; fi
cp --sparse=always "$dir/over" "$dir/copy" # nobody has it
before=$(sha256sum <"$dir/copy")
vm hello "$dir/base,overlay=$dir/over"
[ "$(sha256sum <"$dir/over")" = "$before" ]
holds 'a VM that writes nothing changes nothing' $? 'the overlay has changed'
vm blk "$dir/base,overlay=$dir/copy,engine=threads"
good
holds 'a copy of an overlay is one' $? "$(detail)"
"$RUN" -n --kernel "$GUESTS/hello.elf" --disk "$dir/base,overlay=$dir/made" >"$dir/out" 2>"$dir/err" && [ ! -e "$dir/made" ]
holds '-n makes nothing' $? "$(cat "$dir/err")"

# ---- many at once

pids=''
for i in $(seq "$vms"); do
	timeout -s KILL 240 "$RUN" --kernel "$GUESTS/blkloop.elf" --disk "$dir/base,overlay=$([ $((i % 4)) = 0 ] && echo discard || echo "$dir/many$i")" \
		--append 'seconds=2 shift=5' </dev/null >"$dir/out$i" 2>"$dir/err$i" &
	pids="$pids $!"
done
bad=''
i=0
for p in $pids; do
	i=$((i + 1))
	wait "$p" && grep -q '^ok all_rounds' "$dir/out$i" || bad="$bad $i: $(tail -n 1 "$dir/out$i") $(tail -n 1 "$dir/err$i")"
done
[ -z "$bad" ]
holds "$vms VMs at once" $? "$bad"
largest=$(du -k "$dir"/many* | sort -n | tail -1 | cut -f1)
[ "$largest" -lt 4096 ]
holds 'each takes what it wrote' $? "$largest KiB of 8 MiB"

# ---- kill -9: what is thrown away is gone, what has a name can be used

"$RUN" --kernel "$GUESTS/blkloop.elf" --disk "$dir/base,overlay=discard" --disk "$dir/base,overlay=$dir/killed" --append seconds=60 </dev/null >"$dir/out" 2>&1 &
run=$!
for _ in $(seq 200); do
	grep -q looping "$dir/out" && break
	sleep 0.1
done
held=$(find /proc/$run/fd -lname "$dir/tmp/*" 2>/dev/null | wc -l)
seen=$(ls -A "$dir/tmp")
kill -KILL $run
wait $run 2>/dev/null
[ "$held" -ge 1 ] && [ -z "$seen" ] && [ -z "$(ls -A "$dir/tmp")" ]
holds 'discard is never seen, and gone with kill -9' $? "$held descriptors; seen: $seen"
for _ in $(seq 50); do
	flock -xn "$dir/killed" true && break
	sleep 0.1
done
vm blk "$dir/base,overlay=$dir/killed"
good
holds 'after kill -9 the overlay is good' $? "$(detail)"

# ---- a file system that is full

if mkdir "$dir/small" && mount -t tmpfs -o size=1m none "$dir/small" 2>/dev/null; then
	mounted=$dir/small
	vm blkloop "$dir/base,overlay=$dir/small/over" --append seconds=3
	[ "$status" = 1 ] && grep -q '^not ok writes.*status 1' "$dir/out" && ! grep -q 'killed\|failed' "$dir/err"
	holds 'a full file system is an I/O error of the guest' $? "$(detail)"
	rm "$dir/small/over"
else
	skip 'a full file system' 'needs root'
fi

# ---- refusals

echo something >"$dir/text"
refused 'something else' 'overlay .*text: something else; expected an overlay' "$dir/base,overlay=$dir/text"
[ "$(cat "$dir/text")" = something ]
holds 'refused: and left as it is' $? "$(cat "$dir/text")"
refused 'ro' 'overlay and ro; expected one of them' "$dir/base,overlay=$dir/text,ro"
refused 'no directory' 'overlay /nonexistent/x: No such file' "$dir/base,overlay=/nonexistent/x"
refused 'the disk itself' 'the disk itself; expected another file' "$dir/base,overlay=$dir/base"
cp "$dir/base" "$dir/other"
refused 'another time' 'was written since the overlay was made for it' "$dir/other,overlay=$dir/over"
line=$(sed -n 's/.*: \(touch .*\)/\1/p' "$dir/err")
sh -c "$line" && vm hello "$dir/other,overlay=$dir/over" && [ "$status" = 42 ]
holds 'the line that the refusal names helps' $? "$line: $(detail)"
printf x | dd of="$dir/other" conv=notrunc status=none
touch -r "$dir/base" "$dir/other"
refused 'other contents' 'the contents differ' "$dir/other,overlay=$dir/over"
truncate -s 4M "$dir/other"
refused 'another size' 'made for a disk of 8388608 bytes' "$dir/other,overlay=$dir/over"
truncate -s -1 "$dir/copy"
refused 'cut' 'bytes; expected' "$dir/base,overlay=$dir/copy"
(
	flock -x 9
	refused 'locked' 'overlay .*over: locked by another VM' "$dir/base,overlay=$dir/over"
	exit $failed
) 9<>"$dir/over" || failed=1
vm hello "$dir/base,overlay=$dir/twice" --disk "$dir/base,overlay=$dir/twice"
[ "$status" = 2 ] && grep -q 'overlay .*twice: given twice' "$dir/err"
holds 'refused: one overlay for two disks' $? "$(detail)"
TMPDIR=/nonexistent refused 'no directory for discard' 'overlay discard: a file in /nonexistent: No such file' "$dir/base,overlay=discard"

[ "$(sha256sum <"$dir/base")" = "$base" ]
holds 'nobody has written to the base' $? 'it has changed'
exit $failed
