#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Death of each process of a VM under load, on this machine's /dev/kvm: helpers are replaced and the guest does not notice; without
# insula-vmm or insula-run nothing is left. BUILD names the build directory. One line per case: ok, not ok, skip.
# shellcheck disable=SC2317 # functions that are handed to wait_for or trap
set -u
SUITE=kills
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
# shellcheck source=tests/guests/vmlib.bash
. "$HERE/vmlib.bash"
DEVICE_RESTARTS=6 # fewer than RESTART_TELL

dir=$(mktemp -d "${TMPDIR:-/tmp}/kills.XXXXXX") || exit 1
run='' keep_open=''
cleanup() {
	[ -z "$run" ] || kill -KILL "$run" 2>/dev/null
	[ -z "$keep_open" ] || kill -KILL "$keep_open" 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
truncate -s 8M "$dir/disk.img"

mkfifo "$dir/type"
exec {type}<>"$dir/type"

children() {
	local f c
	for f in /proc/"$run"/task/*/children; do
		read -r c <"$f" && echo "$c"
	done 2>/dev/null
}
logged() { grep -qs -- "$1" "$dir/err"; }

# start PAYLOAD ARG...: in the background, up to its first words
start() {
	local kernel=$GUESTS/$1.elf word=$2
	shift 2
	rm -f "$dir/out" "$dir/err" "$dir/m.json"
	"$RUN" --kernel "$kernel" --disk path="$dir/${DISK:-disk.img}" --metrics "$dir/m.json" "$@" <"${IN:-/dev/null}" >"$dir/out" 2>"$dir/err" &
	run=$!
	wait_for 20 said "$word" || not_ok "$kernel starts" "it said: $(log)"
}
# shoot PROGRAM: kill -9, wait for its successor
shoot() {
	local old
	wait_for 10 sealed "$1" || { not_ok "shoot $1" "there is none: $(log)"; return 1; }
	old=$pid
	kill -KILL "$old" 2>/dev/null
	wait_for 5 reaped "$old" || not_ok "shoot $1" "process $old is still there"
}
reaped() { [ ! -e /proc/"$1" ]; }
restarts() { sed -n "/\"name\": *\"$1\"/,/\"restarts\"/s/.*\"restarts\": *\([0-9]*\).*/\1/p" "$dir/m.json" 2>/dev/null; }
gone() {
	local p
	for p in $pids; do
		gone_one "$p" || return 1
	done
}
# shoot_all PROGRAM: as often as it may be restarted; then the payload is told to end
shoot_all() {
	local i
	for ((i = 0; i < DEVICE_RESTARTS; i++)); do
		pause
		shoot "$1"
	done
	wait_for 10 sealed "$1"
	pause
	printf q >&$type
	finish 60
}
# rounds_are_good CPUS: what blkloop has said in the end
rounds_are_good() { [[ $status = 0 && $(grep -c '^ok ' "$dir/out") -ge 3 ]] && ! grep -q '^not ok' "$dir/out" && grep -q "^rounds [0-9]* of $1 queues" "$dir/out"; }

# ---- insula-blk, several times, with one queue and with several

for cpus in 1 4; do
	what="insula-blk, $cpus queues"
	IN=$dir/type start blkloop looping --cpus $cpus --append seconds=120
	shoot_all insula-blk
	rounds_are_good $cpus
	holds "$what, $DEVICE_RESTARTS times: the guest does not notice" $? "status $status: $(grep '^not ok' "$dir/out"), $(log)"
	[ "$(restarts vda)" = $DEVICE_RESTARTS ]
	holds "$what: restarts are counted" $? "$(restarts vda)"
	[ "$(grep -c 'insula-blk vda was killed by signal 9' "$dir/err")" = $DEVICE_RESTARTS ]
	holds "$what: each death is told" $? "$(log)"
done

# ---- insula-blk on PCI: the guest looks at a queue when it has interrupted, and masks and unmasks meanwhile

for cpus in 1 4; do
	what="insula-blk on PCI, $cpus queues"
	IN=$dir/type start pciloop looping --bus pci --cpus $cpus --append rounds=0
	shoot_all insula-blk
	rounds_are_good $cpus
	holds "$what, $DEVICE_RESTARTS times: no interrupt is lost, all data is right" $? "status $status: $(grep '^not ok' "$dir/out"), $(log)"
	[ "$(restarts vda)" = $DEVICE_RESTARTS ]
	holds "$what: restarts are counted" $? "$(restarts vda)"
done

# ---- insula-blk with copy on write, engine by engine: requests of four queues meet in blocks of the base

head -c 4M /dev/urandom >"$dir/base.img"
base=$(sha256sum <"$dir/base.img")
for how in over.img discard over2.img,engine=threads; do
	what="insula-blk, overlay ${how#over*.img,}"
	[ "$how" = discard ] || how=$dir/$how
	DISK=base.img,overlay=$how IN=$dir/type start blkloop looping --cpus 4 --append "seconds=120 shift=3"
	shoot_all insula-blk
	rounds_are_good 4
	holds "$what, $DEVICE_RESTARTS times: the guest does not notice" $? "status $status: $(grep '^not ok' "$dir/out"), $(log)"
	[ "$(restarts vda)" = $DEVICE_RESTARTS ]
	holds "$what: restarts are counted" $? "$(restarts vda)"
done
[ "$(sha256sum <"$dir/base.img")" = "$base" ]
holds 'insula-blk with overlays: nobody has written to the base' $? 'it has changed'

# ---- insula-balloon: no page that the guest uses again is ever cut a second time

IN=$dir/type start balloonloop looping --mem 128M --balloon on
shoot_all insula-balloon
[[ $status = 0 && $(grep -c '^ok ' "$dir/out") = 3 ]] && ! grep -q '^not ok' "$dir/out"
holds "insula-balloon, $DEVICE_RESTARTS times: the guest does not notice" $? "status $status: $(grep '^not ok' "$dir/out"), $(log)"
[ "$(restarts balloon)" = $DEVICE_RESTARTS ]
holds 'insula-balloon: restarts are counted' $? "$(restarts balloon)"

# ---- both at once

IN=$dir/type start blkloop looping --append seconds=120
for _ in 1 2 3; do
	pause
	pid_of insula-console && kill -KILL $pid
	pid_of insula-blk && kill -KILL $pid
	sleep 0.1
	wait_for 10 sealed insula-console && wait_for 10 sealed insula-blk
	holds 'both helpers are back' $? "$(log)"
done
pause
printf q >&$type
finish 60
[ "$status" = 0 ] && said '^ok all_rounds'
holds 'both helpers at once: the guest does not notice' $? "status $status: $(grep '^not ok' "$dir/out"), $(log)"
[[ $(restarts vda) = 3 && $(restarts com1) = 3 ]]
holds 'both helpers: restarts are counted' $? "$(restarts vda) $(restarts com1)"

# ---- insula-console between two words

mkfifo "$dir/in"
sleep 120 >"$dir/in" &
keep_open=$!
IN=$dir/in start echo 'echo ready'
for word in first second third; do
	printf '%s' "$word" >"$dir/in"
	wait_for 10 said "$word"
	holds "insula-console: '$word' is echoed" $? "$(tail -n 2 "$dir/out") $(log)"
	shoot insula-console
	wait_for 10 sealed insula-console
done
printf q >"$dir/in"
finish 20
kill $keep_open
wait $keep_open 2>/dev/null
keep_open=
[ "$status" = 0 ] && said 'firstsecondthird' && said 'echo done'
holds 'insula-console: input and output go on' $? "status $status: $(cat "$dir/out") $(log)"
[ "$(restarts com1)" = 3 ]
holds 'insula-console: restarts are counted' $? "$(restarts com1)"

# ---- a helper that does not answer

for program in insula-blk insula-console; do
	start callloop looping --append seconds=$((6 * slow))
	wait_for 10 sealed $program
	stopped=$pid
	kill -STOP "$stopped"
	wait_for 5 logged "$program .*did not answer in time; it is killed and restarted"
	holds "$program stopped: noticed" $? "$(log)"
	wait_for 3 reaped "$stopped"
	holds "$program stopped: killed" $? "$(log)"
	wait_for 3 sealed $program
	holds "$program stopped: there is a new one" $? "$(log)"
	finish 30
	[ "$status" = 0 ] && said '^ok no_access_hangs' && said '^ok devices_work_in_the_end'
	holds "$program stopped: no vCPU hangs, the VM goes on" $? "status $status: $(grep -v looping "$dir/out" | tr '\n' '|') $(log)"
	ms=$(sed -n 's/^slowest \([0-9]*\).*/\1/p' "$dir/out")
	[ "${ms:-0}" -ge 1500 ]
	holds "$program stopped: the deadline was waited out" $? "${ms:-?} ms"
	grep -q '"timeouts": *1' "$dir/m.json"
	holds "$program stopped: counted" $? "$(grep timeouts "$dir/m.json")"
done

# ---- what cannot be started again

start blkloop looping --append seconds=$((30 * slow)) --vsock path="$dir/v.sock"
prlimit --pid "$run" --nofile=1000:1000 # insula-vsock needs more
pid_of insula-vsock && kill -KILL "$pid"
wait_for 20 logged 'insula-vsock.*: the device has failed, the guest is told'
holds 'no successor: the device has failed' $? "$(log)"
logged 'insula-vsock vsock: rlimits: RLIMIT_NOFILE'
holds 'no successor: the reason is told' $? "$(log)"
! ended && sealed insula-vmm && sealed insula-blk
holds 'no successor: the VM goes on' $? "$(log)"
kill -TERM "$run"
finish 5
[ "$status" = 143 ]
holds 'no successor: and ends as it is told' $? "status $status, $(log)"

start blkloop looping --append seconds=$((30 * slow))
prlimit --pid "$run" --nofile=8:8 # poll() has more entries: three of each process
pid_of insula-blk && kill -KILL "$pid"
wait_for 5 ended
holds 'insula-run cannot wait any more: the VM ends' $? "$(log)"
finish 5
[ "$status" = 125 ] && logged 'insula-run: it cannot wait any more: Invalid argument'
holds 'insula-run cannot wait any more: it says so' $? "status $status, $(log)"

# ---- insula-vmm, insula-run

start blkloop looping --append seconds=$((30 * slow))
pids=$(children)
pid_of insula-vmm && kill -KILL $pid
wait_for 1 ended && gone
holds 'insula-vmm: all gone within a second' $? "$(children)"
finish 10
[ "$status" = 125 ]
holds 'insula-vmm: status 125' $? "status $status"
[[ $(wc -l <"$dir/err") = 1 && $(cat "$dir/err") = 'insula-run: insula-vmm was killed by signal 9' ]]
holds 'insula-vmm: one clear line' $? "$(log)"

start blkloop looping --append seconds=$((30 * slow))
pids=$(children)
kill -KILL "$run"
wait_for 1 gone
holds 'insula-run: all gone within a second' $? "$(for p in $pids; do tr '\0' ' ' <"/proc/$p/cmdline"; done)"
wait "$run" 2>/dev/null
run=
flock -xn "$dir/disk.img" true
holds 'insula-run: the disk is free again' $? 'locked'
exit $failed
