#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The storage module iscsi with real VMs on this machine's /dev/kvm, in a network namespace: against tgt, and against targets that are bad
# on purpose; its process, its targets and their connections killed under load; URIs and passwords that are wrong. BUILD names the build
# directory. One line per case: ok, not ok, skip.
#
# ISCSI_SECONDS (3): how long each load under kills lasts.
# shellcheck disable=SC2317 # functions that are handed to wait_for or trap
set -u
SECONDS_OF_LOAD=${ISCSI_SECONDS:-3}
SUITE=iscsi MODULE=iscsi
if [ -z "${ISCSI_INSIDE-}" ]; then
	if ! unshare -n true 2>/dev/null; then
		echo "skip iscsi/all - no network namespace: not root"
		exit 0
	fi
	ISCSI_INSIDE=1 exec unshare -n bash "$0"
fi
ip link set lo up
# shellcheck source=tests/guests/modulelib.bash
. "$(dirname "$0")/modulelib.bash"

PORT=3260
NAME=iqn.2026-01.test:disk
listens_tcp() { ss -tlnH "sport = :$1" | grep -q .; }
disk() { echo "iscsi://127.0.0.1/$NAME/${1:-1}"; }
admin() { tgtadm -C 7 --lld iscsi "$@"; }
answers() { admin --mode system --op show >"$dir/show" 2>&1; }
# target TID NAME ARG...: with LUN 1, a file
target() {
	admin --mode target --op new --tid "$1" -T "$2" &&
		admin --mode logicalunit --op new --tid "$1" --lun 1 -b "$dir/disk.img" &&
		{ [ $# = 2 ] || admin --mode logicalunit --op update --tid "$1" --lun 1 --params "$3"; } &&
		admin --mode target --op bind --tid "$1" -I ALL
}
# tgt [PARAMS]: tgtd, with that target. It ignores SIGTERM while it has one.
tgt() {
	serve tgtd -f -C 7 --iscsi portal=127.0.0.1:$PORT
	wait_for 20 answers && target 1 $NAME "$@" >>"$dir/servers" 2>&1
}
bad() {
	serve python3 "$HERE/iscsiserver.py" $PORT "$dir/bad.img" "$@"
	wait_for 10 listens_tcp $PORT
}
new_bad() { rm -f "$dir/bad.img"; truncate -s 64M "$dir/bad.img"; }

# ---- what was said wrong, part by part

T=127.0.0.1/$NAME
refused scheme "scheme 'http'; expected one of: iscsi://" iscsi:http://h/x
refused host "host 'h!st'; expected a name" "iscsi://h!st/$NAME/1"
refused no-host "host ''; expected iscsi://HOST" "iscsi:///$NAME/1"
refused port "port '70000'; expected a number" "iscsi://h:70000/$NAME/1"
refused password-colon 'me:...@127.0.0.1' "iscsi://me:secret@$T/1"
refused password-percent "user: a password in it, behind ':' or '%'; expected a name alone" "iscsi://me%secret@$T/1"
! grep -q secret "$dir/err"
holds 'refused/password: is not said again' $? "$(cat "$dir/err")"
printf '{"disks": [{"path": "iscsi://me%%secret@%s/1"}]}' "$T" >"$dir/vm.json"
timeout -s KILL 30 "$RUN" --json "$dir/vm.json" --kernel "$GUESTS/hello.elf" </dev/null >"$dir/out" 2>"$dir/err"
[ $? = 2 ] && grep -q 'user: a password in it' "$dir/err" && ! grep -q secret "$dir/err"
holds 'refused/password in a configuration' $? "$(cat "$dir/err")"
refused nobody 'connection to 127.0.0.1: Connection refused' "iscsi://$T/1"
refused file 'options: password /no/such: No such file or directory' "iscsi://me@$T/1,options=password=/no/such"
refused relative "options: password 'pw'; expected an absolute path" "iscsi://me@$T/1,options=password=pw"
refused empty 'options: password /dev/null: empty; expected 1 to 256 bytes' "iscsi://me@$T/1,options=password=/dev/null"
refused long 'options: password /dev/zero: more; expected 1 to 256 bytes' "iscsi://me@$T/1,options=password=/dev/zero"

# ---- tgt

truncate -s 64M "$dir/disk.img"
tgt thin_provisioning=1 || not_ok tgt "$(tail -n 3 "$dir/servers")"
refused target "target 'disk/1'; expected iscsi://HOST/TARGET/LUN" iscsi://127.0.0.1/disk/1
refused lun-text "LUN 'x'; expected a number from 0 to 16383" "iscsi://$T/x"
refused lun-missing "LUN ''; expected a number" "iscsi://$T"
refused query "query 'a=b'; expected initiator=NAME alone" "iscsi://$T/1?a=b"
refused initiator "initiator 'me'; expected a name that begins with iqn." "iscsi://$T/1?initiator=me"
refused unknown-target "target 'iqn.2026-01.test:other': login: Failed to log in to target. Status: Target not found" \
	iscsi://127.0.0.1/iqn.2026-01.test:other/1
refused unknown-lun 'LUN 9: the target has none of that number' "$(disk 9)"
refused flat-lun 'LUN 300: the target has none of that number' "$(disk 300)"
refused not-a-disk 'LUN 0: device type 12; expected a disk' "$(disk 0)"
refused user "user 'me'; expected options=password=FILE with it" "iscsi://me@$T/1"
vm tgt blk --disk "$(disk)"
vm tgt/4-cpus blk --cpus 4 --disk "$(disk)"
grep -q '^queues 4' "$dir/out"
holds 'tgt/a queue for each processor' $? "$(grep queues "$dir/out")"
vm tgt/ro blk --disk "$(disk),ro"
vm tgt/stable blk --disk "iscsi:$(disk)?initiator=iqn.2026-01.test%3Avm,options=writes=stable"
vm tgt/pci pciloop --bus pci --cpus 2 --append seconds=1 --disk "$(disk)"
vm tgt/shifted blkloop --append 'seconds=1 shift=3' --cpus 2 --disk "$(disk)"
# What was given back is not there: the file has holes.
head -c 64M /dev/urandom >"$dir/disk.img"
full=$(stat -c %b "$dir/disk.img")
vm tgt/thin blk --disk "$(disk)"
[ "$(stat -c %b "$dir/disk.img")" -lt "$full" ]
holds 'tgt/thin: space is given back' $? "$full blocks, and $(stat -c %b "$dir/disk.img") now"

target 2 iqn.2026-01.test:auth
admin --mode account --op new --user me --password sesame-sesame && admin --mode account --op bind --tid 2 --user me
echo sesame-sesame >"$dir/good.pw"
printf sesame >"$dir/bad.pw"
printf 'two\nlines\n' >"$dir/two.pw"
A=iscsi://me@127.0.0.1/iqn.2026-01.test:auth/1
vm chap blk --disk "$A,options=password=$dir/good.pw"
vm chap/descriptor blk --disk "$A,options=password=/dev/fd/9" 9< <(echo sesame-sesame)
refused chap/wrong 'login: Failed to log in to target. Status: Authentication failure' "$A,options=password=$dir/bad.pw"
refused chap/nobody 'Authentication failure' iscsi://127.0.0.1/iqn.2026-01.test:auth/1
refused chap/other-user 'Authentication failure' "iscsi://you@127.0.0.1/iqn.2026-01.test:auth/1,options=password=$dir/good.pw"
refused chap/lines 'password: not one line' "$A,options=password=$dir/two.pw"
refused chap/no-user 'password; expected a user with it' "$(disk),options=password=$dir/good.pw"

# Its jail, from outside. The password is in no argument and no environment of anybody.
sealed "$A,options=password=$dir/good.pw"
! cat /proc/"$run"/cmdline /proc/"$run"/environ "/proc/$pid/cmdline" "/proc/$pid/environ" | grep -qa sesame
holds 'jail/password' $?
sealed_over

# ---- deaths under load: no error, not one wrong byte

kill_tgt() {
	gone
	tgt thin_provisioning=1
}
# The connections, and neither end of them. The kernel does not have to know how.
kill_connections() { ss -K "dport = :$PORT" >>"$dir/servers" 2>&1; }
kill_any() { case $((RANDOM % 3)) in 0) kill_module ;; 1) kill_tgt ;; 2) kill_connections ;; esac; }
kill_volatile() {
	nap 0.5
	gone
	bad volatile
}
load kills/module kill_module "seconds=$SECONDS_OF_LOAD" "$(disk)"
load kills/target kill_tgt "seconds=$SECONDS_OF_LOAD" "$(disk)"
load kills/connections kill_connections "seconds=$SECONDS_OF_LOAD" "$(disk)"
deaths=0
load kills/any kill_any "seconds=$((2 * SECONDS_OF_LOAD)) flush=1" "$(disk),options=writes=stable"
grep -q ', 0 failed' "$dir/out"
holds 'kills/any: stable writes, no flush fails' $? "$(grep ^flushes "$dir/out")"
gone
# A target that loses what was not flushed: a flush fails or is right.
new_bad
bad volatile
load kills/volatile kill_volatile "seconds=60 flush=1" "$(disk 0)" 'flush failed'
grep -qE '^flushes [1-9][0-9]* good, [1-9]' "$dir/out"
holds 'kills/volatile: flushes that had to fail' $? "$(grep ^flushes "$dir/out")"
gone
# The module dies, the target does not: nothing is lost, no flush fails.
deaths=0
new_bad
bad volatile
load kills/module-alone kill_module "seconds=$SECONDS_OF_LOAD flush=1" "$(disk 0)"
grep -q ', 0 failed' "$dir/out"
holds 'kills/module-alone: no flush fails' $? "$(grep ^flushes "$dir/out")"
gone

# ---- LUNs of other kinds

new_bad
for mode in good stable nocan; do
	bad $mode
	vm "lun/$mode" blk --cpus 2 --disk "$(disk 0)"
	gone
done

# ---- targets that are bad: one line at the start

for what in 'greeting:target' 'gone:Target not found' 'loop:login: ' 'redirect:the target has moved to 203.0.113.1' \
	'segment:MaxRecvDataSegmentLength is less than 4096' 'digest:it wants a HeaderDigest' 'odd:blocks of 520 bytes' 'huge:expected blocks' \
	'short:INQUIRY: ' 'tape:device type 1; expected a disk'; do
	bad "${what%%:*}"
	refused "bad/${what%%:*}" "${what#*:}" "$(disk 0)"
	gone
done
bad silent
refused bad/silent 'no answer to the login in 10 s' "$(disk 0)"
gone

# ---- and later: errors for the guest, and for nobody else

for mode in length itt opcode nothing endless flood over r2t asks stall error status sense attention logout; do
	bad $mode
	timeout -s KILL 40 "$RUN" --kernel "$GUESTS/blkloop.elf" --append seconds=1 --disk "$(disk 0),options=timeout=1" \
		</dev/null >"$dir/out" 2>"$dir/err"
	status=$?
	# The payload says that the first round failed, with the status of an I/O error, and ends by itself.
	[ $status = 1 ] && grep -q '^not ok .* - round [01]: status 1' "$dir/out" && ! grep -qE 'killed|restarted|forbids' "$dir/err"
	holds "bad/$mode" $? "status $status: $(grep '^not ok' "$dir/out" | head -n 1) $(tail -n 2 "$dir/err" | tr '\n' '|')"
	gone
done

# ---- a LUN that grows while it is used, and one that comes back as another one

rm -f "$dir/bad.img"; truncate -s 8M "$dir/bad.img"
bad grow
: >"$dir/out"
"$RUN" --kernel "$GUESTS/blkloop.elf" --append 'seconds=60 capacity=32768' --disk "$(disk 0)" </dev/null >"$dir/out" 2>"$dir/err" &
run=$!
wait_for 10 looping
truncate -s 16M "$dir/bad.img"
kill -USR1 "$server"
wait "$run"; status=$?; run=''
[ $status = 0 ] && grep -q '^capacity 32768' "$dir/out" && ! grep -q 'has ended' "$dir/err"
holds 'grows, without a new session' $? "status $status: $(grep ^capacity "$dir/out") $(tail -n 1 "$dir/err")"
: >"$dir/out"
"$RUN" --kernel "$GUESTS/blkloop.elf" --append seconds=60 --disk "$(disk 0)" </dev/null >"$dir/out" 2>"$dir/err" &
run=$!
wait_for 10 looping
gone
truncate -s 4M "$dir/bad.img"
bad good
wait "$run"; status=$?; run=''
[ $status = 1 ] && grep -q 'status 1' "$dir/out" && grep -q 'the disk is smaller than before' "$dir/err"
holds smaller $? "status $status: $(grep '^not ok' "$dir/out" | head -n 1) $(tail -n 1 "$dir/err")"
gone
exit $failed
