#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Live shares: virtio-fs by the host's virtiofsd. What the guest and the host see of each other, what the guest cannot reach, an ordinary user,
# virtiofsd and insula-vhost killed under a busy guest, and nothing left.
. "$(dirname "$0")/lib.sh"
for_user
D=$T/dir
mkdir -m 777 "$D"
chmod 755 "$T"

# wait_for SECONDS COMMAND...
wait_for() {
	local n=$(($1 * 20))
	shift
	while [ $n -gt 0 ]; do
		"$@" && return 0
		n=$((n - 1))
		sleep 0.05
	done
	return 1
}
says() { grep -q "$1" "$T/out"; }
# begin COMMAND...: a VM in the background that has said "begun"; sets pid and fs, its virtiofsd
begin() {
	timeout -k 2 120 "$@" >"$T/out" 2>&1 </dev/null &
	pid=$!
	wait_for 60 says begun || not_ok begin "the guest did not begin"
	fs=$(pgrep -x virtiofsd)
}
# finish NAME STATUS REGEX: that VM has ended so
finish() {
	local got=0
	wait $pid || got=$?
	if [ $got != "$2" ]; then not_ok "$1" "status $got, expected $2"; else also "$1" "$3"; fi
}
running() { kill -0 "$1" 2>/dev/null; }

# ---- both ways
echo from-the-host >"$D/in"
expect both 1 '^from-the-host$' "$RUN" --share "$D:/mnt/deep/er" -- sh -c 'cd /mnt/deep/er && cat in && echo from-the-guest >out && chmod 640 out &&
	mkdir d && mv in d/moved && ln d/moved hard && ln -s out soft && touch -d "2001-02-03 04:05:06" old && mknod pipe p; mknod dev c 1 3'
also device-refused 'mknod: dev: Operation not permitted'
same guest-wrote from-the-guest "$(cat "$D/out")"
same guest-mode '640 0 0' "$(stat -c '%a %u %g' "$D/out")"
same guest-moved 'from-the-host 2' "$(cat "$D/d/moved") $(stat -c %h "$D/hard")"
same guest-link out "$(readlink "$D/soft")"
same guest-time 2001-02-03 "$(stat -c %y "$D/old" | cut -c1-10)"
same guest-pipe fifo "$(stat -c %F "$D/pipe")"
expect rights 1 'out.*Permission denied' "$RUN" --share "$D:/s" -u 1000:1001 -- sh -c 'echo x >/s/user && mkdir /s/userdir && cat /s/out'
same guest-owner '1000 1001 1000 1001' "$(stat -c '%u %g' "$D/user" "$D/userdir" | xargs)"
make_root "$T/root"
expect below-a-root 0 '^from-the-guest$' "$RUN" --rootfs "$T/root" --share "$D:/srv/x" -- cat /srv/x/out
mkdir "$T/two" && echo second >"$T/two/f"
expect two-and-packed 0 '^from-the-guest second packed$' "$RUN" --share "$D:/a" --share "$T/root/etc:/p,packed" --share "$T/two:/b:ro,cache=always" -- \
	sh -c 'test -s /p/marker && echo $(cat /a/out /b/f) packed'
expect caches 0 '^none 5 auto 5 always 7 none 5$' "$RUN" --share "$D:/none,cache=none" --share "$D:/auto" --share "$D:/always,cache=always" -- sh -c 'cd /
	for m in none auto always; do echo $m >/$m/$m; echo $(cat /$m/$m) $(wc -c </$m/$m); done >/tmp/all; cat /auto/none >>/tmp/all; echo $(cat /tmp/all) $(wc -c </auto/none)'
expect open-and-gone 0 '^still here$' "$RUN" --share "$D:/s" -- sh -c 'echo still here >/s/u; exec 3</s/u; rm /s/u; test ! -e /s/u; cat <&3'
if [ -e "$D/u" ]; then not_ok unlinked "it is still there"; else ok unlinked; fi
mkdir "$T/many"
files=${SHARE_FILES:-1000}
for i in $(seq "$files"); do echo "$i" >"$T/many/f$i"; done
LIMIT=600 expect many-files 0 "^$((files + 1)) $files\$" "$RUN" --share "$T/many:/s:ro" -- sh -c "tar cf /tmp/t -C /s . && echo \$(tar tf /tmp/t | wc -l) \$(tar xf /tmp/t -O ./f$files)"

# ---- changes are seen at once
cat >"$T/watch" <<'PY'
import ctypes, os, sys
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(0)
libc.inotify_add_watch(fd, sys.argv[1].encode(), 0x80)  # IN_MOVED_TO
print("watching", flush=True)
while True:
    e = os.read(fd, 4096)
    name = e[16:].split(b"\0")[0].decode()
    print(name, open(sys.argv[1] + "/" + name).read(), flush=True)
    if name == "status":
        break
PY
timeout 100 python3 "$T/watch" "$D" >"$T/watched" &
watcher=$!
begin "$RUN" --share "$D:/s" -- sh -c 'cat /s/later; ls /s/later; echo begun; until [ -e /s/later ]; do sleep 0.1; done; cat /s/later
	echo done >/s/.new; mv /s/.new /s/status; until grep -q changed /s/later; do sleep 0.1; done; echo all seen'
echo came-later >"$D/later"
wait_for 20 says came-later
wait $watcher
same host-sees-a-rename 'status done' "$(tail -n 2 "$T/watched" | xargs)"
echo changed >"$D/later"
finish host-changes-are-seen 0 '^all seen$'

# ---- the jail, from outside
begin "$RUN" --share "$D:/s" -- sh -c 'echo begun; until [ -e /s/go ]; do sleep 0.1; done'
line() { sed -n "s/^$1:\t*//p" "/proc/$fs/status"; }
same jail 'cap 00000000000000db 00000000000000db 0000000000000000 0000000000000000 nnp 1 seccomp 2' \
	"cap $(line CapPrm) $(line CapEff) $(line CapBnd) $(line CapAmb) nnp $(line NoNewPrivs) seccomp $(line Seccomp)"
differ=
for n in user pid mnt net ipc uts cgroup; do
	[ "$(readlink "/proc/$fs/ns/$n")" != "$(readlink "/proc/self/ns/$n")" ] || differ+=" $n"
done
same jail-namespaces '' "$differ"
same jail-mounts 1 "$(wc -l <"/proc/$fs/mountinfo")"
same jail-mount / "$(awk '{ print $5 }' "/proc/$fs/mountinfo")"
same jail-cgroup "$(cat "/proc/$pid/cgroup")" "$(cat "/proc/$fs/cgroup")"
touch "$D/go"
finish jail-ends 0 begun
rm "$D/go"

# ---- read-only by the host's kernel, submounts too; what is mounted later
mkdir -p "$D/mnt" "$D/late"
mount --bind "$D" "$D"
mount --make-shared "$D"
mount -t tmpfs sub "$D/mnt"
echo below >"$D/mnt/f"
expect ro-guest 1 'Read-only file system' "$RUN" --share "$D:/s:ro" -- touch /s/x
begin "$RUN" --share "$D:/s:ro" -- sh -c 'cat /s/mnt/f; mount -o remount,rw /s && echo begun; touch /s/x; touch /s/mnt/x; rm -f /s/out; chmod 777 /s/out
	until [ -e /s/go ]; do sleep 0.1; done; ls /s/late; touch /s/late/x; echo end'
mount -t tmpfs late "$D/late"
touch "$D/late/f"
same ro-mounts 'ro ro' "$(awk '{ print $6 }' "/proc/$fs/mountinfo" | cut -d, -f1 | xargs)"
touch "$D/go" # the VM may end at once
finish ro-ends 0 '^below$'
same ro-host-refuses 5 "$(grep -cE '(touch|rm|chmod): .*Read-only file system' "$T/out")"
same ro-untouched '640' "$(stat -c %a "$D/out")"
if [ -e "$D/late/x" ] || [ -e "$D/x" ]; then not_ok ro-later-mounts "a read-only share was written"; else ok ro-later-mounts; fi
umount "$D/late"
rm -f "$D/go"
begin "$RUN" --share "$D:/s" -- sh -c 'echo begun; until [ -e /s/late/f ]; do sleep 0.1; done; cat /s/late/f'
mount -t tmpfs late "$D/late"
echo mounted-later >"$D/late/new" && mv "$D/late/new" "$D/late/f"
finish later-mount-appears 0 '^mounted-later$'
umount "$D/late" "$D/mnt" "$D"

# ---- the guest does not get out
echo secret-of-the-host >"$T/secret"
ln -s "$T/secret" "$D/abs"
ln -s ../secret "$D/rel"
expect links-stay-inside 0 '^end$' "$RUN" --share "$D:/s" -- sh -c 'ln -s /etc/shadow /s/shadow; ln -s ../../../../../../etc/shadow /s/up
	cat /s/abs /s/rel /s/shadow /s/up /s/../secret; cd /s; cat ../../../../etc/shadow; echo end'
if grep -qE 'secret-of-the-host|^root:' "$T/out"; then not_ok links-lead-nowhere "a link led out"; else ok links-lead-nowhere; fi
rm "$D/abs" "$D/rel" "$D/shadow" "$D/up"

# ---- an ordinary user
mkdir "$T/own" && chown 1000:1000 "$T/own"
echo of-root >"$T/own/root" && chmod 644 "$T/own/root"
expect user 0 '^65534 of-root$' "${AS_USER[@]}" "$RUN" --share "$T/own:/s" -- sh -c 'echo x >/s/f && mkdir /s/d && echo $(stat -c %u /s/root) $(cat /s/root)'
same user-owner '1000 1000' "$(stat -c %u "$T/own/f" "$T/own/d" | xargs)"
mkdir -m 700 "$T/closed"
expect user-closed 2 'closed: Permission denied' "${AS_USER[@]}" "$RUN" --share "$T/closed:/s" -- ls /s

# ---- killed under a busy guest
cat >"$D/busy" <<'GUEST'
# Works until the host says stop; counts what fails. Descriptor 3 was open before.
echo held >/s/held
exec 3</s/held
cd /s
echo begun
n=0 failed=0 last=0
until [ -e /s/stop ] && [ $last = 0 ]; do
	n=$((n + 1))
	if echo $n >/s/now && [ "$(cat /s/now)" = $n ] && ls /s >/dev/null; then last=0; else last=1 failed=$((failed + 1)); fi 2>/dev/null
	[ $last = 0 ] || sleep 0.05
done
echo "worked $((n - failed > 20)), failed $((failed > 0)), open: $(cat <&3 2>&1)"
GUEST
number() { # between two of them the file is empty
	local n
	n=$(cat "$D/now" 2>/dev/null)
	echo "${n:-0}"
}
kill_busy() { # NAME PROCESS
	local i now
	rm -f "$D/stop"
	begin "$RUN" --share "$D:/s" -- sh /s/busy
	for i in 1 2; do
		wait_for 20 test -s "$D/now"
		now=$(number)
		pkill -9 -P "$pid" -x "$2" || pkill -9 -P "$(pgrep -P "$pid")" -x "$2"
		more() { [ "$(number)" -gt $((now + 20)) ]; }
		if wait_for 30 more; then ok "$1-goes-on-$i"; else not_ok "$1-goes-on-$i" "the guest does not write any more"; fi
	done
	touch "$D/stop"
	finish "$1" 0 '^worked 1, failed [01], open: .*(not connected|I/O error|Input/output|held)'
	! grep -E '^worked' "$T/out" | sed "s/^/# $1: /"
}
kill_busy virtiofsd-killed virtiofsd
kill_busy vhost-killed insula-vhost

# ---- refusals
expect missing-directory 2 '^insula-run: --share: /nowhere: No such file' "$RUN" --share /nowhere:/s -- true
expect no-directory 2 'expected a directory' "$RUN" -n --share /etc/passwd:/s -- true
virtiofsd=$(for f in /usr/libexec/virtiofsd /usr/lib/virtiofsd /usr/lib/qemu/virtiofsd; do [ ! -x $f ] || echo $f; done)
mount --bind /bin/false "$virtiofsd"
expect bad-virtiofsd 125 'virtiofsd|insula-vhost fs0' "$RUN" --share "$D:/s" -- true
umount "$virtiofsd"
mount --bind /dev/null "$virtiofsd"
expect no-virtiofsd 2 'apt-get install qemu-system-common; later: virtiofsd' "$RUN" --share "$D:/s" -- true
umount "$virtiofsd"

# ---- nothing is left
left() { pgrep -x virtiofsd || pgrep '^insula-'; }
gone() { ! left >/dev/null; }
if wait_for 5 gone; then ok nothing-runs; else not_ok nothing-runs "$(left | xargs)"; fi
same nothing-mounted 0 "$(grep -c "$T" /proc/self/mountinfo)"
same no-files '' "$(find /tmp -maxdepth 1 -name 'insula-share.*')"
