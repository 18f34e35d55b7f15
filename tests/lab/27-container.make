# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
# The containers of 27-container.sh: fills $S, which the guest has at $C.
rec() { printf '%s\0' "${@:2}" >"$S/$1"; }
# container ID COMMAND RECORD...: one of the usual kind; COMMAND is for its shell
container() {
	mkdir -p "$S/$1"
	rec "$1/config" version=1 "id=$1" "rootfs=$C/${ROOT:-image}" ns=mount ns=pid ns=uts ns=ipc ns=cgroup arg=sh arg=-c "arg=$2" env=PATH=/bin \
		mount=/proc mount.type=proc mount.flags=14 mount=/dev mount.type=tmpfs mount.flags=2 mount.data=mode=755 \
		mount=/dev/pts mount.type=devpts mount.flags=10 mount.data=newinstance,ptmxmode=0666,mode=0620,gid=5 \
		mount=/sys mount.type=sysfs mount.flags=15 mount=/sys/fs/cgroup mount.type=cgroup mount.flags=15 \
		cap.bounding=a80425fb cap.effective=a80425fb cap.permitted=a80425fb hostname="$1" "${@:3}"
}
mkdir -p "$S/vol"
echo there >"$S/vol/file"
make_root "$S/image"
for a in $("$BUILD/libexec/insula/busybox" --list); do [ -e "$S/image/bin/$a" ] || ln -s busybox "$S/image/bin/$a"; done
cp "$BUILD/tests/below" "$S/image/bin/below"
cp -a "$S/image" "$S/secret-root"
cp -a "$S/image" "$S/user-root"
chown -R 100000:100000 "$S/user-root"
all=(cap.bounding=1ffffffffff cap.effective=1ffffffffff cap.permitted=1ffffffffff)

container plain 'echo "pid $$ on $(hostname)"; cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max; echo err >&2; exit 42' cgroup=memory.max=33554432
container live 'cat /vol/file; echo back >/vol/new; echo x >/in-root; test -c /dev/null || exit 1; exit 42' mount=/vol mount.type=bind "mount.source=$C/vol" mount.flags=4096
container memory 'dd if=/dev/zero of=/dev/null bs=64M count=1; exit 3' cgroup=memory.max=16777216
container eater 'exec dd if=/dev/zero of=/dev/null bs=64M count=1' cgroup=memory.max=16777216
container pids 'i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done; echo all' cgroup=pids.max=6
container cpu 'end=$(($(date +%s)+2)); while [ $(date +%s) -lt $end ]; do :; done' 'cgroup=cpu.max=10000 100000'
container devices 'mknod /tmp/kmsg c 1 11; mknod /tmp/mem c 1 1; head -c 1 /tmp/kmsg >/dev/null && echo kmsg; head -c 1 /tmp/mem; head -c 1 /dev/urandom | wc -c' \
	'devrule=deny a -1 -1 rwm' 'devrule=allow c 1 11 r' "${all[@]}"
printf '\x20\0\0\0\0\0\0\0\x15\0\0\1\x53\0\0\0\x06\0\0\0\x01\0\x05\0\x06\0\0\0\0\0\xff\x7f' >"$T/filter" # mkdir(2): EPERM
for nnp in 0 1; do
	container seccomp$nnp 'grep Seccomp: /proc/self/status; mkdir /tmp/x' seccomp=seccomp nnp=$nnp
	cp "$T/filter" "$S/seccomp$nnp/seccomp"
done
ROOT=user-root container user 'id -u; cat /proc/self/uid_map; echo "files $(ulimit -n) $(ulimit -Hn)"; (: >/vol/x) 2>&1; test -c /dev/null && echo null; ls /sys/class/net; mkdir /sys/fs/cgroup/x 2>&1' \
	ns=user 'uidmap=0 100000 65536' 'gidmap=0 100000 65536' mount=/vol mount.type=bind "mount.source=$C/vol" mount.flags=4096 'rlimit=7 1000000 1000001' ns=uts
sed -i 's/ns=uts\x00$//' "$S/user/config"
ROOT=secret-root container secret 'echo top secret >/secret; while :; do sleep 1; done'
# Everything that a container can have, and what its root can do with it.
container privileged 'mkdir /t; for d in / /proc/1/root /proc/self/root; do find $d -xdev -name secret; ls $d/run/insula $d/insula; done 2>/dev/null
	cut -d" " -f5 /proc/self/mountinfo; i=0; mkdir /j; chroot /j /bin/true; while [ $i -lt 20 ]; do cd ..; i=$((i+1)); done; ls -d insula run/insula
	below' 'devrule=allow a -1 -1 rwm' "${all[@]}"
container long 'while :; do echo tick; sleep 0.2; done' cgroup=memory.max=33554432
container pod1 'echo one | nc -l -p 8080; while :; do sleep 1; done'
container pod2 'ls /proc | grep -c "^[0-9]"; sleep 1; nc 127.0.0.1 8080 </dev/null; hostname; kill -9 $$'
sed -i 's/ns=pid\x00/ns=pid:pod1\x00/; s/ns=ipc\x00/ns=ipc:pod1\x00/' "$S/pod2/config"
container net 'ip addr; ip route; ip -6 route; cat /proc/net/arp; ping -c 1 -W 5 198.51.100.1 >/dev/null && echo pinged; ping -c 1 -W 5 fd00:27::1 >/dev/null && echo pinged6'
rec long/exec-1 version=1 arg=sh arg=-c 'arg=hostname; cat /proc/self/cgroup; grep -E "Cap(Eff|Amb)" /proc/self/status; exit 9' env=PATH=/bin cap.bounding=3 cap.permitted=3 cap.effective=3 cap.inheritable=1 cap.ambient=3
rec long/update version=1 cgroup=memory.max=67108864
rec sandbox version=1 hostname=machine sysctl=net.ipv4.ip_unprivileged_port_start=80 nic=02:00:00:00:00:77 nic.name=pod0 nic.mtu=1400 nic.addr=198.51.100.2/32 \
	nic.addr=fd00:27::2/64 route=198.51.100.1/32 route.dev=pod0 route.scope=link route=default route.via=198.51.100.1 route.dev=pod0 route.metric=7 \
	route=default route.via=fd00:27::1 route.dev=pod0 neigh=198.51.100.99 neigh.dev=pod0 neigh.mac=02:00:00:00:00:99

