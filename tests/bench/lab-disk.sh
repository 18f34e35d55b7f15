#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: fio in the guest over insula-blk and over QEMU's virtio-blk (PCI, an I/O thread, aio=io_uring, cache=none), the same kernel, the
# same root, the same disk below, in alternating boots. tests/bench/lab-disk.sh BUILD [ROUNDS [DISK]]
#
# DISK is overwritten. Without it, the disk is null_blk with its data in memory: a request queue of the block layer, as a real disk has, and
# completions that nothing loses. QEMU's NVMe loses interrupts under TCG: what it measures is the clock that carries it on.
#
# Everything ends by itself: fio by its run time and by a watchdog in the guest, a boot by a watchdog here (bounded()). A disk that does not
# answer, or answers one request after more than half a second and ten times later than others, has stood still: it says so, and nothing of
# that boot counts.
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$1 rounds=${2:-5} disk=${3:-}
# shellcheck disable=SC1091
. tests/lab/lib.sh
set -eu
kernel=$(echo "$BUILD"/guest/boot/vmlinuz-*)

if [ -z "$disk" ]; then
	disk=/dev/nullb0
	# max_sectors: 512 KiB at once, as common NVMe disks take; one processor, one queue
	modprobe null_blk nr_devices=1 gb=1 memory_backed=1 max_sectors=1024 irqmode=1
fi
# Every block that is read has been written.
timeout 120 dd if=/dev/zero of="$disk" bs=1M count=256 oflag=direct conv=nocreat status=none || { echo "the disk stood still: it cannot be filled"; exit 1; }

# job DEVICE TIMES: what runs in the guest, and once on the disk itself
bench_fio >"$T/job"
cat >>"$T/job" <<'JOB'
dev=$1
pass() {
	one randread 8 15 --rw=randread --bs=4k --iodepth=32
	one seqread 7 15 --rw=read --bs=1M --iodepth=8
	one seqwrite 48 56 --rw=write --bs=1M --iodepth=8
}
# The first pass of a boot is for nothing but what it warms up: memory that nobody has touched, and code that TCG has not translated.
pass >/dev/null 2>&1
for i in $(seq "$2"); do
	pass
done
JOB

make_root "$T/root"
for f in $(command -v fio) $(ldd "$(command -v fio)" | grep -oE '/[^ ]+'); do
	install -D "$(realpath "$f")" "$T/root$f"
done
for a in timeout seq cut; do
	ln -s busybox "$T/root/bin/$a"
done
install -m 755 "$T/job" "$T/root/bin/measure"
printf '#!/bin/sh\nexec /bin/measure /dev/vda 3\n' >"$T/root/bin/job"
chmod 755 "$T/root/bin/job"
mke2fs -q -F -t ext4 -d "$T/root" "$T/root.img" 128M >/dev/null 2>&1

bench_initrd "$T/initrd" "$(bench_root /dev/vdb)" virtio_mmio virtio_pci virtio_blk ext4

qemu() {
	bounded qemu-system-x86_64 -accel kvm -cpu host -m 256 -smp 1 -nodefaults -no-user-config -display none -serial stdio \
		-no-reboot -M q35 -kernel "$kernel" -initrd "$T/initrd" \
		-append 'console=ttyS0 panic=-1 loglevel=3 tsc=reliable cryptomgr.notests' \
		-object iothread,id=io \
		-drive "if=none,id=d,format=raw,aio=io_uring,cache=none,file=$disk" -device virtio-blk-pci,drive=d,iothread=io \
		-drive "if=none,id=r,format=raw,readonly=on,file=$T/root.img" -device virtio-blk-pci,drive=r
}
insula() {
	bounded "$RUN" --mem 256M --kernel "$kernel" --initrd "$T/initrd" --disk "path=$disk,direct" \
		--disk "path=$T/root.img,ro" --rng off --metrics "$T/m"
}
disk_itself() { sh "$T/job" "$disk" 1; }
measured "$T/disk" 3 disk_itself || exit 1
for _ in $(seq "$rounds"); do
	measured "$T/insula" 9 insula || true
	measured "$T/qemu" 9 qemu || true
done
med() { awk -v n="$2" '$1 == n { print $2 }' "$T/$1" | median; }
# Less than half of the boots is not a figure.
for side in insula qemu; do
	got=$(($(cat "$T/$side" 2>/dev/null | wc -l) / 9))
	if [ $((2 * got)) -lt "$rounds" ]; then
		echo "$side: $got of $rounds boots have figures; these are none"
		exit 1
	fi
done
head_row "lab, fio in the guest, ${disk##*/} below"
row "4 KiB random reads, depth 32 / QEMU, IOPS" "$(med insula randread)" "$(med qemu randread)" ">= 1.1"
row "1 MiB sequential reads / QEMU, KiB/s" "$(med insula seqread)" "$(med qemu seqread)" ">= 1.0"
row "1 MiB sequential writes / QEMU, KiB/s" "$(med insula seqwrite)" "$(med qemu seqwrite)" ">= 1.0"
alone "the disk itself: random reads, IOPS" "$(med disk randread)" ""
alone "the disk itself: sequential reads, KiB/s" "$(med disk seqread)" ""
alone "the disk itself: sequential writes, KiB/s" "$(med disk seqwrite)" ""
python3 - "$T/m" <<'PY'
import json, sys
m = json.load(open(sys.argv[1]))
d = m["devices"][1]
n = d["helper"]["reads"] + d["helper"]["writes"]
print("%-44s %12d %12s %7s  %s" % ("requests of the last run", n, "", "", ""))
print("%-44s %12d %12s %7s  %s" % ("interrupts for them", d["helper"]["interrupts"], "", "", ""))
print("%-44s %12d %12s %7s  %s" % ("user-space exits of that disk", sum(d["exits"][k] for k in ("shadow_reads", "posted", "calls", "doorbells")), "", "", "set-up only"))
print("%-44s %12d %12s %7s  %s" % ("of them reads of virtio registers", d["exits"]["shadow_reads"], "", "", "0"))
PY
