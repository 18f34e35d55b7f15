#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Functions of the (lab) host by their nodes and iommufd, with the machine of 43-vfio.sh. No kernel of Debian 11 to 13, of the backports of 12 and 13
# or of sid is built with iommufd (CONFIG_IOMMUFD, CONFIG_VFIO_DEVICE_CDEV): IOMMUFD_KERNEL names one that is. A device with MSI: registers,
# interrupts, DMA; an NVMe disk with data compared and its helper killed; one that comes and goes; a node that somebody else has opened; what cannot be.
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
DISK=0000:00:10.0
modprobe -a nvme vfio-pci vfio_iommu_type1
modprobe iommufd 2>/dev/null
if [ ! -c /dev/iommu ] || [ ! -e $devices/$DISK/iommu_group ]; then
	skip iommufd "the lab's kernel, $(uname -r), has no iommufd: IOMMUFD_KERNEL=DIR names one that has"
	exit 0
fi
for d in $devices/*; do
	[ "$(cat "$d/device")" != 0x11e8 ] || [ ! -e "$d/reset" ] || msi=${d##*/}
done
by_node='by its node and iommufd'

# ---- registers, interrupts, DMA

expect edu 0 "$msi, 1234:11e8, .*$by_node" "$RUN" -v --mem 32M --vfio "$msi,bind,by=node" --kernel "$BUILD/guests/edu.elf" --timeout 120
for c in msi another_vector on_again factorial dma no_dma_unless_master; do
	also "edu-$c" "^ok $c"
done
same edu-failures '' "$(grep -E '^not ok|does not take notice' "$T/out")"
has_back edu-given-back "$msi" ''
expect edu-by-group 0 "$msi, 1234:11e8, .*by its group, " "$RUN" -v --mem 32M --vfio "$msi,bind" --kernel "$BUILD/guests/edu.elf" --timeout 120

# ---- a disk, its helper killed, beside another function

make_root "$T/root"
for a in awk basename cmp cut dmesg head md5sum readlink seq sleep tr; do ln -sf busybox "$T/root/bin/$a"; done
cat >"$T/root/bin/job" <<'JOB'
#!/bin/sh
for i in $(seq 100); do [ ! -b /dev/nvme0n1 ] || break; sleep 0.1; done
exec 3<&0
(read -r word <&3 && echo "$word" >/tmp/word) &
echo begun
n=0
while [ ! -s /tmp/word ]; do
	n=$((n + 1))
	seq $n 100000 | head -c 524288 >/tmp/data
	dd if=/tmp/data of=/dev/nvme0n1 bs=64k seek=16 oflag=direct 2>/dev/null || { echo write FAILED; exit 1; }
	dd if=/dev/nvme0n1 of=/tmp/again bs=64k skip=16 count=8 iflag=direct 2>/dev/null
	cmp /tmp/data /tmp/again || { echo FAILED; exit 1; }
done
echo "right $n times, $(md5sum </tmp/data | cut -d' ' -f1)"
JOB
chmod 755 "$T/root/bin/job"
mkfifo "$T/word"
exec {word}<>"$T/word"
"$RUN" -v -i --mem 256M --vfio $DISK,bind,by=node --vfio "$msi,bind,by=node" --rootfs "$T/root" --timeout 240 -- job <"$T/word" >"$T/guest" 2>&1 &
pid=$!
for _ in $(seq 600); do ! grep -q ^begun "$T/guest" || break; kill -0 $pid 2>/dev/null || break; sleep 0.1; done
same supervisor-alone-has-the-iommufd 1 "$(readlink /proc/[0-9]*/fd/* | grep -cx /dev/iommu)"
same helpers-have-no-guest-memory 0 "$(for h in $(pgrep -P $pid -x insula-vfio); do cat "/proc/$h/maps"; done | grep -c insula-guest)"
expect in-use 2 "another VM or program has it \\(process $pid, insula-run\\)" "$RUN" --vfio $DISK,by=node --mem 96M --kernel "$BUILD/guests/hello.elf"
expect in-use-by-group 2 "a function of it by its node: $DISK \\(process $pid, insula-run\\)" "$RUN" --vfio $DISK,by=group --mem 96M --kernel "$BUILD/guests/hello.elf"
back='insula-vfio vfio[01]: restarted, carries on'
for round in 1 2; do
	for h in $(pgrep -P $pid -x insula-vfio); do kill -9 "$h"; done
	for _ in $(seq 600); do [ "$(grep -c "$back" "$T/guest")" -lt $((2 * round)) ] || break; kill -0 $pid 2>/dev/null || break; sleep 0.1; done
done
echo enough >&$word
wait $pid
same disk-status 0 $?
cp "$T/guest" "$T/out"
also disk-by-node "vfio0: $DISK, .*$by_node"
also disk-right '^right [1-9][0-9]* times'
same helpers-back 4 "$(grep -c "$back" "$T/guest")"
sum=$(sed -n 's/^right .*, //p' "$T/guest" | tr -d '\r')
has_back given-back $DISK nvme
has_back other-given-back "$msi" ''
for _ in $(seq 100); do d=$(basename "$(dirname "$(grep -lsx 'alone *' /sys/class/nvme/*/serial)")")n1; [ ! -b "/dev/$d" ] || break; sleep 0.1; done
same host-reads-it "$sum" "$(dd if="/dev/$d" bs=64k skip=16 count=8 2>/dev/null | md5sum | cut -d' ' -f1)"

# ---- handed in, and what cannot be

echo vfio-pci >"$devices/$msi/driver_override"
echo "$msi" >/sys/bus/pci/drivers_probe
node=/dev/vfio/devices/$(ls "$devices/$msi/vfio-dev")
for _ in $(seq 50); do [ ! -c "$node" ] || break; sleep 0.1; done
exec {fd}<>"$node"
expect handed-in 0 "$by_node" "$RUN" -v --mem 32M --vfio "$msi,fd=$fd" --kernel "$BUILD/guests/edu.elf" --timeout 120
expect handed-in-twice 2 "$node: another VM or program has it, or a VM before had this descriptor" "$RUN" --mem 32M --vfio "$msi,fd=$fd" --kernel "$BUILD/guests/edu.elf"
exec {fd}>&- {fd}<>/dev/iommu
expect not-its-node 2 "fd $fd; expected /dev/vfio/[0-9]+, its group, or $node" "$RUN" --vfio "$msi,fd=$fd" --kernel "$BUILD/guests/edu.elf"
exec {fd}>&-
expect mixed 2 'expected the same of all functions of a VM' "$RUN" --mem 32M --vfio "$msi,by=node" --vfio "$DISK,bind,by=group" --kernel "$BUILD/guests/edu.elf"
has_back mixed-given-back $DISK nvme
echo >"$devices/$msi/driver_override"
echo "$msi" >"$devices/$msi/driver/unbind"

# ---- one that comes while the VM runs, and goes

insulad_up '"cgroup": "off"'
expect starts 0 '' "$CTL" run -d --name h0 --hotplug 2 --mem 128M --rootfs "$T/root" --
guest h0 true # its driver of the slots is there
sup=$("$CTL" info h0 | member pid)
# What the supervisor has open, without the sockets, which come and go with each command.
open_files() { find "/proc/$sup/fd" -type l -printf '%l\n' 2>/dev/null | grep -v '^socket:' | sed 's/:\[[0-9]*\]//' | sort | uniq -c; }
before=$(open_files)
expect add 0 '"vfio1"' "$CTL" device add h0 "vfio=$msi,bind,by=node"
same has-the-iommufd 1 "$(open_files | grep -c ' /dev/iommu$')"
guest h0 'for i in $(seq 100); do [ ! -e /sys/bus/pci/devices/0000:01:00.0 ] || break; sleep 0.1; done; cat /sys/bus/pci/devices/0000:01:00.0/device' >"$T/out"
also found '^0x11e8'
expect twice 1 "vfio $msi: vfio1 of this VM is of the same IOMMU group" "$CTL" device add h0 "vfio=$msi"
expect twice-by-node 1 "vfio $msi: vfio1 of this VM is of the same IOMMU group" "$CTL" device add h0 "vfio=$msi,by=node"
expect pulled 0 '' "$CTL" device rm --force h0 vfio1
has_back pulled-given-back "$msi" ''
for _ in $(seq 600); do [ "$before" != "$(open_files)" ] || break; sleep 0.1; done
same nothing-left "$before" "$(open_files)"
insulad_down
