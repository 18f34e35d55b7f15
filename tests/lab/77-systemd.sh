#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The installed units under a real systemd: the sandbox leaves VMs what they need, the VMs outlive a restart and a kill -9 of insulad, the journal
# has the fields. systemd is PID 1 of a namespace here, with a /run, /var/lib and control groups of its own.
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
ROOT=/sys/fs/cgroup
[ -x /lib/systemd/systemd ] || { skip all "no systemd on this machine"; exit 0; }
stat -f -c %T "$ROOT" | grep -q cgroup2 || { skip all "$ROOT is not cgroup2"; exit 0; }
# Its first units would change the machine: clean /tmp, set sysctls. The lab's is thrown away.
[ -d /run/lab ] || { skip all "in the lab only"; exit 0; }
outer=
trap '[ -z "$outer" ] || { kill -9 "$outer"; wait "$outer" 2>/dev/null; }; rm -rf "$T"' EXIT

make -C "$(dirname "$0")/../.." -s install BUILD="$BUILD" DESTDIR= PREFIX="$T/usr" STRIP= >"$T/out" 2>&1 || { not_ok install "$(tail -n 1 "$T/out")"; exit 1; }
chmod 755 "$T" # other users execute what is in it
mkdir "$T/units"
cp "$T"/usr/lib/systemd/system/insulad.* "$T/units"
printf '[Unit]\nRequires=insulad.socket insulad.service\nAfter=insulad.socket insulad.service\n' >"$T/units/test.target"
if command -v systemd-analyze >/dev/null; then
	systemd-analyze verify --man=no "$T/units/insulad.service" "$T/units/insulad.socket" >"$T/out" 2>&1
	same=$?
	if [ $same = 0 ] && ! grep -q insulad "$T/out"; then ok units-verify; else not_ok units-verify "status $same"; fi
fi
for c in cpu memory pids io; do echo +$c >"$ROOT/cgroup.subtree_control" 2>/dev/null; done
mkdir "$ROOT/test-systemd"
cat >"$T/start" <<START
echo 0 >$ROOT/test-systemd/cgroup.procs
exec unshare --cgroup sh -c 'umount $ROOT; mount -t cgroup2 cgroup2 $ROOT; for d in /run /var/lib /var/cache; do mount -t tmpfs tmpfs \$d; done
	mkdir -p /run/systemd/system; cp $T/units/* /run/systemd/system/
	ln -s /dev/null /run/systemd/system/systemd-tmpfiles-setup.service; exec env -i container=lab PATH=\$PATH /lib/systemd/systemd --unit=test.target'
START
unshare --fork --pid --mount --mount-proc --kill-child sh "$T/start" >"$T/systemd.log" 2>&1 &
outer=$!
inner=
until [ -n "$inner" ]; do # the list has no line end
	sleep 0.05
	read -r inner _ <"/proc/$outer/task/$outer/children" || kill -0 $outer || exit 1
done
ENTER=(nsenter -t "$inner" -m -p -C) # where insulad is: "${ENTER[@]}" COMMAND...
main_pid() { "${ENTER[@]}" systemctl show -p MainPID --value insulad; }
reach() {
	for _ in $(seq 300); do
		! "${ENTER[@]}" "$CTL" info >"$T/out" 2>&1 || return 0
		sleep 0.2
	done
	"${ENTER[@]}" systemctl --no-pager status insulad >"$T/out" 2>&1
	not_ok reach "no answer"
	exit 1
}
active() {
	for _ in $(seq 100); do
		[ "$("${ENTER[@]}" systemctl is-active insulad)" != active ] || break
		sleep 0.2
	done
	same "$1" active "$("${ENTER[@]}" systemctl is-active insulad)"
}

reach
active type-notify
same has-groups True "$(member cgroup <"$T/out")"
mkdir "$T/shared"
echo content >"$T/shared/file"
"${ENTER[@]}" "$CTL" create --name l --mem 160M --kernel "$BUILD/guest/vmlinuz" --share "$T/shared:/s" --vsock path=/run/v.sock >"$T/out"
"${ENTER[@]}" "$CTL" start l >"$T/out" 2>&1
same linux-runs running "$(member state <"$T/out")"
expect linux-has-its-devices 0 '^content$' "${ENTER[@]}" "$CTL" exec l -- cat /s/file
same group-of-its-own "/insula/vm-$("${ENTER[@]}" "$CTL" info l | member id)" "$("${ENTER[@]}" sed -n 's/^0:://; s/-[0-9a-f]*$//p' "/proc/$("${ENTER[@]}" "$CTL" info l | member pid)/cgroup")"
"${ENTER[@]}" chmod 666 /run/insula/insulad.sock
for_user
expect another-user 42 'Hello from a payload' "${ENTER[@]}" setpriv --reuid 1000 --regid 1000 --groups "$(stat -c %g /dev/kvm)" --inh-caps=-all \
	"$CTL" run --rm --kernel "$BUILD/guests/hello.elf" --mem 16M

before=$(main_pid)
expect restart 0 '' "${ENTER[@]}" systemctl restart insulad
reach
active active-after-restart
if [ "$(main_pid)" != "$before" ]; then ok restart-is-another; else not_ok restart-is-another "$before"; fi
expect linux-runs-on 0 '^still there$' "${ENTER[@]}" "$CTL" exec l -- echo still there
expect new-vms-run 42 '' "${ENTER[@]}" "$CTL" run --rm --kernel "$BUILD/guests/hello.elf" --mem 16M
before=$(main_pid)
"${ENTER[@]}" kill -9 "$before"
for _ in $(seq 100); do [ "$(main_pid)" = "$before" ] || [ "$(main_pid)" = 0 ] || break; sleep 0.1; done
reach
active started-anew-after-kill
expect linux-outlives-that 0 '^still there$' "${ENTER[@]}" "$CTL" exec l -- echo still there
same reload '' "$("${ENTER[@]}" systemctl reload insulad 2>&1)"
"${ENTER[@]}" "$CTL" stop -t 60 l >"$T/out"
same stop-clean poweroff "$(member reason <"$T/out")"
same no-group-left '' "$(find "$ROOT/test-systemd" -name 'vm-*')"
expect journal-fields 0 '^ended: poweroff' "${ENTER[@]}" journalctl --no-pager -o cat "INSULA_NAME=l" _SYSTEMD_UNIT=insulad.service
expect stop-unit 0 '' "${ENTER[@]}" systemctl stop insulad.service
kill -9 "$outer"
wait "$outer" 2>/dev/null
outer=
for _ in $(seq 50); do rmdir "$ROOT"/test-systemd/{*/*/*/,*/*/,*/,} 2>/dev/null; [ -d "$ROOT/test-systemd" ] || break; sleep 0.1; done
same nothing-left '' "$(ls -d "$ROOT/test-systemd" 2>/dev/null)"
