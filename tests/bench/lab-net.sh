#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: iperf3 and a 1-byte request and response between the guest and the lab machine, over a TAP, with insula-net and with QEMU's
# virtio-net-pci without vhost; the same kernel, the same root, alternating. Both with vhost too, if the lab has it. tests/bench/lab-net.sh BUILD [ROUNDS]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$1 rounds=${2:-5}
# shellcheck disable=SC1091
. tests/lab/lib.sh
. tests/bench/net.sh
set -eu
export XDG_CACHE_HOME=$T/cache
kernel=$(echo "$BUILD"/guest/boot/vmlinuz-*)
modprobe tun 2>/dev/null || true
modprobe vhost_net 2>/dev/null || true
ip link set lo up
ip tuntap add tap0 mode tap vnet_hdr
ip addr add 192.0.2.1/24 dev tap0
ip link set tap0 up
iperf3 -s >/dev/null 2>&1 &
servers=$!

net_program "$T/rr"
"$T/rr" serve &
servers="$servers $!"
trap 'kill $servers 2>/dev/null; rm -rf "$T"' EXIT
net_root "$T/root.img" 192.0.2.2 <<'JOB'
i() { iperf3 -c 192.0.2.1 -t 4 -O 1 -f k "$@" | grep receiver; }
set -- $(i); echo "tx $7"
set -- $(i -R); echo "rx $7"
rr 192.0.2.1
JOB
bench_initrd "$T/initrd" "$(bench_root /dev/vda)" virtio_mmio virtio_pci virtio_blk virtio_net ext4

qemu() { # VHOST
	bounded qemu-system-x86_64 -accel kvm -cpu host -m 256 -smp 1 -nodefaults -no-user-config -display none -serial stdio -no-reboot -M q35 \
		-kernel "$kernel" -initrd "$T/initrd" -append 'console=ttyS0 panic=-1 loglevel=3 tsc=reliable cryptomgr.notests' \
		-netdev tap,id=n,ifname=tap0,script=no,downscript=no,vhost="$1" -device virtio-net-pci,netdev=n,romfile=,mac=02:00:00:00:00:01 \
		-drive if=none,id=r,format=raw,readonly=on,file="$T/root.img" -device virtio-blk-pci,drive=r
}
insula() { # METRICS ITEM...: of --net
	bounded "$RUN" --mem 256M --kernel "$kernel" --initrd "$T/initrd" --net "tap=tap0,mac=02:00:00:00:00:01${2:-}" --disk "path=$T/root.img,ro" --rng off --metrics "$1"
}
vhost=
[ ! -c /dev/vhost-net ] || vhost=1
for _ in $(seq "$rounds"); do
	measured "$T/insula" 3 insula "$T/m"
	measured "$T/qemu" 3 qemu off
	[ -z "$vhost" ] || { measured "$T/vhost" 3 qemu on; measured "$T/lent" 3 insula "$T/m2" ,vhost=on; }
done
med() { awk -v n="$2" '$1 == n { print $2 }' "$T/$1" | median; }
head_row "lab, TAP, one TCP stream, 1 vCPU"
row "guest to host / QEMU without vhost, kbit/s" "$(med insula tx)" "$(med qemu tx)" ">= 1.0"
row "host to guest / QEMU without vhost, kbit/s" "$(med insula rx)" "$(med qemu rx)" ">= 1.0"
row "1-byte round trip / QEMU without vhost, us" "$(med insula rr)" "$(med qemu rr)" "<= 1.0"
if [ -n "$vhost" ]; then
	row "guest to host / QEMU with vhost, kbit/s" "$(med insula tx)" "$(med vhost tx)" ""
	row "host to guest / QEMU with vhost, kbit/s" "$(med insula rx)" "$(med vhost rx)" ""
	row "1-byte round trip / QEMU with vhost, us" "$(med insula rr)" "$(med vhost rr)" ""
	row "vhost=on, guest to host / QEMU with vhost, kbit/s" "$(med lent tx)" "$(med vhost tx)" ">= 1.0"
	row "vhost=on, host to guest / QEMU with vhost, kbit/s" "$(med lent rx)" "$(med vhost rx)" ">= 1.0"
	row "vhost=on, 1-byte round trip / QEMU with vhost, us" "$(med lent rr)" "$(med vhost rr)" "<= 1.0"
	row "guest to host / with vhost=on, kbit/s" "$(med insula tx)" "$(med lent tx)" ">= 0.95"
	row "host to guest / with vhost=on, kbit/s" "$(med insula rx)" "$(med lent rx)" ">= 0.95"
	row "1-byte round trip / with vhost=on, us" "$(med insula rr)" "$(med lent rr)" "<= 1.1"
fi
python3 - "$T/m" <<'PY'
import json, sys
m = json.load(open(sys.argv[1]))
d = [x for x in m["devices"] if x["name"] == "eth0"][0]
print("%-44s %12d" % ("frames of the last run", d["helper"]["rx_packets"] + d["helper"]["tx_packets"]))
print("%-44s %12d %12s %7s  %s" % ("user-space exits of that card", sum(d["exits"][k] for k in ("shadow_reads", "posted", "calls", "doorbells")), "", "", "set-up only"))
PY
