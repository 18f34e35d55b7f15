#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insula-init and the initrd without Insula: in a QEMU microvm (TCG, so no KVM is needed), whose debug-exit port stands where
# the board's exit register is: a write of v ends QEMU with status (2 v + 1) mod 256. Not one of the NN- tests: it runs on the host.
#   BUILD=build tests/lab/init-qemu.sh
. "$(dirname "$0")/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
export XDG_CACHE_HOME=$T/cache

# Without PIT, HPET or PM timer a loaded host makes the kernel's TSC calibration fail: tell it.
khz=$(awk '/cpu MHz/ { printf "%d", $4 * 1000; exit }' /proc/cpuinfo)
"$BUILD/bin/insula-initrd" --kernel "$BUILD/guest/vmlinuz" --root-disk -o "$T/initrd" || { not_ok initrd "status $?"; exit 1; }

# The configuration archive by hand (src/image/config.c writes it for insula-run): newc, one file.
entry() { # NAME MODE FILE
	local size=0 pad
	[ -z "$3" ] || size=$(stat -c %s "$3")
	printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X' 1 "0x$2" 0 0 1 0 "$size" 0 0 0 0 $((${#1} + 1)) 0
	printf '%s\0' "$1"
	for ((pad = (110 + ${#1} + 1) % 4; pad % 4; pad++)); do printf '\0'; done
	[ -z "$3" ] || cat "$3"
	for ((pad = size % 4; pad % 4; pad++)); do printf '\0'; done
}

# vm RECORD...: boot with this configuration, DISK as root disk if set; returns the status that was written modulo 128.
vm() {
	local disk=() status=0
	printf '%s\0' "$@" >"$T/config"
	{ cat "$T/initrd"; entry insula 41ED ''; entry insula/config 8180 "$T/config"; entry 'TRAILER!!!' 0 ''; } >"$T/full"
	[ -z "${DISK:-}" ] || disk=(-drive "file=$DISK,format=raw,if=none,id=d" -device "virtio-blk-device,drive=d,serial=insula-root")
	setpriv --pdeathsig KILL -- qemu-system-x86_64 -accel tcg -cpu max -M microvm,rtc=on -m 256 -nodefaults -no-user-config \
		-display none -no-reboot -serial stdio -device isa-debug-exit,iobase=0x604,iosize=4 "${disk[@]}" \
		-kernel "$BUILD/guest/vmlinuz" -initrd "$T/full" \
		-append "console=ttyS0 quiet loglevel=3 panic=-1 pci=off tsc=reliable tsc_early_khz=$khz" 2>"$T/qemu.err" || status=$?
	[ $((status & 1)) = 1 ] || { cat "$T/qemu.err"; return 200; }
	return $((status >> 1))
}
export -f vm entry
export T BUILD khz
# The function needs a shell of its own under timeout.
boot() { bash -c 'set -u; vm "$@"' vm "$@"; }
export -f boot
in_vm() {
	local name=$1 want=$2 regex=$3
	shift 3
	LIMIT=90 expect "$name" "$want" "$regex" bash -c 'boot "$@"' boot "$@"
}

in_vm init-status 3 '' arg=sh arg=-c 'arg=exit 3'
in_vm init-not-found 127 'nope: command not found' arg=nope
in_vm init-not-executable 126 '/etc: Permission denied' arg=/etc
in_vm init-signal $(((128 + 9) % 128)) '' arg=sh arg=-c 'arg=kill -9 $$'
in_vm init-config 0 '^/tmp here two words /x$' cwd=/tmp hostname=here 'env=A=two words' env=PATH=/bin:/x \
	arg=sh arg=-c 'arg=echo $PWD $HOSTNAME $A ${PATH#*:}'
in_vm init-bad-key 125 'insula-init: /insula/config: unknown key "colour"' colour=red
in_vm init-no-root-disk 125 'no disk with the serial insula-root' root=ro arg=true
in_vm init-last-output 0 '^12000$' arg=seq arg=12000

make_root "$T/root"
mke2fs -q -F -t ext4 -d "$T/root" "$T/root.ext4" 32M >/dev/null 2>&1
export DISK=$T/root.ext4
in_vm init-root-ro 7 'this is the root' root=ro arg=sh arg=-c 'arg=cat /etc/marker && echo x >/etc/new && exit 7'
in_vm init-root-rw 0 '' root=rw arg=sh arg=-c 'arg=test ! -e /etc/new && echo kept >/etc/new'
in_vm init-root-rw-survives 0 '^kept$' root=ro arg=cat arg=/etc/new
expect init-root-clean 0 '' e2fsck -fn "$DISK"
