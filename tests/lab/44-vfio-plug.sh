#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A function of the (lab) host that comes while a guest runs, and goes, with a machine of its own (44-vfio-plug.lab): an NVMe disk, its data compared,
# its helper killed under load, given up in order, given back, again, pulled out, with the VM killed. What cannot be is refused in words.
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
DISK=0000:00:10.0 BIG=0000:00:11.0
if ! grep -qsx 'hot *' /sys/class/nvme/*/serial && [ ! -e $devices/$DISK/iommu_group ]; then
	skip vfio-plug "not the machine of 44-vfio-plug.lab"
	exit 0
fi
modprobe -a vfio-pci vfio_iommu_type1
make_root "$T/root"
for a in basename cut dmesg head mknod readlink tr insmod lspci md5sum seq setsid sleep; do ln -sf busybox "$T/root/bin/$a"; done
# The guest's driver is the guest's matter: it comes with its root.
mkdir "$T/root/mod"
n=0
for m in $(modprobe -d "$BUILD/guest" -S "$(basename "$BUILD"/guest/lib/modules/*)" -D nvme | grep -o '/[^ ]*\.ko[^ ]*'); do
	cp "$m" "$T/root/mod/$((n += 1)).ko"
done
# A disk that was pulled out keeps its name as long as somebody has it open: the next one has another.
cat >"$T/root/bin/find_nvme" <<'JOB'
#!/bin/sh
for i in $(seq 200); do
	for d in /sys/class/nvme/*; do
		for b in /sys/block/nvme*; do
			[ -b /dev/${b##*/} ] && { echo ${b##*/} $(basename $(readlink -f $d/device)); exit 0; }
		done
	done
	sleep 0.1
done
echo none; exit 1
JOB
cat >"$T/root/bin/no_nvme" <<'JOB'
#!/bin/sh
for i in $(seq 300); do
	ls -d /sys/class/nvme/* >/dev/null 2>&1 || { echo gone; exit 0; }
	sleep 0.1
done
echo still there; exit 1
JOB
# write, and read again what was written, until /tmp/enough; what came of it is in /tmp/result. By a node of its own: what is written to the name of
# a disk that has gone would be a file, and in the way of the next one.
cat >"$T/root/bin/load" <<'JOB'
#!/bin/sh
n=0
d=$(find_nvme)
rm -f /tmp/enough /tmp/result /tmp/disk
mknod /tmp/disk b $(tr : ' ' </sys/block/${d%% *}/dev)
d=/tmp/disk
while [ ! -e /tmp/enough ]; do
	n=$((n + 1))
	seq $n 60000 | head -c 262144 >/tmp/data
	dd if=/tmp/data of=$d bs=64k seek=16 oflag=direct 2>/dev/null || { echo write $n >/tmp/result; exit 1; }
	dd if=$d of=/tmp/again bs=64k skip=16 count=4 iflag=direct 2>/dev/null
	[ "$(md5sum </tmp/data)" = "$(md5sum </tmp/again)" ] || { echo differs $n >/tmp/result; exit 1; }
	echo $n >/tmp/rounds
done
echo "right $n" >/tmp/result
JOB
cat >"$T/root/bin/enough" <<'JOB'
#!/bin/sh
touch /tmp/enough
for i in $(seq 600); do [ -e /tmp/result ] && break; sleep 0.1; done
cat /tmp/result
JOB
chmod 755 "$T/root/bin/"{find_nvme,no_nvme,load,enough}

host_disk() { # SERIAL: its name, when it is there
	local d
	for _ in $(seq 100); do
		d=$(grep -lsx "$1 *" /sys/class/nvme/*/serial) && [ -b "/dev/$(basename "$(dirname "$d")")n1" ] && break
		sleep 0.1
	done
	basename "$(dirname "$d")"
}

insulad_up '"cgroup": "off"'
expect starts 0 '' "$CTL" run -d --name h0 --hotplug 2 --cpus 2 --mem 256M --rootfs "$T/root" --
sup=$("$CTL" info h0 | member pid)
guest h0 'mount -t sysfs sys /sys 2>/dev/null; for m in $(seq 20); do [ -e /mod/$m.ko ] && insmod /mod/$m.ko; done; echo loaded' >"$T/out"
also driver-loaded '^loaded$'
fds=$(ls "/proc/$sup/fd" | wc -l)
core_maps() { grep -c vfio-device "/proc/$(process h0 insula-vmm)/maps"; }

# ---- what is refused

expect host-uses-it 2 "vfio $DISK: the host uses it, driver nvme; expected vfio-pci: bind it before, or say --vfio $DISK,bind" "$CTL" device add h0 vfio=$DISK
expect too-large 2 "vfio $BIG: its BARs do not fit into the 2 MiB of a place; expected it from the start" "$CTL" device add h0 vfio=$BIG,bind
has_back too-large-given-back $BIG nvme
expect no-fd 2 'vfio.fd; expected none: a descriptor cannot be handed to a VM that runs' "$CTL" device add h0 vfio=$DISK,fd=5
expect no-function 2 'vfio 0000:07:00.0: there is no such PCI function' "$CTL" device add h0 vfio=07:00.0
same nothing-stays "$fds" "$(ls "/proc/$sup/fd" | wc -l)"

# ---- it comes, works, its helper is killed

expect add 0 '"vfio1"' "$CTL" device add h0 vfio=$DISK,bind
same bound vfio-pci "$(driver $DISK)"
guest h0 'find_nvme' >"$T/out"
also found '^nvme[0-9]n1 0000:01:00.0$'
same registers-in-place 2 "$(core_maps)"
expect listed 0 '"device":"vfio1","kind":"vfio","place":"01:00.0","removable":true,"slot":1' "$CTL" device ls h0
expect no-snapshot 1 'vfio1' "$CTL" snapshot h0 "$T/snapshot"
expect twice 1 "vfio $DISK: vfio1 of this VM is of the same IOMMU group" "$CTL" device add h0 vfio=$DISK
guest h0 'setsid load >/dev/null 2>&1 & sleep 2' >/dev/null
shoot h0 'insula-vfio vfio1'
sleep 1
shoot h0 'insula-vfio vfio1'
guest h0 'enough; grep nvme0q /proc/interrupts | head -n 4' >"$T/out"
also under-kills-it-is-right '^right [1-9]'
also interrupts 'PCI-MSI.*nvme0q[1-9]'
guest h0 'seq 100000 | head -c 524288 >/tmp/data && dd if=/tmp/data of=/dev/$(find_nvme | cut -d" " -f1) bs=64k oflag=direct 2>/dev/null; sync; md5sum </tmp/data' >"$T/out"
sum=$(cut -d' ' -f1 "$T/out")

# ---- in order; the host has it back, and the data

expect rm 0 '' "$CTL" device rm h0 vfio1
guest h0 no_nvme >"$T/out"
also gone '^gone$'
has_back given-back $DISK nvme
same host-reads-it "$sum" "$(head -c 524288 "/dev/$(host_disk hot)n1" | md5sum | cut -d' ' -f1)"
same core-let-go 0 "$(core_maps)"
same no-process '' "$(process h0 insula-vfio)"
same nothing-left "$fds" "$(ls "/proc/$sup/fd" | wc -l)"
no_oops h0 quiet-after-rm

# ---- once more; pulled out under load

expect add-again 0 '"vfio1"' "$CTL" device add h0 vfio=$DISK,bind
guest h0 'd=$(find_nvme); echo $d; dd if=/dev/${d%% *} bs=64k count=8 iflag=direct 2>/dev/null | md5sum' >"$T/out"
also found-again '^nvme[0-9]n1 0000:01:00.0$'
also reads-it "^$sum"
guest h0 'setsid load >/dev/null 2>&1 & sleep 1' >/dev/null
expect pulled 0 '' "$CTL" device rm --force h0 vfio1
guest h0 no_nvme >"$T/out"
also pulled-gone '^gone$'
has_back pulled-given-back $DISK nvme
same pulled-nothing-left "$fds" "$(ls "/proc/$sup/fd" | wc -l)"
expect lives 0 '^alive$' "$CTL" exec h0 -- echo alive
no_oops h0 quiet-after-pull

# ---- once more; the VM is killed. CHECK_LONG: the guest switches the slot off and on before

expect add-third 0 '"vfio1"' "$CTL" device add h0 vfio=$DISK,bind
if [ -n "${CHECK_LONG:-}" ]; then
	guest h0 'find_nvme; echo 0 >/sys/bus/pci/slots/1/power; no_nvme; echo 1 >/sys/bus/pci/slots/1/power; d=$(find_nvme) && dd if=/dev/${d%% *} of=/dev/null bs=64k count=8 && echo reads' >"$T/out"
	also switched-off '^gone$'
	also switched-on '^reads$'
fi
kill -9 "$sup"
has_back given-back-by-its-keeper $DISK nvme
"$CTL" rm -f h0 >/dev/null 2>&1
