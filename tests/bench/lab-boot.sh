#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: boot the same kernel with the same initrd to the same end, whole process from exec to exit. tests/bench/lab-boot.sh BUILD [ROUNDS]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
build=$1 BUILD=$1 rounds=${2:-5}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
kernel=$(echo "$build"/guest/boot/vmlinuz-*)

bench_initrd "$dir/initrd" "/bin/true && echo all-well"
args='console=ttyS0 panic=-1 loglevel=3 tsc=reliable 8250.nr_uarts=1 cryptomgr.notests'

one() { # NAME COMMAND...: milliseconds of one run, appended to NAME; a run that ends otherwise than well does not count
	local name=$1 t0 rc
	shift
	for _ in 1 2 3; do
		rc=0
		t0=$(now_ns)
		timeout 120 "$@" </dev/null >"$dir/out" 2>&1 || rc=$?
		if [ $rc -eq 0 ] && { [ "$name" = command ] || grep -q all-well "$dir/out"; }; then
			echo $((($(now_ns) - t0) / 1000000)) >>"$dir/$name"
			return
		fi
		echo "$name: status $rc: $(grep -a -m1 -E 'panic|insula-run:' "$dir/out" | tr -d '\r'); again"
	done
	exit 1
}
qemu() { echo qemu-system-x86_64 -accel kvm -cpu host -m 128 -smp 1 -nodefaults -no-user-config -display none -serial stdio -no-reboot \
	-initrd "$dir/initrd"; }
export XDG_CACHE_HOME=$dir/cache

for i in $(seq 0 "$rounds"); do # round 0 warms the caches
	one insula "$build/bin/insula-run" --mem 128M --kernel "$kernel" --initrd "$dir/initrd" --rng off --metrics "$dir/m"
	one huge "$build/bin/insula-run" --mem 128M,hugepages --kernel "$kernel" --initrd "$dir/initrd" --rng off
	one command "$build/bin/insula-run" --mem 128M --kernel "$kernel" -- /bin/true
	# shellcheck disable=SC2046
	one q35 $(qemu) -M q35 -kernel "$kernel" -append "$args"
	# shellcheck disable=SC2046
	one microvm $(qemu) -M microvm -kernel "$kernel" -append "$args"
	# shellcheck disable=SC2046
	one unpacked $(qemu) -M q35 -kernel "$dir"/cache/insula/vmlinux-* -append "$args"
	[ "$i" -gt 0 ] || rm -f "$dir/insula" "$dir/huge" "$dir/command" "$dir/q35" "$dir/microvm" "$dir/unpacked"
done
head_row "lab, Debian kernel, 1 vCPU, 128 MiB, ms"
row "boot to exit / QEMU q35" "$(median <"$dir/insula")" "$(median <"$dir/q35")" "<= 0.6" " ms"
row "boot to exit / QEMU microvm" "$(median <"$dir/insula")" "$(median <"$dir/microvm")" "<= 0.5" " ms"
row "boot to exit / QEMU q35, unpacked kernel" "$(median <"$dir/insula")" "$(median <"$dir/unpacked")" "" " ms"
row "with hugepages / QEMU q35" "$(median <"$dir/huge")" "$(median <"$dir/q35")" "" " ms"
row "insula-run -- /bin/true / that boot" "$(median <"$dir/command")" "$(median <"$dir/insula")" "<= 1.15" " ms"
alone "user-space exits of the boot" "$(json "$dir/m" exits.total)" "< 1500"
