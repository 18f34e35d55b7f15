#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Devices that come and go while a Debian kernel runs: a disk under fio --verify, its process killed meanwhile, given up in order and pulled out;
# a card, a share; several at once; the guest switches a slot off itself; insulad is killed; a snapshot with empty slots;
# a disk that comes while the guest boots.
#
# HOTPLUG_LOOPS (1): rounds of adding a disk, writing to it and asking for it back, which takes the guest five seconds and more each;
# HOTPLUG_PULLS (2): the same, pulled out.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
host_tap
make_root "$T/root"
root_program "$T/root" fio
mkdir -p "$T/root/mnt" "$T/share"
for a in basename cut dmesg find head ip kill ls md5sum mkdir mount ping ps readlink seq setsid sleep sort tail tr umount wc; do
	ln -sf busybox "$T/root/bin/$a"
done
echo from-the-host >"$T/share/in"
for i in 1 2 3 4; do truncate -s 16M "$T/d$i.img"; done
cat >"$T/root/bin/no_disk" <<'JOB'
#!/bin/sh
for i in $(seq 150); do
	grep -qsx "$1" /sys/block/vd*/serial || { echo gone; exit 0; }
	sleep 0.1
done
echo still there; exit 1
JOB
fio_loads "$T/root"
chmod 755 "$T/root/bin/no_disk"

# of_devices VM: their names in slots
in_slots() { "$CTL" device ls "$1" | python3 -c 'import json, sys
print(*[d["device"] for d in json.load(sys.stdin)["devices"] if d["removable"]])' 2>&1; }
unlocked() { flock -n "$1" true && echo unlocked || echo locked; }

insulad_up '"cgroup": "off"'
expect starts 0 '' "$CTL" run -d --name h0 --hotplug 4 --cpus 2 --mem 256M --rootfs "$T/root" --
sup=$("$CTL" info h0 | member pid)
guest h0 'mount -t sysfs sys /sys 2>/dev/null; echo $(ls /sys/bus/pci/slots); dmesg' >"$T/out"
also slots '^1 2 3 4$'
also ports 'pciehp: Slot #4 AttnBtn\+ PwrCtrl\+'
same native 0 "$(grep -ciE 'acpiphp: Slot|ACPI.*(Error|BIOS bug)|firmware bug' "$T/out")"
fds=$(ls "/proc/$sup/fd" | wc -l)
before=$(ps -o comm= --ppid "$sup" | sort | tr '\n' ' ')

# ---- a disk, in order

expect add 0 '"disk1"' "$CTL" device add h0 disk="$T/d1.img"
same found vdb "$(guest h0 'find_disk disk1')"
guest h0 'readlink -f /sys/block/vdb; cat /sys/bus/pci/slots/1/address; cat /sys/bus/pci/slots/1/power /sys/bus/pci/slots/1/adapter' >"$T/out"
also behind-its-port '/pci0000:00/0000:00:1c\.0/0000:01:00\.0/virtio[0-9]+/block/vdb$'
guest h0 'grep virtio /proc/interrupts' >"$T/out"
also has-vectors 'PCI-MSI.*virtio[0-9]+-req\.1$'
same is-locked locked "$(unlocked "$T/d1.img")"
guest h0 'setsid load disk1 >/dev/null 2>&1 & sleep 2' >/dev/null
shoot h0 'insula-blk disk1'
sleep 1
shoot h0 'insula-blk disk1'
guest h0 'enough disk1; cat /tmp/fio.disk1' >"$T/out"
also under-kills-it-is-right '^right [1-9]'
guest h0 'seq 100000 | head -c 500000 >/dev/vdb && sync && head -c 500000 /dev/vdb | md5sum' >"$T/out"
sum=$(cut -d' ' -f1 "$T/out")
start=$(now_ms)
expect rm 0 '' "$CTL" device rm h0 disk1
took=$(($(now_ms) - start))
holds=no
[ $took -ge 4000 ] && [ $took -lt 30000 ] && holds=yes
same linux-waits-its-five-seconds yes $holds
same has-gone gone "$(guest h0 'no_disk disk1')"
same is-unlocked unlocked "$(unlocked "$T/d1.img")"
same is-written "$sum" "$(head -c 500000 "$T/d1.img" | md5sum | cut -d' ' -f1)"
no_oops h0 quiet-after-a-disk

# ---- pulled out; the next one comes into the same slot

for i in $(seq "${HOTPLUG_PULLS:-2}"); do
	"$CTL" device add --name pulled h0 disk="$T/d2.img" >/dev/null 2>"$T/out" || not_ok "pull $i" "$(cat "$T/out")"
	guest h0 'd=$(find_disk pulled); echo $d; dd if=/dev/zero of=/dev/$d bs=64k count=20 conv=fsync 2>&1' >"$T/out"
	also "pull-$i-comes" '^vdb$'
	also "pull-$i-works" '^20\+0 records out'
	expect "pull-$i" 0 '' "$CTL" device rm --force h0 pulled
	same "pull-$i-gone" gone "$(guest h0 'no_disk pulled')"
	same "pull-$i-unlocked" unlocked "$(unlocked "$T/d2.img")"
done
no_oops h0 quiet-after-pulls

# ---- the next one comes while Linux still switches the slot off: it finds it, and keeps it (five seconds after a press of the button it would not)

"$CTL" device add --name last h0 disk="$T/d2.img" >/dev/null 2>"$T/out" || not_ok 'last' "$(cat "$T/out")"
for way in --force ''; do
	guest h0 'find_disk last' >"$T/out"
	also "next${way:- asked}-before" '^vd[bc]$'
	expect "next${way:- asked}" 0 '' "$CTL" device rm $way h0 last
	"$CTL" device add --name last h0 disk="$T/d2.img" >/dev/null 2>"$T/out" || not_ok "next$way" "$(cat "$T/out")"
	guest h0 'find_disk last; sleep 7; grep -qsx last /sys/block/vd*/serial && echo stays' >"$T/out"
	also "next${way:- asked}-comes" '^vd[bc]$'
	also "next${way:- asked}-stays" "^stays$"
done
expect next-gone 0 '' "$CTL" device rm h0 last
no_oops h0 quiet-after-next

# ---- a card, a share

expect add-card 0 '"net1"' "$CTL" device add h0 net=tap=tap0,mac=52:54:00:00:09:02
guest h0 'for i in $(seq 100); do [ -e /sys/class/net/eth0 ] && break; sleep 0.1; done; cat /sys/class/net/eth0/address; ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up' >"$T/out"
also card 52:54:00:00:09:02
expect ping 0 ' 0% packet loss' "$CTL" exec h0 -- ping -c 3 -W 10 192.0.2.1
shoot h0 'insula-net net1'
expect ping-again 0 ' 0% packet loss' "$CTL" exec h0 -- ping -c 3 -W 10 192.0.2.1
expect add-share 0 '"share2"' "$CTL" device add h0 share="$T/share:/x"
guest h0 'for i in $(seq 100); do mount -t virtiofs share2 /mnt 2>/dev/null && break; sleep 0.1; done; cat /mnt/in; echo from-the-guest >/mnt/out' >"$T/out"
also share from-the-host
same share-back from-the-guest "$(cat "$T/share/out" 2>&1)"
shoot h0 'insula-vhost share2'
# Its virtiofsd has ended with it, and the next one knows nothing of this mount. insula-init mounts again what it has mounted; this one is ours.
guest h0 'cd /sys/bus/virtio/drivers/virtiofs
for i in $(seq 100); do
	umount -l /mnt 2>/dev/null
	for d in virtio*; do echo $d >unbind; echo $d >bind; done 2>/dev/null
	mount -t virtiofs share2 /mnt 2>/dev/null && cat /mnt/in 2>/dev/null && break
	sleep 0.1
done' >"$T/out"
also share-again '^from-the-host$'
kill -9 "$insulad"
wait "$insulad" 2>/dev/null
insulad_up '"cgroup": "off"'
same still-there 'net1 share2' "$(in_slots h0)"
guest h0 'umount /mnt; ip link set eth0 down' >/dev/null
expect rm-both 0 '' "$CTL" device rm h0 net1 share2
same card-gone '' "$(guest h0 'ls -d /sys/class/net/eth0 2>/dev/null')"
no_oops h0 quiet-after-card-and-share

# ---- a console, whose end is a terminal of the host

expect add-console 0 '"tty":"/dev/pts/[0-9]+"' "$CTL" device add --name talk h0 console=pty
tty=$("$CTL" device ls h0 | python3 -c 'import json, sys
print(*[d["tty"] for d in json.load(sys.stdin)["devices"] if d["device"] == "talk"])')
exec {tty}<>"$tty"
# talk WORD: the guest reads it there, and answers
talk() {
	guest h0 'for i in $(seq 100); do : </dev/hvc0 && break; sleep 0.1; done 2>/dev/null
rm -f /tmp/reads
setsid sh -c "touch /tmp/reads; read -r w; echo heard \$w" </dev/hvc0 >/dev/hvc0 2>&1 &
for i in $(seq 100); do [ -e /tmp/reads ] && break; sleep 0.1; done' >"$T/out"
	echo "$1" >&$tty
	timeout 30 grep -m 1 -o "heard $1" <&$tty
}
same console 'heard first' "$(talk first)"
shoot h0 'insula-console talk'
same console-again 'heard second' "$(talk second)"
expect rm-console 0 '' "$CTL" device rm h0 talk
exec {tty}>&-
same console-gone '' "$(guest h0 'ls -d /sys/bus/virtio/drivers/virtio_console/virtio* 2>/dev/null')"
expect add-log 0 '' "$CTL" device add --name log h0 console="file=$T/console"
guest h0 'for i in $(seq 100); do echo written >/dev/hvc0 && break; sleep 0.1; done 2>/dev/null' >"$T/out"
expect rm-log 0 '' "$CTL" device rm h0 log
same console-file written "$(tr -d '\r' <"$T/console")"
expect one-vsock 2 'vsock: this VM has vsock; expected one without a vsock device' "$CTL" device add h0 vsock="$T/v"
no_oops h0 quiet-after-consoles

# ---- several at once; the guest's own switch

pids=()
for i in 1 2 3 4; do
	"$CTL" device add --name "at$i" h0 disk="$T/d$i.img" >/dev/null 2>"$T/at$i" &
	pids+=($!)
done
wait "${pids[@]}"
same at-once 'at1 at2 at3 at4' "$(in_slots h0 | tr ' ' '\n' | sort | xargs)"
same at-once-found 4 "$(guest h0 'for i in 1 2 3 4; do find_disk at$i; done' | grep -c '^vd[b-e]$')"
expect no-more 1 'all slots are in use, by at[1-4]' "$CTL" device add h0 disk="$T/d1.img"
slot=$("$CTL" device ls h0 | python3 -c 'import json, sys
print([d["slot"] for d in json.load(sys.stdin)["devices"] if d["device"] == "at1"][0])')
guest h0 "echo 0 >/sys/bus/pci/slots/$slot/power; no_disk at1" >"$T/out"
also switched-off '^gone$'
same stays-in-its-slot 'at1 at2 at3 at4' "$(in_slots h0 | tr ' ' '\n' | sort | xargs)"
guest h0 "echo 1 >/sys/bus/pci/slots/$slot/power; find_disk at1" >"$T/out"
also switched-on '^vd[b-e]$'
guest h0 "echo 0 >/sys/bus/pci/slots/$slot/power; no_disk at1" >"$T/out"
expect rm-without-power 0 '' "$CTL" device rm h0 at1
pids=()
for i in 2 3 4; do
	"$CTL" device rm h0 "at$i" >/dev/null 2>"$T/at$i" &
	pids+=($!)
done
wait "${pids[@]}"
same all-at-once-gone '' "$(in_slots h0)"
same none-in-the-guest 'vda' "$(guest h0 'for i in 2 3 4; do no_disk at$i >/dev/null; done; cd /sys/block; echo vd*')"
no_oops h0 quiet-after-several

# ---- over and over

bad=''
for i in $(seq "${HOTPLUG_LOOPS:-1}"); do
	"$CTL" device add --name loop h0 disk="$T/d3.img" >/dev/null 2>"$T/out" || { bad="$i add: $(cat "$T/out")"; break; }
	said=$(guest h0 "d=\$(find_disk loop) && echo round-$i >/dev/\$d && sync && echo written || dmesg | tail -n 20")
	[ "$said" = written ] || { bad="$i: $said"; break; }
	"$CTL" device rm h0 loop >/dev/null 2>"$T/out" || { bad="$i rm: $(cat "$T/out")"; break; }
	[ "$(head -c 100 "$T/d3.img" | tr -d '\0' | head -n 1)" = "round-$i" ] || { bad="$i: it is not written"; break; }
	guest h0 'no_disk loop' >/dev/null
done
same loops '' "$bad"
same nothing-left "$before" "$(ps -o comm= --ppid "$sup" | sort | tr '\n' ' ')"
same no-descriptors-left "$fds" "$(ls "/proc/$sup/fd" | wc -l)"
guest h0 'ls -d /sys/bus/pci/devices/0000:0[1-4]* 2>/dev/null | wc -l; ls /sys/bus/pci/slots | wc -l; cat /sys/bus/pci/slots/*/adapter | sort | uniq -c' >"$T/out"
same nothing-left-in-the-guest '0 4' "$(head -n 2 "$T/out" | xargs)"

# ---- a snapshot with empty slots

expect saved 0 '' timeout 120 "$CTL" snapshot --stop h0 "$T/snap"
"$CTL" rm -f h0 >/dev/null 2>&1
expect restored 0 '' timeout 120 "$CTL" run -d --name h0 --restore "$T/snap" --
expect add-after-restore 0 '"disk1"' "$CTL" device add h0 disk="$T/d4.img"
guest h0 'd=$(find_disk disk1); echo $d; dd if=/dev/zero of=/dev/$d bs=64k count=16 conv=fsync 2>&1' >"$T/out"
also found-after-restore '^vd[b-e]$'
expect rm-after-restore 0 '' "$CTL" device rm h0 disk1
no_oops h0 quiet-after-restore
expect stops 0 '' "$CTL" stop -t 20 h0
"$CTL" rm -f h0 >/dev/null 2>&1

# ---- a disk comes while Linux boots: before it has looked at the bus, before its driver for slots has started, before there is init

for late in 0 0.3 0.5 0.7 1; do
	expect "starts-for-$late" 0 '' "$CTL" run -d --name h0 --hotplug 1 --cpus 2 --mem 256M --rootfs "$T/root" --
	sleep $late
	expect "boots-for-$late" 0 '"early"' "$CTL" device add --name early h0 disk="$T/d1.img"
	same "boots-for-$late-comes" vdb "$(guest h0 'find_disk early')"
	expect "boots-for-$late-pulled" 0 '' "$CTL" device rm --force h0 early
	same "boots-for-$late-gone" gone "$(guest h0 'no_disk early')"
	"$CTL" device add --name next h0 disk="$T/d2.img" >/dev/null 2>"$T/out" || not_ok "boots-for-$late-next" "$(cat "$T/out")"
	guest h0 'find_disk next' >"$T/out"
	also "boots-for-$late-next" '^vd[bc]$'
	[ $late != 0 ] || expect "boots-for-$late-asked" 0 '' "$CTL" device rm h0 next
	no_oops h0 "boots-for-$late-quiet"
	"$CTL" rm -f h0 >/dev/null 2>&1
done

# ---- pulled out under load
# What Linux's virtio_blk has under way then it waits for, also when the device is no more: a guest with 6.1 may get no other device after that.
# The VM goes on, and nothing of the disk is left here. The second one's process has just been killed.

for i in 1 2; do
	expect "starts-for-load-$i" 0 '' "$CTL" run -d --name h0 --hotplug 4 --cpus 2 --mem 256M --rootfs "$T/root" --
	"$CTL" device add --name "load$i" h0 disk="$T/d$i.img" >/dev/null 2>"$T/out" || not_ok "load-$i" "$(cat "$T/out")"
	guest h0 "find_disk load$i; setsid load load$i >/dev/null 2>&1 & sleep 1" >"$T/out"
	also "load-$i-comes" '^vd[bc]$'
	[ $i = 1 ] || shoot h0 "insula-blk load$i"
	expect "load-$i-pulled" 0 '' "$CTL" device rm --force h0 "load$i"
	same "load-$i-unlocked" unlocked "$(unlocked "$T/d$i.img")"
	same "load-$i-no-process" '' "$(process h0 "insula-blk load$i")"
	expect "load-$i-lives" 0 '^alive$' "$CTL" exec h0 -- echo alive
	no_oops h0 "load-$i-quiet"
	"$CTL" rm -f h0 >/dev/null 2>&1
done

# ---- a vsock device, for a guest that has none: an initrd of its own

make_root "$T/i"
cp "$BUILD/tests/vsockpeer" "$T/i/bin"
mkdir "$T/i/mod"
for a in insmod seq sleep; do ln -sf busybox "$T/i/bin/$a"; done
n=0
for m in $(for m in virtio_pci vmw_vsock_virtio_transport; do
	modprobe -d "$BUILD/guest" -S "$(basename "$BUILD"/guest/lib/modules/*)" -D $m | grep -o '/[^ ]*\.ko[^ ]*'
done); do
	cp "$m" "$T/i/mod/$((n += 1)).ko"
done
cat >"$T/i/init" <<'INIT'
#!/bin/sh
export PATH=/bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for i in $(seq 40); do [ -e /mod/$i.ko ] && insmod /mod/$i.ko; done
echo listens
vsockpeer echo vsock:4294967295:52
INIT
chmod 755 "$T/i/init"
(cd "$T/i" && find . | cpio -o -H newc 2>/dev/null) >"$T/initrd"
expect starts-own-initrd 0 '' "$CTL" run -d --name h0 --hotplug 2 --mem 128M --kernel "$(echo "$BUILD"/guest/boot/vmlinuz-*)" --initrd "$T/initrd" --
for _ in $(seq 300); do "$CTL" logs h0 2>/dev/null | grep -q listens && break; sleep 0.2; done
# talk_to WORD: a client of the host, again and again until the guest answers
talk_to() {
	for _ in $(seq 100); do
		printf 'CONNECT 52\n%s\n' "$1" | timeout 5 socat -t 2 - "UNIX-CONNECT:$T/v" 2>/dev/null | grep "^$1$" && return
		sleep 0.2
	done
}
expect add-vsock 0 '"vsock1"' "$CTL" device add h0 vsock="path=$T/v,cid=7"
same vsock first "$(talk_to first)"
shoot h0 'insula-vsock vsock1'
same vsock-again second "$(talk_to second)"
expect second-vsock 2 'vsock: this VM has vsock1; expected one without a vsock device' "$CTL" device add h0 vsock="$T/w"
expect rm-vsock 0 '' "$CTL" device rm h0 vsock1
same vsock-socket-gone gone "$([ -e "$T/v" ] || echo gone)"
expect add-vsock-again 0 '"vsock1"' "$CTL" device add h0 vsock="path=$T/v,cid=8"
same vsock-third third "$(talk_to third)"
expect pull-vsock 0 '' "$CTL" device rm --force h0 vsock1
"$CTL" rm -f h0 >/dev/null 2>&1
