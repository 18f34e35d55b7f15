#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A Debian kernel whose devices are functions of a PCI bus: what it makes of the bus (lspci, /proc/interrupts, ACPI, dmesg), and that each
# device works there, also while its process is killed: a disk under fio --verify, a card, streams, a virtio console, random numbers, a live
# share, the balloon. Saved, restored and cloned; as many functions as there can be; both buses in one VM.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
for p in ip curl lspci; do
	command -v $p >/dev/null || { not_ok $p "not installed"; exit 1; }
done
host_tap
make_root "$T/root"
root_program "$T/root" fio lspci
mkdir -p "$T/root/www" "$T/root/share" "$T/share"
for a in cut dmesg find head httpd ip kill md5sum mkdir od ping readlink seq setsid sleep sort stty tail tr wc; do
	ln -sf busybox "$T/root/bin/$a"
done
head -c 4000000 /dev/urandom >"$T/root/www/data"
sum=$(md5sum <"$T/root/www/data" | cut -d' ' -f1)
echo from-the-host >"$T/share/in"
truncate -s 48M "$T/disk.img"
cat >"$T/root/bin/load" <<'JOB'
#!/bin/sh
n=0
while [ ! -e /tmp/enough ]; do
	fio --name=load --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=4k --size=4M --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --randseed=$n --eta=never >/tmp/fio.out 2>&1 || { echo "fio $?" >/tmp/result; exit 1; }
	n=$((n + 1))
done
echo "right $n" >/tmp/result
JOB
chmod 755 "$T/root/bin/load"

# quiet_dmesg NAME: $T/out has a guest's dmesg
quiet_dmesg() {
	local bad
	bad=$(grep -iE 'ACPI (BIOS )?(Error|Warning)|BIOS bug|firmware bug|(pci|virtio).*(fail|conflict|error|timed out|invalid|not claimed|can.t)|resource sanity|no compatible' \
		"$T/out" | head -n 3)
	if grep -q 'Linux version' "$T/out" && [ -z "$bad" ]; then ok "$1"; else not_ok "$1" "${bad:-no dmesg}"; fi
}

# ---- the bus, as the guest sees it

insulad_up '"cgroup": "off"'
expect starts 0 '' "$CTL" run -d --name v0 --bus pci --cpus 2 --mem 256M --rootfs "$T/root" --disk "$T/disk.img" --console virtio --balloon on \
	--net tap=tap0,mac=52:54:00:00:09:01,ip=192.0.2.2/24 --share "$T/share:/share" --
guest v0 'dmesg' >"$T/out"
quiet_dmesg dmesg-is-quiet
also bus-is-found 'PCI host bridge to bus 0000:00'
# Disk, root, card, share, console, balloon, random numbers, streams; beside the host bridge.
functions=8
guest v0 'mount -t sysfs sys /sys 2>/dev/null; lspci -n; echo; lspci -vv' >"$T/out"
same functions $functions "$(grep -cE '^00:[0-9a-f]{2}\.0 [0-9a-f]{4}: 1af4:10[4-6][0-9a-f] \(rev 01\)' "$T/out")"
same lspci-no-errors '' "$(grep -nE '!!!|[Uu]nknown header|access denied|BadTLP|<?\?\?>?|pcilib' "$T/out" | head -n 3)"
same msix-of-each $functions "$(grep -c 'MSI-X: Enable+ Count=[0-9]* Masked-' "$T/out")"
same bus-masters $functions "$(grep -c 'Control: I/O- Mem+ BusMaster+' "$T/out")"
same bars $functions "$(grep -c 'Region 0: Memory at d8[0-9a-f]* (32-bit, non-prefetchable) \[size=16K\]' "$T/out")"
same drivers $functions "$(grep -c 'Kernel driver in use: virtio-pci' "$T/out")"
guest v0 'mount -t sysfs sys /sys 2>/dev/null; for d in /sys/bus/virtio/devices/*; do readlink $d; done; echo; cat /proc/interrupts' >"$T/out"
same none-on-mmio "$functions" "$(grep -c 'pci0000:00/0000:00:' "$T/out")"
also disk-vector-of-each-queue 'PCI-MSI.*virtio[0-9]+-req\.0$'
same disk-vectors 4 "$(grep -cE 'PCI-MSI.* virtio[0-9]+-req\.[01]$' "$T/out")" # two disks, two processors
also card-vectors 'PCI-MSI.*virtio[0-9]+-input\.0$'
also configuration-vector 'PCI-MSI.*virtio[0-9]+-config$'
same no-pin-of-virtio '' "$(grep -E 'IO-APIC.*virtio' "$T/out")"
for t in DSDT MCFG APIC FACP; do
	timeout 60 "$CTL" exec v0 -- cat /sys/firmware/acpi/tables/$t >"$T/$t" 2>/dev/null </dev/null
done
if command -v iasl >/dev/null; then
	(cd "$T" && iasl -d DSDT MCFG APIC FACP) >"$T/out" 2>&1
	same acpi-tables-disassembled '4 ' "$(grep -c '^ASL Output\|^Formatted output' "$T/out") $(grep -iE 'error|warning|invalid' "$T/out" | head -n 2)"
	(cd "$T" && iasl DSDT.dsl) >"$T/out" 2>&1
	also acpi-compiles-again 'Compilation successful\. 0 Errors, 0 Warnings'
else
	skip acpi-tables-disassembled 'no iasl'
fi

# ---- each device, and its process killed

# Meanwhile vectors are moved from one processor to the other: masked, aimed elsewhere, unmasked.
cat >"$T/share/move" <<'JOB'
n=0
while [ ! -e /tmp/enough ]; do
	for cpu in 1 2; do
		for i in $(grep 'PCI-MSI.*virtio' /proc/interrupts | cut -d: -f1); do
			echo $cpu >/proc/irq/$i/smp_affinity && n=$((n + 1))
		done
	done 2>/dev/null
	echo $n >/tmp/moves
	sleep 0.1
done
JOB
guest v0 'mkdir -p /run; httpd -p 80 -h /www; setsid load >/dev/null 2>&1 & setsid sh /share/move >/dev/null 2>&1 & sleep 1; echo begun' >"$T/out"
also load-begins begun
guest v0 'dd if=/dev/hwrng bs=256 count=2 2>/dev/null | wc -c; cat /sys/class/misc/hw_random/rng_current' >"$T/out"
also random-numbers '^512$'
also random-numbers-are-virtio '^virtio_rng'
expect ping 0 ' 0% packet loss' "$CTL" exec v0 -- ping -c 3 -W 10 192.0.2.1
same card "$sum" "$(curl -sS -m 60 http://192.0.2.2/data | md5sum | cut -d' ' -f1)"
guest v0 'cat /share/in && echo from-the-guest >/share/out' >"$T/out"
also share '^from-the-host$'
same share-back from-the-guest "$(cat "$T/share/out" 2>&1)"
# balloon_to NAME MIB -gt|-lt: the guest has so much memory soon; it comes from there
balloon_to() {
	"$CTL" balloon v0 "$2M" >"$T/out" 2>&1
	for _ in $(seq 100); do
		actual=$("$CTL" balloon v0 | member actual)
		[ "${actual:-0}" "$3" $(($2 << 20)) ] || break
		sleep 0.3
	done
	same "$1" $(($2 << 20)) "$actual"
}
balloon_to balloon 200 -gt
head -c 1000000 "$T/root/www/data" >"$T/million"
same stream "$(md5sum <"$T/million")" "$(timeout 60 "$CTL" exec -i v0 -- cat <"$T/million" 2>&1 | md5sum)"
for _ in 1 2; do
	shoot v0 'insula-blk vda'
	shoot v0 'insula-rng rng'
done
(sleep 0.5; shoot v0 'insula-net eth0') &
same card-killed "$sum" "$(curl -sS -m 60 http://192.0.2.2/data | md5sum | cut -d' ' -f1)"
wait $!
shoot v0 'insula-vsock vsock'
shoot v0 'insula-balloon balloon'
shoot v0 insula-console
expect random-numbers-again 0 '^512$' "$CTL" exec v0 -- sh -c 'dd if=/dev/hwrng bs=256 count=2 2>/dev/null | wc -c'
balloon_to balloon-again 256 -lt
guest v0 'touch /tmp/enough; for i in $(seq 60); do [ -e /tmp/result ] && break; sleep 1; done; cat /tmp/result /tmp/fio.out; echo moves $(cat /tmp/moves)' >"$T/out"
also disk-is-right '^right [1-9][0-9]*'
also vectors-were-moved '^moves [0-9]{2,}$'
# Drivers that go and come back; a function that is taken away and found again: its BAR is sized and put somewhere.
cat >"$T/share/again" <<'JOB'
mount -t sysfs sys /sys 2>/dev/null
cd /sys/bus/pci
rng=$(grep -l 0x1044 devices/*/device | cut -d/ -f2)
for i in 1 2 3; do
	echo $rng >drivers/virtio-pci/unbind && echo $rng >drivers/virtio-pci/bind || echo "cannot: $i"
done
echo rng $(dd if=/dev/hwrng bs=64 count=2 2>/dev/null | wc -c)
at=$(readlink -f /sys/block/vda/device/..)
before=$(head -c 1000000 /dev/vda | md5sum)
for i in 1 2; do
	echo 1 >$at/remove
	[ ! -e $at ] || echo "still there: $i"
	echo 1 >rescan
	for k in $(seq 50); do ls $at/virtio*/block >/dev/null 2>&1 && break; sleep 0.1; done
done
disk=$(ls $at/virtio*/block)
[ "$(head -c 1000000 /dev/$disk | md5sum)" = "$before" ] && echo the same
JOB
guest v0 'sh /share/again' >"$T/out"
also rebound '^rng 128$'
also found-again '^the same$'
same without-a-complaint '' "$(grep -E 'cannot|still there' "$T/out")"
"$CTL" metrics v0 >"$T/m"
python3 - "$T/m" >"$T/said" 2>&1 <<'PY'
import json, sys
d = {x["name"]: x for x in json.load(open(sys.argv[1]))["devices"]}
print("restarts", d["vda"]["restarts"], d["eth0"]["restarts"], d["vsock"]["restarts"])
print("errors", d["vda"]["helper"]["errors"])
PY
same restarts 'restarts 2 1 1 errors 0' "$(xargs <"$T/said")"
guest v0 'dmesg' >"$T/out"
quiet_dmesg dmesg-is-quiet-under-kills
nothing_locked_up
expect stops 0 '' "$CTL" stop -t 20 v0
"$CTL" rm -f v0 >/dev/null 2>&1

# ---- saved and restored, with the disk under load; cloned

expect source-starts 0 '' "$CTL" run -d --name s0 --bus pci --cpus 2 --mem 256M --rootfs "$T/root" --disk "$T/disk.img" \
	--net tap=tap0,mac=52:54:00:00:09:01,ip=192.0.2.2/24 --
guest s0 'echo mark-77 >/tmp/mark; httpd -p 80 -h /www; setsid load >/dev/null 2>&1 & sleep 1; echo begun' >"$T/out"
also source-begins begun
vectors() { guest "$1" 'cat /proc/interrupts' | grep -oE 'PCI-MSI.*virtio[0-9]+-.*' | sort; }
vectors s0 >"$T/vectors"
expect saved 0 '' timeout 120 "$CTL" snapshot --stop s0 "$T/snap"
"$CTL" rm -f s0 >/dev/null 2>&1
expect restored 0 '' timeout 120 "$CTL" run -d --name s1 --restore "$T/snap" --
expect restored-is-it 0 '^mark-77$' "$CTL" exec s1 -- cat /tmp/mark
same restored-card "$sum" "$(curl -sS -m 60 http://192.0.2.2/data | md5sum | cut -d' ' -f1)"
guest s1 'touch /tmp/enough; for i in $(seq 60); do [ -e /tmp/result ] && break; sleep 1; done; cat /tmp/result /tmp/fio.out' >"$T/out"
also restored-disk-is-right '^right [1-9][0-9]*'
vectors s1 >"$T/out"
same restored-vectors "$(cat "$T/vectors")" "$(cat "$T/out")"
guest s1 'dmesg' >"$T/out"
quiet_dmesg restored-dmesg-is-quiet
nothing_locked_up
"$CTL" rm -f s1 >/dev/null 2>&1
expect template-starts 0 '' "$CTL" run -d --name t0 --bus pci --mem 128M --rootfs "$T/root" --
guest t0 'echo mark-88 >/tmp/mark' >"$T/out"
timeout 120 "$CTL" rpc vm.clone '{"id": "t0", "name": "c", "count": 2, "place": "'"$T"'"}' >"$T/out" 2>&1
also cloned '"running"'
for i in t0 c-1 c-2; do
	guest $i 'cat /tmp/mark; head -c 300000 /www/data | wc -c' >"$T/who.$i"
done
same clones 'mark-88 300000 mark-88 300000 mark-88 300000' "$(cat "$T/who.t0" "$T/who.c-1" "$T/who.c-2" | xargs)"
"$CTL" rm -f t0 c-1 c-2 >/dev/null 2>&1

# ---- as many as there can be; both buses

disks=()
for i in $(seq 29); do
	truncate -s $((i * 65536)) "$T/d$i"
	disks+=(--disk "path=$T/d$i,ro")
done
# 29, random numbers, streams. Nobody's sizes are mixed up.
expect thirty-one 0 "^31 29 $((29 * 30 / 2 * 128)) in-order\$" "$RUN" --bus pci "${disks[@]}" -- sh -c 'o=in-order
	n=0; sum=0; for d in /sys/block/vd?/size /sys/block/vd??/size; do [ -e $d ] || continue; n=$((n + 1)); s=$(cat $d); sum=$((sum + s)); [ $s = $((n * 128)) ] || o=mixed; done
	for d in /dev/vd*; do dd if=$d of=/dev/null bs=64k 2>/dev/null || o=unread; done
	echo $(grep -l 0x1af4 /sys/bus/pci/devices/*/vendor | wc -l) $n $sum $o'
echo 'echo pci $(grep -l 0x1af4 /sys/bus/pci/devices/*/vendor | wc -l) virtio $(ls /sys/bus/virtio/devices | wc -l) $(cat /sys/class/tty/console/active); for d in vda vdb; do
	readlink -f /sys/block/$d; dd if=/dev/zero of=/dev/$d bs=64k count=32 conv=fsync && echo $d-written; done; cat /proc/interrupts; exit' | tr '\n' ' ' >"$T/in"
echo >>"$T/in"
truncate -s 4M "$T/a" "$T/b"
IN=$T/in expect both-buses 0 '^pci 1 virtio 4 hvc0' "$RUN" --console virtio --disk "path=$T/a,bus=pci" --disk "path=$T/b"
tr -d '\r' <"$T/out" >"$T/both"
mv "$T/both" "$T/out"
also one-disk-on-pci '/pci0000:00/.*/block/vd[ab]$'
also the-other-on-mmio '/(LNRO0005|virtio-mmio).*/block/vd[ab]$'
same both-are-written 2 "$(grep -c '^vd[ab]-written' "$T/out")"
also vectors-of-pci 'PCI-MSI.*virtio'
also pins-of-mmio 'IO-APIC.*virtio'
