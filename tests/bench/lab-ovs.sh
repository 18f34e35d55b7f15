#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: iperf3 and a 1-byte request and response between two guests on one bridge of Open vSwitch, ours (`--net ovs=`) and QEMU's with
# TAPs on the same bridge, without vhost, alternating. DATAPATH: netdev is that of ovs-vswitchd, system the kernel's; both if it is not set.
# tests/bench/lab-ovs.sh BUILD [ROUNDS]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$1 rounds=${2:-3}
# shellcheck disable=SC1091
. tests/lab/lib.sh
. tests/bench/net.sh
set -eu
export XDG_CACHE_HOME=$T/cache
kernel=$(echo "$BUILD"/guest/boot/vmlinuz-*)
ovs_up
trap 'kill $ovs 2>/dev/null; rm -rf "$T"' EXIT

net_program "$T/rr"
net_root "$T/server.img" 192.0.2.1 <<'JOB'
rr serve &
iperf3 -s >/dev/null
JOB
net_root "$T/client.img" 192.0.2.2 <<'JOB'
for i in $(seq 100); do rr 192.0.2.1 >/dev/null && break; sleep 0.3; done
i() { iperf3 -c 192.0.2.1 -t 4 -O 1 -f k "$@" | grep receiver; }
set -- $(i); echo "tx $7"
rr 192.0.2.1
JOB
bench_initrd "$T/initrd" "$(bench_root /dev/vda)" virtio_mmio virtio_pci virtio_blk virtio_net ext4

# A datapath in ovs-vswitchd does not make the checksums that a card has left to its host. We see that; QEMU has to be told.
offloads() {
	[ "$datapath" = system ] || printf ',%s=off' csum guest_csum gso guest_tso4 guest_tso6 guest_ecn guest_ufo host_tso4 host_tso6 host_ecn host_ufo
}
qemu() { # server|client N
	bounded qemu-system-x86_64 -accel kvm -cpu host -m 256 -smp 1 -nodefaults -no-user-config -display none -serial stdio -no-reboot -M q35 \
		-kernel "$kernel" -initrd "$T/initrd" -append 'console=ttyS0 panic=-1 loglevel=3 tsc=reliable cryptomgr.notests' \
		-netdev "tap,id=n,ifname=q$2,script=no,downscript=no,vhost=off" -device "virtio-net-pci,netdev=n,romfile=,mac=02:00:00:00:00:0$2$(offloads)" \
		-drive "if=none,id=r,format=raw,readonly=on,file=$T/$1.img" -device virtio-blk-pci,drive=r
}
insula() { # server|client N
	bounded "$RUN" --mem 256M --kernel "$kernel" --initrd "$T/initrd" --net "ovs=$bridge,mac=02:00:00:00:00:0$2" --disk "path=$T/$1.img,ro" --rng off
}
pair() { # FILE qemu|insula
	local server
	(exec 0</dev/null; "$2" server 1) >"$T/server.log" 2>&1 &
	server=$!
	measured "$T/$1" 2 "$2" client 2
	pkill -P $server || true # `timeout`, which ends what it has started
	wait $server || true
}
med() { awk -v n="$2" '$1 == n { print $2 }' "$T/$1" | median; }
for n in 1 2; do ip tuntap add q$n mode tap vnet_hdr; ip link set q$n up; done
for datapath in ${DATAPATH:-netdev system}; do
	bridge=br-$datapath
	ovs-vsctl --timeout=30 add-br "$bridge" -- set bridge "$bridge" datapath_type=$datapath
	for _ in $(seq "$rounds"); do
		pair insula.$datapath insula
		for n in 1 2; do ovs-vsctl --timeout=30 add-port "$bridge" q$n; done
		pair qemu.$datapath qemu
		for n in 1 2; do ovs-vsctl --timeout=30 del-port "$bridge" q$n; done
	done
	ovs-vsctl --timeout=30 del-br "$bridge"
	head_row "lab, two VMs on Open vSwitch, datapath $datapath"
	row "TCP stream / QEMU, kbit/s" "$(med insula.$datapath tx)" "$(med qemu.$datapath tx)" ">= 0.95"
	row "1-byte round trip / QEMU, us" "$(med insula.$datapath rr)" "$(med qemu.$datapath rr)" ""
done
