#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What insula-oci does on the host, on a machine whose kernel is Debian's: a pod's network (cls_matchall), limits in control groups of version 2.
. "$(dirname "$0")/lib.sh"
bash "$(dirname "$0")/../oci-net" "$BUILD"
for t in test_oci_cgroup test_oci_share test_oci_forward; do
	if INSULA_TEST_ALL=1 CK_VERBOSITY=silent CK_TAP_LOG_FILE_NAME=$T/tap CK_DEFAULT_TIMEOUT=60 "$BUILD/tests/$t" >"$T/out" 2>&1; then
		ok $t
	else
		not_ok $t "$(grep '^not ok' "$T/tap" | head -n 3 | tr '\n' ' ')"
	fi
done

# --systemd-cgroup: systemd is PID 1 of a namespace here, with a bus, a /run and control groups of its own.
[ -x /lib/systemd/systemd ] || { skip systemd "no systemd on this machine"; exit 0; }
[ -d /run/lab ] || { skip systemd "in the lab only"; exit 0; }
command -v dbus-daemon >/dev/null || { not_ok systemd "no dbus-daemon"; exit 1; }
R=/sys/fs/cgroup
outer=
trap '[ -z "$outer" ] || { kill -9 "$outer"; wait "$outer" 2>/dev/null; }; rm -rf "$T"' EXIT
for c in cpu memory pids io; do echo +$c >"$R/cgroup.subtree_control" 2>/dev/null; done
mkdir "$R/test-oci"
printf '[Unit]\nRequires=dbus.socket dbus.service\nAfter=dbus.socket dbus.service\n' >"$T/test.target"
cat >"$T/start" <<START
echo 0 >$R/test-oci/cgroup.procs
exec unshare --cgroup sh -c 'umount $R; mount -t cgroup2 cgroup2 $R; for d in /run /var/lib /var/cache; do mount -t tmpfs tmpfs \$d; done
	mkdir -p /run/systemd/system; cp $T/test.target /run/systemd/system/
	ln -s /dev/null /run/systemd/system/systemd-tmpfiles-setup.service; exec env -i container=lab PATH=\$PATH /lib/systemd/systemd --unit=test.target'
START
unshare --fork --pid --mount --mount-proc --kill-child sh "$T/start" >"$T/systemd.log" 2>&1 &
outer=$!
inner=
until [ -n "$inner" ]; do # the list has no line end
	sleep 0.05
	read -r inner _ <"/proc/$outer/task/$outer/children" || kill -0 $outer || exit 1
done
ENTER=(nsenter -t "$inner" -m -p -C)
for _ in $(seq 300); do
	! "${ENTER[@]}" busctl --system --timeout=1 call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.DBus.Peer Ping >"$T/out" 2>&1 || break
	sleep 0.2
done
if INSULA_TEST_SYSTEMD=1 CK_RUN_CASE=all CK_VERBOSITY=normal CK_DEFAULT_TIMEOUT=60 "${ENTER[@]}" "$BUILD/tests/test_oci_cgroup" >"$T/out" 2>&1; then
	ok systemd-scope
else
	not_ok systemd-scope "$(grep -m 3 ':[FE]:' "$T/out" | tr '\n' ' ')"
fi

# A container from end to end: its scope has the limit of the container and the VM's own, and all of the VM's processes.
make_root "$T/b/rootfs"
ln -s busybox "$T/b/rootfs/bin/sleep"
OCI=("${ENTER[@]}" "$BUILD/bin/insula-oci" --root /run/oci-test --systemd-cgroup)
scope() { "${ENTER[@]}" systemctl show -p "$1" --value insula-e2e.scope; }
"${OCI[@]}" spec -b "$T/b"
jq '.process.terminal = false | .process.args = ["sh", "-c", "while :; do sleep 1; done"] | .linux.cgroupsPath = "system.slice:insula:e2e" |
	.linux.resources = {"memory": {"limit": 268435456}, "pids": {"limit": 500}}' "$T/b/config.json" >"$T/new" && mv "$T/new" "$T/b/config.json"
LIMIT=300 expect systemd-run 0 '' "${OCI[@]}" run -d -b "$T/b" e2e
if [ "$(scope ActiveState)" = active ] && [ "$(scope MemoryMax)" -gt 268435456 ] && [ "$(scope MemoryMax)" -lt 671088640 ]; then
	ok systemd-limits
else
	not_ok systemd-limits "$(scope ActiveState) $(scope MemoryMax)"
fi
names=$("${ENTER[@]}" sh -c 'for p in $(cat /sys/fs/cgroup/system.slice/insula-e2e.scope/cgroup.procs); do cat /proc/$p/comm 2>/dev/null; done' | sort -u | paste -sd' ')
case $names in *insula-vhost*insula-vmm*insula-vsock*) ok systemd-processes ;; *) not_ok systemd-processes "$names" ;; esac
"${ENTER[@]}" systemctl daemon-reload
same="$("${ENTER[@]}" cat /sys/fs/cgroup/system.slice/insula-e2e.scope/memory.max)"
if [ "$same" = "$(scope MemoryMax)" ]; then ok systemd-reload; else not_ok systemd-reload "$same"; fi
expect systemd-exec 5 '' "${OCI[@]}" exec e2e sh -c 'exit 5'
expect systemd-update 0 '' "${OCI[@]}" update --memory 134217728 e2e
if [ "$(scope MemoryMax)" -lt $((268435456 + 134217728)) ]; then ok systemd-updated; else not_ok systemd-updated "$(scope MemoryMax)"; fi
expect systemd-lift 0 '' "${OCI[@]}" update --memory -1 e2e
same systemd-lifted 'infinity max' "$(scope MemoryMax) $("${ENTER[@]}" cat /sys/fs/cgroup/system.slice/insula-e2e.scope/memory.max)"
expect systemd-delete 0 '' "${OCI[@]}" delete -f e2e
case $(scope ActiveState) in inactive | '') ok systemd-scope-gone ;; *) not_ok systemd-scope-gone "$(scope ActiveState)" ;; esac
