#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab, with an NVMe disk: fio in the guest over insula-blk and over QEMU's virtio-blk (PCI, aio=io_uring, cache=none), the same kernel, the
# same root, alternating. tests/bench/lab-disk.sh BUILD [ROUNDS]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$1 rounds=${2:-5}
disk=/dev/nvme0n1
# shellcheck disable=SC1091
. tests/lab/lib.sh
set -eu
kernel=$(echo "$BUILD"/guest/boot/vmlinuz-*)
make_root "$T/root"
for f in $(command -v fio) $(ldd "$(command -v fio)" | grep -oE '/[^ ]+'); do
	install -D "$(realpath "$f")" "$T/root$f"
done
cat >"$T/root/bin/job" <<'JOB'
#!/bin/sh
f="fio --output-format=terse --filename=/dev/vda --direct=1 --ioengine=libaio --time_based --runtime=3 --ramp_time=1"
r() { $f --name=x "$@" | grep -E '^[0-9]+;' ; }
for i in 1 2 3; do
	echo "randread $(r --rw=randread --bs=4k --iodepth=32 --size=256M | cut -d';' -f8)"
	echo "seqread $(r --rw=read --bs=1M --iodepth=8 --size=256M | cut -d';' -f7)"
	echo "seqwrite $(r --rw=write --bs=1M --iodepth=8 --size=256M | cut -d';' -f48)"
done
JOB
chmod +x "$T/root/bin/job"
mke2fs -q -F -t ext4 -d "$T/root" "$T/root.img" 128M >/dev/null 2>&1

bench_initrd "$T/initrd" "$(bench_root /dev/vdb)" virtio_mmio virtio_pci virtio_blk ext4

qemu() {
	qemu-system-x86_64 -accel kvm -cpu host -m 256 -smp 1 -nodefaults -no-user-config -display none -serial stdio -no-reboot -M q35 \
		-kernel "$kernel" -initrd "$T/initrd" \
		-append 'console=ttyS0 panic=-1 loglevel=3 tsc=reliable cryptomgr.notests' \
		-object iothread,id=io \
		-drive if=none,id=d,format=raw,aio=io_uring,cache=none,file=$disk -device virtio-blk-pci,drive=d,iothread=io \
		-drive if=none,id=r,format=raw,readonly=on,file="$T/root.img" -device virtio-blk-pci,drive=r
}
insula() {
	"$RUN" --mem 256M --kernel "$kernel" --initrd "$T/initrd" --disk "path=$disk,direct" --disk "path=$T/root.img,ro" --rng off --metrics "$T/m"
}
for _ in $(seq "$rounds"); do
	measured "$T/insula" 9 insula
	measured "$T/qemu" 9 qemu
done
med() { awk -v n="$2" '$1 == n { print $2 }' "$T/$1" | median; }
head_row "lab, fio in the guest, NVMe below"
row "4 KiB random reads, depth 32 / QEMU, IOPS" "$(med insula randread)" "$(med qemu randread)" ">= 1.0"
row "1 MiB sequential reads / QEMU, KiB/s" "$(med insula seqread)" "$(med qemu seqread)" ">= 1.0"
row "1 MiB sequential writes / QEMU, KiB/s" "$(med insula seqwrite)" "$(med qemu seqwrite)" ">= 1.0"
python3 - "$T/m" <<'PY'
import json, sys
m = json.load(open(sys.argv[1]))
d = m["devices"][1]
n = d["helper"]["reads"] + d["helper"]["writes"]
print("%-44s %12d %12s %7s  %s" % ("requests of the last run", n, "", "", ""))
print("%-44s %12d %12s %7s  %s" % ("user-space exits of that disk", sum(d["exits"][k] for k in ("shadow_reads", "posted", "calls", "doorbells")), "", "", "set-up only"))
print("%-44s %12d %12s %7s  %s" % ("of them reads of virtio registers", d["exits"]["shadow_reads"], "", "", "0"))
PY
