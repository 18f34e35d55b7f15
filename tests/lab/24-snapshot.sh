#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A Debian kernel that is saved and goes on, again and again: with a disk under fio --verify and an open stream of a command. Its uptime goes
# on, its clock is right, nothing has locked up, and not one byte of the disk is wrong.
#
# SNAPSHOT_RUNS (3): how often; 50 is the long run.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
RUNS=${SNAPSHOT_RUNS:-3}
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
make_root "$T/root"
root_program "$T/root" fio
for a in cut date dmesg kill setsid sleep; do
	ln -sf busybox "$T/root/bin/$a"
done
truncate -s 64M "$T/disk.img"
# Each pass writes all of 4 MiB and reads it back; it goes on until there is /tmp/enough.
cat >"$T/root/bin/load" <<'JOB'
#!/bin/sh
n=0
while [ ! -e /tmp/enough ]; do
	fio --name=load --filename=/dev/vda --direct=1 --ioengine=psync --rw=randwrite --bs=4k --size=4M --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --randseed=$n --eta=never >/tmp/fio.out 2>&1 || { echo "fio $?" >/tmp/result; exit 1; }
	n=$((n + 1))
done
echo "right $n" >/tmp/result
JOB
chmod 755 "$T/root/bin/load"

insulad_up '"cgroup": "off"'
guest() { # VM COMMAND: what it says
	timeout 60 "$CTL" exec "$1" -- sh -c "$2" </dev/null 2>&1
}
expect starts 0 '' "$CTL" run -d --name v0 --mem 256M --rootfs "$T/root" --disk "$T/disk.img" --
guest v0 'echo mark-77 >/tmp/mark; setsid load >/dev/null 2>&1 & sleep 1; echo begun' >"$T/out"
also load-begins begun
timeout 120 "$CTL" exec v0 -- sh -c 'echo open; sleep 100' >"$T/stream" 2>&1 </dev/null &
stream=$!
for _ in $(seq 100); do
	! grep -q open "$T/stream" || break
	sleep 0.2
done
failed=''
for i in $(seq "$RUNS"); do
	old=v$((i - 1)) new=v$i
	up=$(guest "$old" 'cut -d. -f1 /proc/uptime')
	if ! timeout 120 "$CTL" snapshot --stop "$old" "$T/snap$i" >"$T/out" 2>&1; then
		failed="snapshot $i: $(tail -n 1 "$T/out")"
		break
	fi
	"$CTL" rm -f "$old" >/dev/null 2>&1
	if ! timeout 120 "$CTL" run -d --name "$new" --restore "$T/snap$i" -- >"$T/out" 2>&1; then
		failed="restore $i: $(tail -n 1 "$T/out")"
		break
	fi
	"$CTL" resume --set-clock "$new" >/dev/null 2>&1
	said=$(guest "$new" 'cat /tmp/mark; cut -d. -f1 /proc/uptime; date +%s')
	now=$(date +%s)
	# shellcheck disable=SC2086
	set -- $said
	if [ $# != 3 ] || [ "$1" != mark-77 ]; then
		failed="restore $i: the guest says '$said'; $("$CTL" logs "$new" 2>&1 | tail -n 2)"
	elif [ "$2" -lt "$up" ] || [ "$2" -gt $((up + 60)) ]; then
		failed="restore $i: uptime $up, then $2"
	elif [ $((now - $3)) -gt 5 ] || [ $(($3 - now)) -gt 5 ]; then
		failed="restore $i: its clock is $3, ours $now"
	fi
	[ -z "$failed" ] || break
	# Lazy memory: what it is restored from is needed until all of it is there.
	[ "$i" -lt 3 ] || rm -rf "$T/snap$((i - 2))"
done
last=v$i
if [ -z "$failed" ]; then ok "saved-and-restored-$RUNS-times"; else not_ok "saved-and-restored-$RUNS-times" "$failed"; fi
if timeout 30 tail --pid=$stream -f /dev/null && ! wait $stream; then
	ok open-stream-ends
else
	not_ok open-stream-ends "the command's stream of before the snapshot is still there, or says that all was well"
fi
guest "$last" 'touch /tmp/enough; for i in $(seq 60); do [ -e /tmp/result ] && break; sleep 1; done; cat /tmp/result /tmp/fio.out' >"$T/out"
also disk-is-right '^right [0-9]+'
guest "$last" 'dmesg' >"$T/out"
if grep -qiE 'lockup|rcu.*stall|hung task|BUG:|I/O error' "$T/out"; then
	not_ok nothing-locked-up "$(grep -iE 'lockup|rcu.*stall|hung task|BUG:|I/O error' "$T/out" | head -n 1)"
elif grep -q 'Linux version' "$T/out"; then
	ok nothing-locked-up
else
	not_ok nothing-locked-up "no dmesg: $(head -n 1 "$T/out")"
fi
expect stops 0 '' "$CTL" stop -t 20 "$last"
