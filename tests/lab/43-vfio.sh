#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Functions of the (lab) host in a guest, with a machine of its own (43-vfio.lab). An NVMe disk: file system, fio with verify, interrupts, its
# helper killed under it, resets; DMA outside of the guest is blocked; the host has it back afterwards, whoever is killed. A group that somebody
# else has opened. Two virtual functions of one disk in two VMs, found and made. What cannot be is refused in words.
# VFIO_KILLS: how often the helper is killed (3).
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
KILLS=${VFIO_KILLS:-3}
DISK=0000:00:10.0 EDU=0000:00:11.0
if ! grep -qsx alone /sys/class/nvme/*/serial && [ ! -e $devices/$DISK/iommu_group ]; then
	skip vfio "not the machine of 43-vfio.lab"
	exit 0
fi
for p in fio lspci mke2fs gcc; do
	command -v $p >/dev/null || { not_ok $p "not installed"; exit 1; }
done
make_root "$T/root"
mkdir -p "$T/root/mnt"
root_program "$T/root" fio lspci
install -D "$(realpath "$(command -v mke2fs)")" "$T/root/sbin/mke2fs.ext"
for f in $(ldd "$(command -v mke2fs)" | grep -oE '/[^ ]+\.so[^ ]*'); do
	install -D "$(realpath "$f")" "$T/root$f"
done
for a in awk cmp dmesg head ip md5sum ping sleep umount seq sort tail; do
	ln -sf busybox "$T/root/bin/$a"
done
gcc -O2 -static -o "$T/root/bin/dmaout" "$(dirname "$0")/dmaout.c" || { not_ok dmaout "does not compile"; exit 1; }
cat >"$T/root/bin/job" <<'JOB'
#!/bin/sh
# A file system, and fio until the host has said a word.
exec 3<&0 # what runs in the background has no input of its own
(read -r word <&3 && echo "$word" >/tmp/word) &
# The disk comes after the first programs.
for i in $(seq 50); do
	[ ! -b /dev/nvme0n1 ] || break
	sleep 0.1
done
set -e
/sbin/mke2fs.ext -q -F -t ext4 -O ^has_journal /dev/nvme0n1
mount -t ext4 /dev/nvme0n1 /mnt
echo begun
n=0
while [ ! -s /tmp/word ]; do
	n=$((n + 1))
	fio --name=v --directory=/mnt --size=6M --bs=4k --rw=randwrite --ioengine=libaio --direct=1 --iodepth=16 --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --randseed=$n --eta=never >/tmp/fio 2>&1 || { cat /tmp/fio; echo fio FAILED; exit 1; }
done
echo "verified $n times"
md5sum /dev/null >/mnt/mark
umount /mnt
awk '/nvme/ {for (i = 2; i < NF; i++) if ($i ~ /^[0-9]+$/) n += $i} END {print "interrupts " n}' /proc/interrupts
dmesg | grep -iE 'nvme.*(timeout|abort|reset)|I/O error' | head -n 3
echo finished
JOB
chmod +x "$T/root/bin/job"
host_disk() { for _ in $(seq 50); do [ ! -b "/dev/$1" ] || return 0; sleep 0.1; done; return 1; }

# ---- what is refused, before anything is taken

expect no-vfio-pci 2 "$DISK: bind: the driver vfio-pci is not there; expected it: modprobe vfio-pci" "$RUN" --vfio $DISK,bind -n --rootfs "$T/root"
modprobe -a vfio-pci vfio_iommu_type1
expect no-function 2 'vfio 0000:07:00.0: there is no such PCI function' "$RUN" --vfio 07:00.0 --rootfs "$T/root"
expect no-iommufd 2 "vfio $DISK: by=node: there is no /dev/iommu; expected a kernel with iommufd" "$RUN" --vfio $DISK,bind,by=node --rootfs "$T/root"
expect no-address 2 "vfio: '10.0'; expected the address of a PCI function" "$RUN" --vfio 10.0 --rootfs "$T/root"
expect no-word 2 'expected the address of a PCI function' "$RUN" --vfio $DISK,blind --rootfs "$T/root"
expect other-driver 2 "vfio $DISK: the host uses it, driver nvme; expected vfio-pci: bind it before, or say --vfio $DISK,bind" "$RUN" --vfio $DISK --rootfs "$T/root"
expect its-group 2 'IOMMU group [0-9]+ has others that the host uses: 0000:00:14.1 \(nvme\)' "$RUN" --vfio 0000:00:14.0,bind --rootfs "$T/root"
expect no-virtual-functions 2 "vfio pf=$DISK: it has no virtual functions; expected one with SR-IOV" "$RUN" --vfio pf=$DISK,vf=auto --rootfs "$T/root"
expect twice 2 'a function is given twice' "$RUN" --vfio $DISK --vfio 00:10.0 --rootfs "$T/root"
expect balloon 2 'balloon: expected off with --vfio' "$RUN" --vfio $DISK,bind --balloon on --rootfs "$T/root"
expect no-reset 2 "vfio $EDU: it cannot be reset" "$RUN" --vfio $EDU,bind --rootfs "$T/root"
same edu-is-back ' (null)' "$(driver $EDU) $(cat $devices/$EDU/driver_override)"
modprobe virtio_net
interface() { basename "$(dirname "$(grep -lx "52:54:00:00:43:0$1" /sys/class/net/*/address)")"; }
for _ in $(seq 100); do [ "$(interface 1)" = . ] || [ "$(interface 2)" = . ] || break; sleep 0.1; done
card=$(interface 2)
CARD=$(basename "$(realpath "/sys/class/net/$card/device/..")")
ip link set dev "$card" up
expect card-is-up 2 "vfio $CARD: bind: in use: network card $card; expected it unmounted, or down" "$RUN" --vfio "$CARD,bind" --rootfs "$T/root"
ip link set dev "$card" down
# The lab's virtiofs is on a virtio device, which is no disk; a file system on the disk itself is.
alone=$(basename "$(dirname "$(grep -lx 'alone *' /sys/class/nvme/*/serial)")")n1
mke2fs -q -F -t ext4 "/dev/$alone" && mkdir "$T/m" && mount "/dev/$alone" "$T/m"
expect mounted 2 "vfio $DISK: bind: in use: /dev/$alone; expected it unmounted" "$RUN" --vfio $DISK,bind --rootfs "$T/root"
umount "$T/m"

# ---- a card whose driver the initrd has for it

other=$(basename "$(dirname "$(grep -lx 0x15ad $devices/*/vendor)")")
expect module 0 '^vmxnet3 52:54:00:00:43:03$' "$RUN" --mem 128M --vfio "$other,bind" --rootfs "$T/root" -- \
	sh -c 'for n in /sys/class/net/*; do d=$(busybox readlink $n/device/driver) || continue; echo "${d##*/} $(cat $n/address)"; done'
has_back module-given-back "$other" ''

# ---- the disk, its helper killed under it

# until FILE REGEX PID: it says so, as long as the process lives
until_said() {
	for _ in $(seq 400); do
		! grep -qE "$2" "$1" || return 0
		kill -0 "$3" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}
mkfifo "$T/word"
exec {word}<>"$T/word"
"$RUN" -i --cpus 2 --mem 256M --vfio $DISK,bind --rootfs "$T/root" --timeout 240 --metrics "$T/metrics" -- job <"$T/word" >"$T/guest" 2>&1 &
pid=$!
until_said "$T/guest" '^begun' $pid
same bound vfio-pci "$(driver $DISK)"
same helper-has-no-guest-memory 0 "$(grep -c insula-guest "/proc/$(pgrep -P $pid -x insula-vfio)/maps")"
expect in-use 2 "another VM or program has its group" "$RUN" --vfio $DISK --mem 96M --rootfs "$T/root" -- echo no
kills=0
for _ in $(seq "$KILLS"); do
	h=$(pgrep -P $pid -x insula-vfio)
	[ -z "$h" ] || ! kill -9 "$h" || kills=$((kills + 1))
	sleep 1
done
echo enough >&$word
wait $pid
same disk-status 0 $?
cp "$T/guest" "$T/out"
also disk-verified '^verified [1-9][0-9]* times'
also disk-finished '^finished'
also disk-interrupts '^interrupts [0-9]{3,}'
same disk-no-timeouts '' "$(grep -iE 'nvme.*(timeout|abort|reset)|I/O error' "$T/guest" | head -n 1)"
same helpers-killed "$KILLS $KILLS" "$kills $(grep -c 'insula-vfio vfio0 was killed by signal 9' "$T/guest")"
same helpers-back "$KILLS" "$(grep -c 'insula-vfio vfio0: restarted, carries on' "$T/guest")"
has_back given-back $DISK nvme
host_disk "$alone"
fsck.ext4 -fn "/dev/$alone" >"$T/out" 2>&1
same host-finds-the-file-system 0 $?
mount "/dev/$alone" "$T/m" && same host-reads-it "$(md5sum </dev/null | cut -d' ' -f1)" "$(cut -d' ' -f1 "$T/m/mark")"
umount "$T/m"

# ---- resets, a BAR that moves, DMA outside of the guest

"$T/root/bin/dmaout" page <"$T/word" >"$T/page" &
page=$!
until_said "$T/page" '^0x' $page
outside=$(head -n 1 "$T/page")
dmesg -C
expect attack 0 'attacked' "$RUN" --mem 256M --vfio $DISK,bind --rootfs "$T/root" --timeout 120 -- sh -c "
	f=/sys/bus/pci/devices/0000:00:01.0
	while [ ! -b /dev/nvme0n1 ]; do sleep 0.1; done
	lspci -vv -s 1.0
	echo 0000:00:01.0 >\$f/driver/unbind
	echo 1 >\$f/reset && echo reset done
	dmaout attack 0000:00:01.0 $outside
	echo 1 >\$f/remove; echo 1 >/sys/bus/pci/rescan
	# The node is there a moment before the disk can be opened.
	for i in \$(seq 100); do ! true 2>/dev/null </dev/nvme0n1 || break; sleep 0.1; done
	dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16 && echo works again"
cp "$T/out" "$T/attack"
also seen-by-lspci 'MSI-X: Enable\+ Count=[0-9]+ Masked-'
also large-bar-above-4g 'Region 2: Memory at 1[0-9a-f]{8} \(64-bit, [a-z-]+\) \[size=64M\]'
also large-bar-works '^memory of 64 MiB'
also seen-as-endpoint 'Root Complex Integrated Endpoint'
also bus-master 'Mem\+ BusMaster\+'
also reset-works '^reset done'
also dma-inside-works 'inside: vendor 0x1b36'
also works-after-all '^works again'
same lspci-has-no-errors '' "$(grep -nE '!!!|[Uu]nknown header|access denied' "$T/attack" | head -n 1)"
echo look >&$word
wait $page
same memory-outside-unchanged unchanged "$(tail -n 1 "$T/page")"
dmesg >"$T/out"
also iommu-fault-logged "DMAR: \[DMA Write.*\] Request device \[00:10\.0\] fault addr $outside"
has_back given-back-again $DISK nvme

# ---- the supervisor is killed, and an ordinary user

host_disk "$alone"
"$RUN" --mem 128M --vfio $DISK,bind --rootfs "$T/root" --timeout 120 -- sh -c 'while [ ! -b /dev/nvme0n1 ]; do sleep 0.1; done; echo begun; dd if=/dev/zero of=/dev/nvme0n1 bs=1M oflag=direct' >"$T/killed" 2>&1 &
pid=$!
until_said "$T/killed" '^begun' $pid
kill -9 $pid
wait $pid 2>/dev/null
has_back given-back-by-its-keeper $DISK nvme
host_disk "$alone"
expect host-uses-it 0 '' dd if="/dev/$alone" of=/dev/null bs=1M count=4 iflag=direct
insulad_up '"overhead_mib": 512'
# The lab's caches are files in memory, which count, and so does all of the guest's.
make_root "$T/small"
ln -s busybox "$T/small/bin/sleep"
expect of-insulad 0 '' "$CTL" run -d --name v --mem 128M --vfio $DISK,bind --rootfs "$T/small" -- sleep 1000
guest v 'while [ ! -b /dev/nvme0n1 ]; do sleep 0.1; done; echo there' >"$T/out"
also of-insulad-has-it '^there'
expect no-snapshot 1 'vfio0: a device of the host cannot be part of a snapshot' "$CTL" snapshot v "$T/snapshot"
kill -9 "$("$CTL" info v | member pid)"
has_back given-back-though-its-group-is-killed $DISK nvme
insulad_down
host_disk "$alone"
for_user
echo vfio-pci >$devices/$DISK/driver_override
echo $DISK >$devices/$DISK/driver/unbind
echo $DISK >/sys/bus/pci/drivers_probe
group=$(basename "$(readlink $devices/$DISK/iommu_group)")
for _ in $(seq 50); do [ ! -c "/dev/vfio/$group" ] || break; sleep 0.1; done
chown 1000:1000 "/dev/vfio/$group"
payload() { # NAME STATUS REGEX VFIO [BYTES]: an ordinary user's, who may lock so much
	expect "$1" "$2" "$3" prlimit --memlock="${5-268435456:268435456}" "${AS_USER[@]}" "$RUN" --mem 96M --vfio "$4" --kernel "$BUILD/guests/hello.elf" \
		--timeout 60
}
payload locked-memory 2 'locked memory is limited to 8192 KiB; expected at least 99328.*RLIMIT_MEMLOCK' $DISK 8388608:8388608
payload ordinary-user 42 '^Hello' $DISK
chown 0:0 "/dev/vfio/$group"
payload no-right 2 "/dev/vfio/$group: Permission denied" $DISK
exec {fd}<>/dev/vfio/vfio
payload no-group 2 "vfio $DISK: fd $fd; expected /dev/vfio/$group, its group" $DISK,fd=$fd
exec {fd}>&- {fd}<>"/dev/vfio/$group"
payload group-handed-in 42 '^Hello' $DISK,fd=$fd
payload group-again 42 '^Hello' $DISK,fd=$fd
# in_use: as another program would have it: VFIO_GROUP_UNSET_CONTAINER (of the VM before), _SET_CONTAINER, VFIO_SET_IOMMU, VFIO_GROUP_GET_DEVICE_FD
cat >"$T/in_use" <<'PY'
import fcntl, os, struct, sys
group, container = int(sys.argv[1]), os.open("/dev/vfio/vfio", os.O_RDWR)
fcntl.ioctl(group, 0x3b69)
fcntl.ioctl(group, 0x3b68, struct.pack("i", container))
fcntl.ioctl(container, 0x3b66, 3)
device = fcntl.ioctl(group, 0x3b6a, sys.argv[2].encode() + b"\0")
sys.exit(os.spawnv(os.P_WAIT, sys.argv[3], sys.argv[3:]))
PY
expect group-in-use 2 "vfio $DISK: fd $fd: another program uses its group" \
	python3 "$T/in_use" $fd $DISK "$RUN" --vfio $DISK,fd=$fd --kernel "$BUILD/guests/hello.elf"
exec {fd}>&-
echo >$devices/$DISK/driver_override
echo $DISK >$devices/$DISK/driver/unbind
echo $DISK >/sys/bus/pci/drivers_probe

# ---- a device with MSI alone, which a payload drives: registers, interrupts, DMA

for d in $devices/*; do
	[ "$(cat "$d/device")" != 0x11e8 ] || [ ! -e "$d/reset" ] || msi=${d##*/}
	[ "$(cat "$d/device")" != 0x8139 ] || pin=${d##*/}
done
expect pin-alone 2 "vfio $pin: it has neither MSI-X nor MSI; expected one of them: a pin alone is not possible" "$RUN" --vfio "$pin,bind" --rootfs "$T/root"
has_back pin-given-back "$pin" ''
expect msi 0 '' "$RUN" --mem 32M --vfio "$msi,bind" --kernel "$BUILD/guests/edu.elf" --timeout 120
for c in msi another_vector on_again factorial dma no_dma_unless_master; do
	also "edu-$c" "^ok $c"
done
same edu-failures '' "$(grep '^not ok' "$T/out")"
same hypervisor-takes-notice '' "$(grep 'does not take notice' "$T/out")"
has_back edu-given-back "$msi" ''

# ---- a card

ip addr add 192.0.2.1/24 dev "$(interface 1)"
ip link set dev "$(interface 1)" up
expect card 0 '' "$RUN" --mem 128M --vfio "$CARD,bind" --rootfs "$T/root" --timeout 120 -- sh -c '
	for i in $(seq 100); do n=$(grep -lx 52:54:00:00:43:02 /sys/class/net/*/address) && break; sleep 0.1; done
	n=${n%/address}; n=${n##*/}
	ip addr add 192.0.2.2/24 dev $n
	ip link set dev $n up
	for i in $(seq 100); do ping -c 1 -W 1 192.0.2.1 >/dev/null && break; done
	ping -c 20 -i 0.1 -s 1400 -W 10 192.0.2.1
	grep virtio.-input /proc/interrupts'
also card-answers '^20 packets transmitted, 20 packets received, 0% packet loss'
also card-interrupts 'PCI-MSI.*virtio[0-9]+-input'
has_back card-given-back "$CARD" virtio-pci

# ---- two virtual functions of one disk, in two VMs

many=$(dirname "$(grep -lx 'many *' /sys/class/nvme/*/serial)")
pf=$(basename "$(realpath "$many/device")")
# virt_mgmt CONTROLLER RESOURCE ACTION NUMBER: NVM Express Base 1.4, 5.22
cat >"$T/virt_mgmt" <<'PY'
import fcntl, struct, sys
dev, cntlid, rt, act, nr = sys.argv[1], *map(int, sys.argv[2:])
with open(dev, "rb") as f:
    fcntl.ioctl(f, 0xc0484e41, struct.pack("<BBHIIIQQIIIIIIIIII", 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                           cntlid << 16 | rt << 8 | act, nr, 0, 0, 0, 0, 0, 0))
PY
virt_mgmt() { python3 "$T/virt_mgmt" "/dev/$(basename "$many")" "$@" >>"$T/out" 2>&1; }
: >"$T/out"
virt_mgmt 0 1 1 0 && virt_mgmt 0 0 1 0 && echo 1 >"$many/reset_controller"
echo 0 >$devices/$pf/sriov_drivers_autoprobe # so the host has no use for them
echo 2 >$devices/$pf/sriov_numvfs
for v in 1 2; do
	virt_mgmt $v 1 8 1 && virt_mgmt $v 0 8 2 && virt_mgmt $v 0 9 0
done
same virtual-functions '' "$(cat "$T/out")"
vm_of_vf() { # N WORD: a VM with one that is free, which writes its own part of the disk and reads it again, while the other one does
	"$RUN" --mem 256M --vfio "pf=$pf,vf=auto" --rootfs "$T/root" --timeout 240 -- sh -c "
		for i in \$(seq 100); do [ ! -b /dev/nvme0n1 ] || break; sleep 0.1; done
		for i in 1 2 3; do
			fio --name=v --filename=/dev/nvme0n1 --offset=$(($1 * 32))M --size=2M --bs=4k --rw=randwrite --ioengine=libaio --direct=1 --iodepth=8 \
				--verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=\${i}$1 --eta=never >/tmp/fio 2>&1 || { cat /tmp/fio; exit 1; }
		done
		echo verified $2" >"$T/vf$1" 2>&1
}
vm_of_vf 0 first &
first=$!
vm_of_vf 1 second &
second=$!
wait $first
same first-virtual-function "0 verified first" "$? $(tail -n 1 "$T/vf0")"
wait $second
same second-virtual-function "0 verified second" "$? $(tail -n 1 "$T/vf1")"
same virtual-functions-stay "2  " "$(cat $devices/$pf/sriov_numvfs) $(driver "$pf/virtfn0") $(driver "$pf/virtfn1")"
echo 0 >$devices/$pf/sriov_numvfs
echo 1 >$devices/$pf/sriov_drivers_autoprobe

# ---- virtual functions that are made

small_vm() { # NAME OPTION: a small VM with one, in the background: $!
	"$RUN" --mem 32M --vfio "pf=$pf,vf=auto$2" --kernel "$BUILD/guests/idle.elf" --timeout 120 >"$T/$1" 2>&1 &
	until_said "$T/$1" '^idle' $!
}
numvfs() { # N: there are so many, soon
	for _ in $(seq 100); do
		[ "$(cat $devices/$pf/sriov_numvfs)" != "$1" ] || break
		sleep 0.1
	done
	cat $devices/$pf/sriov_numvfs
}
expect too-many-of-them 2 "vfio pf=$pf: vfs '3'; expected 1 to 2" "$RUN" --vfio "pf=$pf,vf=auto,vfs=3" --kernel "$BUILD/guests/idle.elf"
expect none-made-by-a-check 0 '' "$RUN" -n --vfio "pf=$pf,vf=auto,vfs=2" --kernel "$BUILD/guests/idle.elf"
same none-are-there 0 "$(cat $devices/$pf/sriov_numvfs)"
small_vm one ,vfs=2
one=$!
same made '2 1 vfio-pci' "$(cat $devices/$pf/sriov_numvfs $devices/$pf/sriov_drivers_autoprobe | paste -sd' ') $(driver "$pf/virtfn0")"
small_vm two ''
two=$!
same found vfio-pci "$(driver "$pf/virtfn1")"
expect none-is-free 2 'none of its 2 virtual functions is free; expected one without a driver or on vfio-pci, which no VM has' \
	"$RUN" --vfio "pf=$pf,vf=auto" --kernel "$BUILD/guests/idle.elf"
# Whoever made them is killed: they stay, as long as another one has one.
kill -9 $one
wait $one 2>/dev/null
has_back one-given-back "$pf/virtfn0" ''
same others-stay '2 vfio-pci' "$(cat $devices/$pf/sriov_numvfs) $(driver "$pf/virtfn1")"
kill $two && ok the-other-goes-on
wait $two
same virtual-functions-gone 0 "$(numvfs 0)"
expect made-and-gone 42 '^Hello' "$RUN" --mem 32M --vfio "pf=$pf,vf=auto" --kernel "$BUILD/guests/hello.elf" --timeout 60
same gone-at-its-end 0 "$(cat $devices/$pf/sriov_numvfs)"

# Two VMs that want them at once: one makes them, and the host's own choice (autoprobe) is as it was, whoever is killed.
for round in 1 2; do
	"$RUN" --mem 32M --vfio "pf=$pf,vf=auto,vfs=2" --kernel "$BUILD/guests/idle.elf" --timeout 120 >"$T/first" 2>&1 &
	one=$!
	"$RUN" --mem 32M --vfio "pf=$pf,vf=auto,vfs=2" --kernel "$BUILD/guests/idle.elf" --timeout 120 >"$T/second" 2>&1 &
	two=$!
	until_said "$T/first" '^idle' $one && until_said "$T/second" '^idle' $two
	same "two-at-once-$round" '2 1' "$(cat $devices/$pf/sriov_numvfs $devices/$pf/sriov_drivers_autoprobe | paste -sd' ')" "$(cat "$T/first" "$T/second")"
	kill -9 $one $two
	wait $one $two 2>/dev/null
	same "two-at-once-$round-gone" '0 1' "$(numvfs 0) $(cat $devices/$pf/sriov_drivers_autoprobe)"
done
