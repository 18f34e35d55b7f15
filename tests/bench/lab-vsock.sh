#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: one byte there and back, and a stream from the host into the guest, over insula-vsock and over TCP with QEMU's virtio-net (PCI, a TAP,
# no vhost), the same kernel, the same root, alternating. tests/bench/lab-vsock.sh BUILD [ROUNDS]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$1 rounds=${2:-5}
# shellcheck disable=SC1091
. tests/lab/lib.sh
set -eu
PEER=$BUILD/tests/vsockpeer
kernel=$(echo "$BUILD"/guest/boot/vmlinuz-*)
ANY=4294967295
trips=${TRIPS:-1000} bytes=${BYTES:-64000000}
make_root "$T/root"
cp "$PEER" "$T/root/bin/"
for a in ifconfig sleep; do ln -s busybox "$T/root/bin/$a"; done
cat >"$T/root/bin/job" <<JOB
#!/bin/sh
any=vsock:$ANY
ifconfig eth0 10.99.0.2 netmask 255.255.255.0 up 2>/dev/null && any=tcp:0.0.0.0
vsockpeer echo \$any:52 &
vsockpeer sink \$any:53 &
vsockpeer accept \$any:91
JOB
chmod +x "$T/root/bin/job"
mke2fs -q -F -t ext4 -d "$T/root" "$T/root.img" 64M >/dev/null 2>&1

bench_initrd "$T/initrd" "$(bench_root /dev/vda)" virtio_mmio virtio_pci virtio_blk virtio_net vmw_vsock_virtio_transport ext4

qemu() {
	bounded qemu-system-x86_64 -accel kvm -cpu host -m 256 -smp 1 -nodefaults -no-user-config -display none -serial stdio -no-reboot -M q35 \
		-kernel "$kernel" -initrd "$T/initrd" -append 'console=ttyS0 panic=-1 loglevel=3 tsc=reliable cryptomgr.notests' \
		-netdev tap,id=n,ifname=benchtap,script=no,downscript=no,vhost=off -device virtio-net-pci,netdev=n,romfile= \
		-drive if=none,id=r,format=raw,readonly=on,file="$T/root.img" -device virtio-blk-pci,drive=r
}
insula() {
	bounded "$RUN" --mem 256M --kernel "$kernel" --initrd "$T/initrd" --disk "path=$T/root.img,ro" --rng off --vsock "path=$T/v" --metrics "$T/m"
}
modprobe tun 2>/dev/null || true
ip tuntap add dev benchtap mode tap
ip addr add 10.99.0.1/24 dev benchtap
ip link set benchtap up

# measure NAME ECHO SINK END: when the guest is there
measure() {
	local i
	for i in $(seq 200); do
		timeout 5 "$PEER" rtt "$2" 1 >/dev/null 2>&1 && break
		sleep 0.3
	done
	"$PEER" rtt "$2" "$trips" >>"$T/$1.rtt"
	"$PEER" send "$3" "$bytes" >>"$T/$1.rate"
	"$PEER" rtt "$4" 1 >/dev/null 2>&1 || true
}
for _ in $(seq "$rounds"); do
	insula </dev/null >"$T/log" 2>&1 &
	vm=$!
	measure insula "fc:$T/v:52" "fc:$T/v:53" "fc:$T/v:91"
	wait $vm
	qemu </dev/null >"$T/log.qemu" 2>&1 &
	vm=$!
	measure qemu tcp:10.99.0.2:52 tcp:10.99.0.2:53 tcp:10.99.0.2:91
	wait $vm
done
head_row "lab, vsock / TCP over QEMU's virtio-net"
row "1 byte there and back, ns" "$(median <"$T/insula.rtt")" "$(median <"$T/qemu.rtt")" "<= 0.8"
row "stream, host to guest, bytes/s" "$(median <"$T/insula.rate")" "$(median <"$T/qemu.rate")" ">= 2.0"
python3 - "$T/m" <<'PY'
import json, sys
d = [d for d in json.load(open(sys.argv[1]))["devices"] if d["name"] == "vsock"][0]
h = d["helper"]
print("%-44s %12d" % ("bytes of the last run", h["to_guest_bytes"] + h["to_host_bytes"]))
print("%-44s %12d" % ("user-space exits of that device", sum(d["exits"][k] for k in ("shadow_reads", "posted", "calls", "doorbells"))))
print("%-44s %12d" % ("doorbells seen", h["kicks"]))
PY
