#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Disks of storage modules in a Linux guest, all three at once: nbd (nbdkit), iscsi (tgt) and qsd (qcow2). fio writes, flushes and compares on each,
# while modules, servers and connections are killed in any order; then the host finds in each image what the guest has written and synced.
#
# MODULES_KILLS (9; CHECK_LONG=1: 60), MODULES_SEED (of the clock): how many, and in which order.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
KILLS=${MODULES_KILLS:-$(short 9 60)}
RANDOM=${MODULES_SEED:=$(($(date +%s) % 32768))}
echo "# seed $MODULES_SEED"
for need in fio nbdkit tgtd tgtadm qemu-img qemu-storage-daemon; do
	command -v $need >/dev/null || { not_ok $need "not installed"; exit 1; }
done
ip link set lo up
make_root "$T/root"
root_program "$T/root" fio
for a in basename cat dd dmesg md5sum rm seq setsid sleep sync touch tr; do
	ln -sf busybox "$T/root/bin/$a"
done
fio_loads "$T/root"

# ---- servers

nbd_server=''
nbd_up() {
	nbdkit -f -P "$T/nbd.pid" -p 10809 -i 127.0.0.1 file "$T/nbd.img" >>"$T/servers" 2>&1 &
	nbd_server=$!
	for _ in $(seq 100); do [ ! -s "$T/nbd.pid" ] || return 0; sleep 0.1; done
	not_ok nbdkit "$(tail -n 1 "$T/servers")"
}
LUN=iqn.2026-01.test:disk
admin() { tgtadm -C 7 --lld iscsi "$@" >>"$T/servers" 2>&1; }
tgt_up() {
	tgtd -f -C 7 --iscsi portal=127.0.0.1:3260 >>"$T/servers" 2>&1 &
	iscsi_server=$!
	for _ in $(seq 100); do ! admin --mode system --op show || break; sleep 0.1; done
	if ! admin --mode target --op new --tid 1 -T $LUN || ! admin --mode logicalunit --op new --tid 1 --lun 1 -b "$T/iscsi.img" ||
		! admin --mode target --op bind --tid 1 -I ALL; then
		not_ok tgtd "$(tail -n 1 "$T/servers")"
	fi
}
end() {
	kill -9 "$1"
	{ wait "$1"; } 2>/dev/null
}
truncate -s 16M "$T/nbd.img" "$T/iscsi.img"
qemu-img create -q -f qcow2 "$T/qsd.img" 16M
nbd_up
tgt_up
insulad_up '"cgroup": "off"'
trap 'insulad_down; kill -9 $nbd_server $iscsi_server 2>/dev/null; rm -rf "$T"' EXIT

# ---- load and kills

DISKS='nbd iscsi vhost_user_blk' # their serial numbers; the last is the daemon's for its own

expect starts 0 '' "$CTL" run -d --name m --cpus 2 --mem 256M --rootfs "$T/root" \
	--disk "nbd:nbd://127.0.0.1/,serial=nbd,options=writes=stable" --disk "iscsi://127.0.0.1/$LUN/1,serial=iscsi,options=writes=stable" \
	--disk "qsd:$T/qsd.img,format=qcow2" --
for d in $DISKS; do
	guest m "find_disk $d" >"$T/out"
	also "$d-is-there" '^vd[abc]$'
	guest m "setsid load $d >/dev/null 2>&1 &" >/dev/null
done
begun=''
for i in $(seq "$KILLS"); do
	what=$((RANDOM % 7))
	begun="$begun $what"
	case $what in
	0) shoot m "nbd vda" ;;
	1) shoot m "iscsi vdb" ;;
	2) shoot m "insula-vhost vdc" ;; # its daemon goes with it
	3) end "$nbd_server"; sleep "0.$((RANDOM % 10))"; rm -f "$T/nbd.pid"; nbd_up ;;
	4) end "$iscsi_server"; sleep "0.$((RANDOM % 10))"; tgt_up ;;
	5) ss -K 'dport = :10809' >/dev/null ;;
	6) ss -K 'dport = :3260' >/dev/null ;;
	esac
	sleep "$((RANDOM % 2)).$((RANDOM % 10))"
done
echo "# killed:$begun"
for d in $DISKS; do
	guest m "enough $d; cat /tmp/fio.$d" >"$T/out"
	also "$d-is-right" '^right [1-9]'
done

# ---- what was synced is in the images

for d in $DISKS; do
	guest m "v=\$(find_disk $d); dd if=/dev/urandom of=/dev/\$v bs=64k count=32 conv=fsync 2>/dev/null; dd if=/dev/\$v bs=64k count=32 2>/dev/null | md5sum" >"$T/sum.$d"
done
expect stops 0 '' "$CTL" stop -t 20 m
"$CTL" rm -f m >/dev/null 2>&1
qemu-img convert -f qcow2 -O raw "$T/qsd.img" "$T/qsd.raw"
for d in $DISKS; do
	f=$T/$d.img
	[ -e "$f" ] || f=$T/qsd.raw
	same "$d-has-what-was-synced" "$(cut -d' ' -f1 "$T/sum.$d")" "$(head -c 2M "$f" | md5sum | cut -d' ' -f1)"
done
expect image-is-whole 0 'No errors' qemu-img check "$T/qsd.img"
