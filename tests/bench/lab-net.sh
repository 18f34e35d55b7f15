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

# One byte there, one byte back, on one connection.
cat >"$T/rr.py" <<'PY'
import socket
s = socket.create_server(("192.0.2.1", 7000))
while True:
    c, _ = s.accept()
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        b = c.recv(1)
        if not b:
            break
        c.sendall(b)
PY
python3 "$T/rr.py" &
servers="$servers $!"
trap 'kill $servers 2>/dev/null; rm -rf "$T"' EXIT
cat >"$T/rr.c" <<'C'
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#define N 1000
int main(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7000), .sin_addr = {inet_addr("192.0.2.1")}};
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct timespec t, u;
	char b = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		return 1;
	for (int i = 0; i < N / 10; i++)
		if (write(fd, &b, 1) != 1 || read(fd, &b, 1) != 1)
			return 1;
	clock_gettime(CLOCK_MONOTONIC, &t);
	for (int i = 0; i < N; i++)
		if (write(fd, &b, 1) != 1 || read(fd, &b, 1) != 1)
			return 1;
	clock_gettime(CLOCK_MONOTONIC, &u);
	printf("rr %.1f\n", ((u.tv_sec - t.tv_sec) * 1e9 + (u.tv_nsec - t.tv_nsec)) / 1e3 / N);
	return 0;
}
C
make_root "$T/root"
mkdir -p "$T/root/lib64" "$T/root/lib" "$T/root/usr" "$T/root/tmp"
gcc -O2 -static -o "$T/root/bin/rr" "$T/rr.c"
for f in $(command -v iperf3) $(ldd "$(command -v iperf3)" | grep -oE '/[^ ]+'); do
	install -D "$(realpath "$f")" "$T/root$f"
done
for a in ifconfig sleep; do ln -s busybox "$T/root/bin/$a"; done
cat >"$T/root/bin/job" <<'JOB'
#!/bin/sh
ifconfig eth0 192.0.2.2 netmask 255.255.255.0 up
i() { iperf3 -c 192.0.2.1 -t 4 -O 1 -f k "$@" | grep receiver; }
set -- $(i); echo "tx $7"
set -- $(i -R); echo "rx $7"
rr
JOB
chmod +x "$T/root/bin/job"
mke2fs -q -F -t ext4 -d "$T/root" "$T/root.img" 128M >/dev/null 2>&1
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
