#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A disk that qemu-storage-daemon serves over vhost-user, on this machine's /dev/kvm: the payload for disks, and one under load while
# the daemon, insula-vhost, or both are killed with -9. BUILD names the build directory. One line per case: ok, not ok, skip.
# shellcheck disable=SC2317 # functions that are handed to wait_for or trap
set -u
SUITE=vhost
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
# shellcheck source=tests/guests/vmlib.bash
. "$HERE/vmlib.bash"
DEATHS=5

if ! command -v qemu-storage-daemon >/dev/null; then
	not_ok qemu-storage-daemon 'it is not installed (package qemu-system-common)'
	exit 1
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/vhost.XXXXXX") || exit 1
run='' daemon=''
cleanup() {
	[ -z "$run" ] || kill -KILL "$run" 2>/dev/null
	[ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
truncate -s 8M "$dir/disk.img"
mkfifo "$dir/type"
exec {type}<>"$dir/type"

# serve [MORE]: the daemon at $dir/s
serve() {
	rm -f "$dir/s"
	qemu-storage-daemon --blockdev driver=file,node-name=f,filename="$dir/disk.img" \
		--export "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=$dir/s,writable=on$*" >>"$dir/daemon.log" 2>&1 &
	daemon=$!
	wait_for 10 test -S "$dir/s" || not_ok 'qemu-storage-daemon' "does not listen: $(tail -n 2 "$dir/daemon.log")"
}
kill_daemon() {
	kill -KILL "$daemon"
	wait "$daemon" 2>/dev/null
	daemon=
}
kill_helper() {
	local old
	wait_for 10 sealed insula-vhost || { not_ok 'kill insula-vhost' "there is none: $(log)"; return; }
	old=$pid
	kill -KILL "$old"
	wait_for 5 gone_one "$old"
}
device() { echo "vhost-user,type=blk,socket=$dir/s$1"; }

# start PAYLOAD DEVICE ARG...: in the background, up to its first words
start() {
	local kernel=$GUESTS/$1.elf word=$2 device=$3
	shift 3
	rm -f "$dir/out" "$dir/err" "$dir/m.json"
	"$RUN" -v --kernel "$kernel" --device "$device" --metrics "$dir/m.json" "$@" <"$dir/type" >"$dir/out" 2>"$dir/err" &
	run=$!
	wait_for 20 said "$word" || not_ok "$kernel starts" "it said: $(log)"
}
number() { sed -n "/\"name\": *\"vhost0\"/,/\"lost\"/s/.*\"$1\": *\([0-9]*\).*/\1/p" "$dir/m.json" 2>/dev/null | head -n 1; }

# ---- bad input

"$RUN" --kernel "$GUESTS/blk.elf" --device "$(device '')" </dev/null >"$dir/out" 2>"$dir/err"
status=$?
[[ $status = 2 && $(cat "$dir/err") = "insula-run: --device: socket $dir/s: No such file or directory" ]]
holds 'without a socket: refused' $? "status $status, $(log)"

# ---- what the driver of a disk sees

serve
start blk 'queues' "$(device '')"
finish 60
grep '^not ok' "$dir/out"
[ "$status" = 0 ] && [ "$(grep -c '^ok ' "$dir/out")" -ge 40 ] && ! said '^not ok'
holds 'the payload for disks' $? "status $status: $(grep '^not ok' "$dir/out"), $(log)"
kill_daemon

# ---- deaths under load

for who in daemon helper both; do
	serve
	start blkloop looping "$(device '')" --append seconds=120
	for ((i = 0; i < DEATHS; i++)); do
		pause
		[ $who = helper ] || kill_daemon
		[ $who = daemon ] || kill_helper
		[ $who = helper ] || serve
	done
	pause
	sleep 0.3
	printf q >&$type
	finish 60
	[ "$status" = 0 ] && said '^ok all_rounds' && said '^ok nothing_answered_twice' && ! said '^not ok'
	holds "$who killed $DEATHS times under load: the guest does not notice" $? \
		"status $status: $(grep '^not ok' "$dir/out"), $(tail -n 1 "$dir/out"), $(log)"
	! grep -q 'needs a reset' "$dir/err"
	holds "$who killed: no reset was needed" $? "$(log)"
	if [ $who = daemon ]; then
		[ "$(number connections)" -ge 2 ] && [ "$(number restarts)" = 0 ]
		holds 'daemon killed: insula-vhost lives on' $? "$(number connections) connections, $(number restarts) restarts"
	else
		[ "$(number restarts)" = $DEATHS ]
		holds "$who killed: restarts are counted" $? "$(number restarts)"
	fi
	kill_daemon
done

# ---- insula-run listens; the back end answers in the opposite order, and keeps account of what it has begun

back() {
	python3 "$(dirname "$0")/vhostback.py" "$dir/l" "$dir/disk.img" >>"$dir/back.log" 2>&1 &
	daemon=$!
}
back_said() { grep -qs "$1" "$dir/back.log"; }
server=vhost-user,type=blk,socket=$dir/l,server
"$RUN" --kernel "$GUESTS/blk.elf" --device "$server" </dev/null >"$dir/out" 2>"$dir/err" &
run=$!
wait_for 10 sealed insula-vhost && sleep 0.3
! ended && [ ! -s "$dir/out" ]
holds 'without a back end: the guest does not begin' $? "$(tail -n 1 "$dir/out") $(log)"
kill -TERM "$run"
finish 10
[ "$status" = 143 ] && [ ! -e "$dir/l" ]
holds 'without a back end: it ends as it is told' $? "status $status, $(log)"

back
start blkloop looping "$server" --append seconds=120
for ((i = 0; i < DEATHS; i++)); do
	pause
	if [ $((i % 2)) = 0 ]; then
		kill_daemon
	else
		kill_helper
		# It sees the end of its connection, unless that was still waiting to be taken.
		wait_for 2 gone_one "$daemon" || continue
	fi
	back
done
pause
wait_for 10 back_said "^again" || not_ok 'the account of what is in flight' "nobody got it: $(tail -n 3 "$dir/back.log" | tr '\n' '|')"
sleep 0.5
printf q >&$type
finish 60
[ "$status" = 0 ] && said '^ok all_rounds' && said '^ok nothing_answered_twice' && ! said '^not ok'
holds 'an account of what is in flight: the guest does not notice deaths' $? "status $status: $(grep '^not ok' "$dir/out"), $(log)"
[ "$(grep -c '^new' "$dir/back.log")" = 1 ] && [ "$(grep -c '^again' "$dir/back.log")" -ge 2 ]
holds 'the account is made once, and given to each' $? "$(tr '\n' ' ' <"$dir/back.log")"
[ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null
wait "$daemon" 2>/dev/null
daemon=

# ---- a daemon that stands still

serve
start blkloop looping "$(device '')" --append seconds=120
kill -STOP "$daemon"
sleep 1
! ended
holds 'the daemon stands still: the VM waits' $? "$(log)"
kill -CONT "$daemon"
sleep 0.5
printf q >&$type
finish 60
[ "$status" = 0 ] && said '^ok all_rounds'
holds 'the daemon stands still, and goes on' $? "status $status: $(grep '^not ok' "$dir/out"), $(log)"
kill_daemon
exit $failed
