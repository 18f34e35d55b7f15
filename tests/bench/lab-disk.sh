#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: fio in the guest over insula-blk and over QEMU's virtio-blk (PCI, an I/O thread, aio=io_uring, cache=none), the same kernel, the
# same root, the same disk below, in alternating boots. tests/bench/lab-disk.sh BUILD [ROUNDS [DISK]]; BUS=pci: ours on PCI, too
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
. tests/bench/disk.sh
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

disk_guest <<'PASS'
one randread 8 15 --rw=randread --bs=4k --iodepth=32
one seqread 7 15 --rw=read --bs=1M --iodepth=8
one seqwrite 48 56 --rw=write --bs=1M --iodepth=8
PASS
disk_itself() { sh "$T/job" "$disk" 1; }
measured "$T/disk" 3 disk_itself || exit 1
disk_boots "path=$disk,direct" -drive "if=none,id=d,format=raw,aio=io_uring,cache=none,file=$disk"
head_row "lab, fio in the guest, ${disk##*/} below, ours on ${BUS:-mmio}"
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
