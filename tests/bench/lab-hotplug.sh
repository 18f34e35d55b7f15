#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: from the call that adds a disk to a VM that runs until its kernel has the block device, and from the call that asks for it back
# until it is closed: vm.device.add and vm.device.remove of insulad, and device_add and device_del of QEMU (q35, a pcie-root-port, QMP), the
# same kernel and initrd. QEMU's q35 tells the guest by ACPI if it is not told otherwise; its ports of PCI Express, as ours, leave Linux to wait: 100
# ms for the link of a card that comes (PCIe 6.0, 6.7.3.3), and five seconds for whoever has pressed a button.
# tests/bench/lab-hotplug.sh BUILD [ROUNDS]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$1 rounds=${2:-5}
# shellcheck disable=SC1091
. tests/lab/lib.sh
set -eu
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
# It says what it sees at once. It sleeps until its kernel speaks of the disk: the lab has one processor, and a guest that looked every millisecond
# would take half of it from those that are measured. For the disk to go it looks every 10 ms. 60 rounds at most.
# shellcheck disable=SC2016
bench_initrd "$T/initrd" 'echo up
for i in $(seq 60); do
	grep -m $i "\[vda\]" /dev/kmsg >/dev/null
	until [ -e /sys/block/vda ]; do usleep 1000; done
	echo there
	while [ -e /sys/block/vda ]; do usleep 10000; done
	echo gone
done' virtio_mmio virtio_pci virtio_blk
truncate -s 64M "$T/disk"
insulad_up '"cgroup": "off"'
python3 tests/bench/hotplug.py "$BUILD" "$T" "$(echo "$BUILD"/guest/boot/vmlinuz-*)" "$rounds" >"$T/times"
insulad_down
of() { awk -v w="$1" -v k="$2" '$1 == w && $2 == k { print $3 }' "$T/times" | median; }
head_row "lab, Debian kernel, 1 vCPU, 256 MiB, ms"
for how in pcie acpi; do
	row "add a disk, until the guest has it / QEMU, $how" "$(of insula add)" "$(of $how add)" "<= 0.5"
	row "take it back in order / QEMU, $how" "$(of insula rm)" "$(of $how rm)" ""
done
alone "vm.device.add, until it is answered" "$(of insula answer)" ""
alone "pull it out, until the guest has noticed" "$(of insula pull)" ""
