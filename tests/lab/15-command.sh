#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A command in the guest feels local: separate binary-clean streams, their ends, a terminal, signals, statuses.
# What ends a machine is in 10-boot; users and directories that the guest does not have are in 70-daemon. BYTES is how much goes through a pipe.
. "$(dirname "$0")/lib.sh"
BYTES=${BYTES:-$(short 20000000 100000000)}
ONPTY=$(dirname "$0")/../guests/onpty.py
"$RUN" -- true </dev/null >/dev/null 2>&1 # the initrd is in the cache now

# ---- streams

"$RUN" -- sh -c 'echo to out; echo to err >&2; cat; echo end; printf "no newline"' >"$T/o" 2>"$T/e" </dev/null
same separate-streams "$(printf 'to out\nend\nno newline')/to err" "$(cat "$T/o")/$(cat "$T/e")"

head -c 4000000 /dev/urandom >"$T/in"
timeout 300 "$RUN" -- sh -c 'cat; exit 4' <"$T/in" >"$T/o" 2>"$T/out"
same input-exact-status 4 $?
if cmp -s "$T/in" "$T/o"; then ok input-exact; else not_ok input-exact "$(cmp "$T/in" "$T/o" 2>&1)"; fi

# One MiB of noise again and again, and then once more, so that a byte that is lost, doubled or changed shows.
big="head -c 1048576 /dev/urandom >/tmp/m; i=0; while [ \$i -lt $((BYTES / 1048576)) ]; do cat /tmp/m; i=\$((i + 1)); done | cat; cat /tmp/m"
start=$SECONDS
timeout 600 "$RUN" -- sh -c "$big" 2>"$T/out" >"$T/o" </dev/null
status=$? took=$((SECONDS - start))
python3 - "$T/o" >"$T/verdict" <<'PY'
import sys
data = open(sys.argv[1], "rb").read()
piece = 1 << 20
ok = len(data) % piece == 0 and data == data[:piece] * (len(data) // piece)
print("same" if ok and len(set(data[:piece])) == 256 else "different", len(data))
PY
echo "# $(stat -c %s "$T/o") bytes through a pipe in $took s, the boot included"
same big-pipe "same $(((BYTES / 1048576 + 1) * 1048576)) 0" "$(cat "$T/verdict") $status"

start=$SECONDS
same yes-head y "$(timeout 60 "$RUN" -- yes 2>"$T/out" | head -1)"
if [ $((SECONDS - start)) -lt 50 ]; then ok yes-head-ends; else not_ok yes-head-ends "it did not"; fi
timeout 60 "$RUN" -- yes >/dev/full 2>"$T/out" </dev/null
same disk-full 125 $?
also disk-full-says-so 'standard output: No space left on device'

# ---- where it runs

expect environment 0 '^one two /x$' env FROM=two "$RUN" -e A=one -e FROM -e HOME=/x -e NOT_SET -w /proc -u 1000:50 -- \
	sh -c 'echo $A $FROM $HOME$NOT_SET; pwd; echo $(id -u) $(id -g)'
also directory '^/proc$'
also user-group '^1000 50$'
expect no-terminal 1 'not a tty' "$RUN" -u 1000 -- sh -c 'echo $(id -u) $(id -g) $HOME; tty'
also user '^1000 1000 /$'
expect user-unknown 126 "user mallory: not in the guest's /etc/passwd" "$RUN" -u mallory -- id
echo '{"command": ["sh", "-c", "echo $A; pwd; id -u"], "env": ["A=json"], "cwd": "/tmp", "user": "7"}' >"$T/json"
expect json 0 '^json$' "$RUN" --json "$T/json"
also json-user '^7$'
mkdir -p "$T/share/sub" && echo shared >"$T/share/sub/file" && chmod 755 "$T/share"
expect share 1 '^shared$' "$RUN" --share "$T/share:/mnt/deep/er,packed" --share "$T/share:/ro:ro,packed" -- sh -c 'cat /mnt/deep/er/sub/file; touch /ro/x'
also share-read-only 'Read-only file system'
expect share-rw-refused 2 'can only read' "$RUN" --share "$T/share:/mnt:rw,packed" -- true
expect share-missing 2 'nowhere' "$RUN" --share "/nowhere:/mnt" -- true
make_root "$T/root"
expect share-below-a-root 0 '^shared$' "$RUN" --rootfs "$T/root" --share "$T/share:/srv/x,packed" -- cat /srv/x/sub/file

# ---- ends

LIMIT=200 expect out-of-memory 137 'the guest ran out of memory \(--mem 128M\)' "$RUN" --mem 128M -- \
	dd if=/dev/zero of=/dev/null bs=84M count=1
expect background-child 3 '^started$' "$RUN" -- sh -c '(sleep 1000; echo late) & echo started; exit 3'

running() { # SIGNAL...: start a command that says what it gets; wait until it runs
	timeout 100 "$RUN" -- sh -c "$1" >"$T/out" 2>&1 </dev/null &
	waiter=$!
	for _ in $(seq 600); do
		grep -q ready "$T/out" && break
		sleep 0.1
	done
	pid=$(pgrep -P $waiter -x insula-run)
}
signals='INT TERM HUP QUIT USR1 USR2'
running "for s in $signals; do trap \"echo got \$s\" \$s; done; trap 'echo got USR2; exit 9' USR2; echo ready; while :; do sleep 0.1; done"
for sig in $signals; do
	[ $sig != TERM ] || sleep 4 # within three seconds of the SIGINT it would end the machine
	kill -$sig "$pid"
	for _ in $(seq 100); do
		grep -q "got $sig" "$T/out" && break
		sleep 0.1
	done
	if grep -q "got $sig" "$T/out"; then ok signal-$sig; else not_ok signal-$sig "the command did not get it"; fi
done
wait $waiter
same signals-and-status 9 $?
running 'echo ready; exec sleep 1000'
kill -TERM "$pid"
wait $waiter
same signal-default 143 $?
running 'trap "" INT TERM; echo ready; while :; do sleep 1; done'
kill -INT "$pid"; sleep 1; kill -INT "$pid"
wait $waiter
same second-interrupt 130 $?
# The process that carries its streams is killed three times, in the middle of data both ways: the command and every byte live on.
head -c 3000000 /dev/urandom >"$T/in"
mkfifo "$T/fifo"
"$RUN" -- sh -c 'echo up >&2; cat; echo done >&2; exit 6' <"$T/fifo" >"$T/o" 2>"$T/out" &
pid=$!
(for i in $(seq 0 29); do dd if="$T/in" bs=100000 skip=$i count=1 2>/dev/null; sleep 0.2; done) >"$T/fifo" &
kills=0
for _ in $(seq 300); do ! grep -q up "$T/out" || break; sleep 0.1; done
for _ in 1 2 3; do
	sleep 1.5
	h=$(pgrep -P $pid -x insula-vsock) && kill -KILL "$h" && kills=$((kills + 1))
done
wait $pid
same vsock-killed-status "6 3" "$? $kills"
also vsock-killed-errors '^done'
if cmp -s "$T/in" "$T/o"; then ok vsock-killed-streams; else not_ok vsock-killed-streams "$(cmp "$T/in" "$T/o" 2>&1)"; fi
# The guest's driver goes away and comes back, with all of its connections, as it does when Linux is suspended.
expect driver-again 7 '^after$' "$RUN" -- sh -c 'cd /sys/bus/virtio/drivers/vmw* && d=$(echo virtio*) && echo $d >unbind && sleep 2; echo $d >bind; echo after; exit 7'
running 'echo ready; exec sleep 1000'
kill -KILL "$(pgrep -P "$pid" -x insula-exec)"
wait $waiter
same exec-killed 125 $?
also exec-killed-says-so 'insula-exec was killed by signal 9'

# ---- a terminal

pty() { # NAME STATUS REGEX DIALOGUE... -- OPTIONS... COMMAND: on a terminal of its own, which must be as before at the end
	local name=$1 want=$2 regex=$3 got=0
	shift 3
	INSULA_PATIENCE=60 timeout 100 python3 "$ONPTY" "$@" >"$T/out" 2>&1 </dev/null || got=$?
	if [ $got = "$want" ] && grep -qE -- "$regex" "$T/out" && grep -q '^terminal restored' "$T/out"; then
		ok "$name"
	else
		not_ok "$name" "status $got, expected $want, and $regex, and the terminal as it was"
	fi
}
pty terminal 7 '^40 132' 'ready' 'stty size; echo $TERM; tty; exit 7\n' -- sh -c "stty rows 40 cols 132; TERM=xterm-x exec '$RUN' -it -- sh -c 'echo ready; exec sh'"
also terminal-type '^xterm-x'
also terminal-is-one '^/dev/pts/0'
pty ctrl-c 130 'ready' 'ready' '\x03' -- "$RUN" -it -- sh -c 'echo ready; exec sleep 1000'
pty ctrl-c-without-t 130 'ready' 'ready' '\x03' -- "$RUN" -- sh -c 'echo ready; exec sleep 1000'
pty end-of-input 5 'ready' 'ready' '\x04' -- "$RUN" -it -- sh -c 'echo ready; cat; exit 5'
pty escape 130 'ready' 'ready' '\x1d\x1d\x1d' -- "$RUN" -it -- sh -c "trap '' INT TERM HUP; echo ready; while :; do sleep 1; done"
same no-input-from-a-terminal "end" "$(script -qec "'$RUN' -- sh -c 'cat; echo end'" /dev/null </dev/null 2>/dev/null | tr -d '\r\n')"
cat >"$T/resize.py" <<'PY'
import fcntl, os, struct, sys, termios, time, select, signal
pid, fd = os.forkpty()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen, deadline, sent = b"", time.monotonic() + 60, False
while time.monotonic() < deadline and b"44 99" not in seen:
    if select.select([fd], [], [], 1)[0]:
        try:
            seen += os.read(fd, 4096)
        except OSError:
            break
    if b"ready" in seen and not sent:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
        sent = True
os.kill(pid, signal.SIGKILL)
print("resized" if b"44 99" in seen else seen)
PY
same resize resized "$(python3 "$T/resize.py" "$RUN" -it -- sh -c 'trap "stty size" WINCH; echo ready; while :; do sleep 0.2; done' 2>&1)"
