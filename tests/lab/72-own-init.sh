#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# vm.stop with a root whose own init is PID 1: it is asked first, it has its time, and no disk is left dirty whatever it does.
. "$(dirname "$0")/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
insulad_up '"cgroup": "off"'

# image DIR SIZE: of a root, writable
image() { rm -f "$T/image" && mke2fs -q -F -t ext4 -d "$1" "$T/image" "$2" >/dev/null 2>&1; }
# up MEM: boot it, until it has left its mark
up() {
	"$CTL" create --name v --mem "$1" --rootfs "$T/image,rw" >"$T/out" 2>&1 && "$CTL" start v >"$T/out" 2>&1
	timeout 120 "$CTL" exec v -- sh -c 'until grep -q start /marks; do sleep 0.2; done; echo unsynced >/kept' >"$T/out" 2>&1
}
# down SECONDS: stop it; how it ended, and how long that took in TOOK
down() {
	local start
	start=$(now_ms)
	"$CTL" stop -t "$1" v >"$T/out" 2>&1
	TOOK=$(($(now_ms) - start))
	"$CTL" logs v >"$T/vmlog"
	"$CTL" rm v >/dev/null
	echo "$(member reason <"$T/out") $(member stop <"$T/out")"
}
marks() { debugfs -R 'cat /marks' "$T/image" 2>/dev/null | tr '\n' ' '; }
# left NAME: what was written is there, and nothing needs to be repaired
left() {
	same "$1-data" unsynced "$(debugfs -R 'cat /kept' "$T/image" 2>/dev/null)"
	expect "$1-clean" 0 '' e2fsck -fn "$T/image"
}

# ---- busybox: it runs what its inittab has for the end

make_root "$T/root"
for a in init grep sleep umount mount; do ln -sf busybox "$T/root/bin/$a"; done
ln -sf ../bin/busybox "$T/root/sbin/init"
cat >"$T/root/etc/inittab" <<'INITTAB'
::sysinit:/bin/sh -c 'echo start >/marks'
::shutdown:/bin/sh -c 'sleep 1; echo stop >>/marks; umount -a -r'
INITTAB
image "$T/root" 32M
up 128M
down 60 >"$T/how"
same busybox-ends-by-itself 'poweroff clean' "$(cat "$T/how")"
same busybox-was-asked 'start stop ' "$(marks)"
left busybox

# ---- an init that does not listen: insula-init does it when the time of the init is over, three quarters of the deadline

rm "$T/root/sbin/init"
cat >"$T/root/sbin/init" <<'INIT'
#!/bin/sh
trap 'echo asked >>/marks; sync' USR2
echo start >/marks
while :; do sleep 1; done
INIT
chmod 755 "$T/root/sbin/init"
image "$T/root" 32M
up 128M
down 16 >"$T/how"
same deaf-init 'poweroff clean' "$(cat "$T/how")"
same deaf-init-was-asked 'start asked ' "$(marks)"
if [ $TOOK -ge 11000 ] && [ $TOOK -lt 16000 ]; then ok deaf-init-had-its-time; else not_ok deaf-init-had-its-time "$TOOK ms"; fi
left deaf-init

# ---- an init that nobody can ask: nobody waits

rm "$T/root/bin/poweroff"
image "$T/root" 32M
up 128M
down 60 >"$T/how"
same no-poweroff 'poweroff clean' "$(cat "$T/how")"
if [ $TOOK -lt 15000 ]; then ok no-poweroff-no-wait; else not_ok no-poweroff-no-wait "$TOOK ms"; fi
left no-poweroff

# ---- a shell is PID 1, because the root has no init: it is not asked, which would be to no end

rm "$T/root/sbin/init"
printf '#!/bin/sh\necho asked >>/marks\n' >"$T/root/bin/poweroff"
chmod 755 "$T/root/bin/poweroff"
echo start >"$T/root/marks"
image "$T/root" 32M
up 128M
down 60 >"$T/how"
same shell 'poweroff clean' "$(cat "$T/how")"
same shell-was-not-asked 'start ' "$(marks)"
left shell

# ---- systemd, this machine's: its units are stopped

if [ -x /lib/systemd/systemd ] && [ -L /bin ]; then
	R=$T/systemd
	mkdir -p "$R"/{dev,proc,sys,run,tmp,root,var/log,etc/systemd/system,usr/bin,usr/sbin,usr/lib,usr/lib64}
	for d in bin sbin lib lib64; do ln -s usr/$d "$R/$d"; done
	cp -a /usr/lib/systemd "$R/usr/lib/"
	for p in systemctl journalctl sh dash cat sleep grep sync mount umount true; do
		[ ! -e /usr/bin/$p ] || cp -a "/usr/bin/$p" "$R/usr/bin/"
	done
	ln -s ../lib/systemd/systemd "$R/usr/sbin/init"
	ln -s ../bin/systemctl "$R/usr/sbin/poweroff"
	find "$R/usr/bin" "$R/usr/lib/systemd" -type f -perm -100 -exec ldd {} + 2>/dev/null | grep -o '/[^ )]*' | grep -v ':$' | sort -u | while read -r lib; do
		mkdir -p "$R${lib%/*}"
		cp -L "$lib" "$R$lib"
	done
	printf 'root:x:0:0::/root:/bin/sh\n' >"$R/etc/passwd"
	printf 'root:x:0:\n' >"$R/etc/group"
	printf '%032x\n' 42 >"$R/etc/machine-id"
	printf 'ID=test\n' >"$R/etc/os-release"
	cat >"$R/etc/systemd/system/mark.service" <<'UNIT'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo start >/marks'
ExecStop=/bin/sh -c 'sleep 1; echo stop >>/marks'
UNIT
	printf '[Unit]\nRequires=basic.target mark.service\nAfter=basic.target mark.service\nAllowIsolate=yes\n' >"$R/etc/systemd/system/default.target"
	image "$R" 128M
	up 256M
	expect systemd-is-pid-1 0 '^systemd$' "$CTL" exec v -- cat /proc/1/comm
	down 100 >"$T/how"
	same systemd-ends-by-itself 'poweroff clean' "$(cat "$T/how")"
	same systemd-stops-its-units 'start stop ' "$(marks)"
	left systemd
else
	skip systemd "this machine has no systemd to boot"
fi
insulad_down
same insulad-ends 0 $?
