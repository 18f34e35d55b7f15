#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: fio in the guest over a storage module and over QEMU's driver of that name (virtio-blk-pci, an I/O thread; of qsd: the same daemon,
# vhost-user-blk-pci), the same kernel, the same root, the same server, in alternating boots. tests/bench/lab-modules.sh BUILD [ROUNDS [MODULE...]]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
. tests/bench/disk.sh
BUILD=$1 rounds=${2:-5}
shift $(($# < 2 ? $# : 2))
# shellcheck disable=SC1091
. tests/lab/lib.sh
set -eu
kernel=$(echo "$BUILD"/guest/boot/vmlinuz-*)
servers=
trap 'kill $servers 2>/dev/null; rm -rf "$T"' EXIT
# until_so COMMAND...: true within ten seconds
until_so() {
	for _ in $(seq 100); do
		! "$@" >/dev/null 2>&1 || return 0
		sleep 0.1
	done
	echo "no server: $*" >&2
	return 1
}

disk_guest <<'PASS'
one randread 8 15 --rw=randread --bs=4k --iodepth=32
one latency 8 15 --rw=randread --bs=4k --iodepth=1
one seqread 7 15 --rw=read --bs=128k --iodepth=8
PASS
# rows NAME DEPTH-32 DEPTH-1: what has been measured, and what the ratios should reach
rows() {
	head_row "lab, fio in the guest, $1"
	row "4 KiB random reads, depth 32 / QEMU, IOPS" "$(med insula randread)" "$(med qemu randread)" "$2"
	row "4 KiB random reads, depth 1 / QEMU, IOPS" "$(med insula latency)" "$(med qemu latency)" "$3"
	row "128 KiB sequential reads / QEMU, KiB/s" "$(med insula seqread)" "$(med qemu seqread)" ""
	rm -f "$T/insula" "$T/qemu"
}

nbd() {
	# Every block that is read has been written: nbdkit answers others without looking.
	nbdkit -f -U "$T/nbd" memory 256M &
	servers="$servers $!"
	until_so test -S "$T/nbd"
	qemu-io -f raw -c 'write -q -P 1 0 128M' -c 'write -q -P 1 128M 128M' "nbd+unix:///?socket=$T/nbd"
	disk_boots "nbd:nbd+unix:///?socket=$T/nbd" -blockdev "driver=nbd,node-name=d,server.type=unix,server.path=$T/nbd"
	rows 'nbd: nbdkit memory on a Unix socket' '>= 1.5' '>= 1.11'
}

iscsi() {
	local name=iqn.2026-01.test:disk
	admin() { tgtadm -C 7 --lld iscsi "$@"; }
	ip link set lo up
	head -c 256M /dev/urandom >"$T/lun"
	tgtd -f -C 7 --iscsi portal=127.0.0.1:3260 >/dev/null 2>&1 &
	servers="$servers $!"
	until_so admin --mode system --op show
	admin --mode target --op new --tid 1 -T $name
	admin --mode logicalunit --op new --tid 1 --lun 1 -b "$T/lun"
	admin --mode target --op bind --tid 1 -I ALL
	disk_boots "iscsi://127.0.0.1/$name/1" -blockdev "driver=iscsi,node-name=d,transport=tcp,portal=127.0.0.1,target=$name,lun=1"
	rows 'iscsi: tgt, a file in memory, 127.0.0.1' '>= 1.2' ''
}

# The same daemon, its socket this time between it and QEMU, which has to share its memory with it.
qsd_qemu() {
	rm -f "$T/vub"
	qemu-storage-daemon --blockdev "driver=file,node-name=f,filename=$T/qcow2" --blockdev driver=qcow2,node-name=disk,file=f \
		--export "type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=$T/vub,writable=on,num-queues=1,writethrough=on" &
	local daemon=$!
	until_so test -S "$T/vub" || return
	bounded qemu-system-x86_64 -accel kvm -cpu host -m 256 -smp 1 -nodefaults -no-user-config -display none -serial stdio \
		-no-reboot -M q35,memory-backend=mem -object memory-backend-memfd,id=mem,size=256M,share=on -kernel "$kernel" -initrd "$T/initrd" \
		-append 'console=ttyS0 panic=-1 loglevel=3 tsc=reliable cryptomgr.notests' \
		-chardev "socket,id=c,path=$T/vub" -device vhost-user-blk-pci,chardev=c,num-queues=1 \
		-drive "if=none,id=r,format=raw,readonly=on,file=$T/root.img" -device virtio-blk-pci,drive=r
	kill $daemon 2>/dev/null
	wait $daemon 2>/dev/null || true
}
qsd() {
	head -c 256M /dev/urandom >"$T/raw"
	qemu-img convert -f raw -O qcow2 "$T/raw" "$T/qcow2"
	rm -f "$T/raw"
	PEER=qsd_qemu disk_boots "qsd:$T/qcow2,format=qcow2"
	rows 'qsd: a qcow2 image in memory' '>= 0.95' ''
}

[ $# -gt 0 ] || set -- nbd iscsi qsd
for m; do
	$m
done
