#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Bare-metal payloads through insula-run on this machine's /dev/kvm: what they say themselves, how they end, consoles, metrics.
# BUILD names the build directory. One line per case: ok, not ok, skip.
set -u
SUITE=payload
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm

dir=$(mktemp -d "${TMPDIR:-/tmp}/payloads.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
truncate -s 8M "$dir/disk.img"

# vm PAYLOAD ARG...: run it; output in $dir/out and $dir/err, exit status in $status
vm() {
	local kernel=$GUESTS/$1.elf
	shift
	timeout -s KILL 60 "$RUN" --kernel "$kernel" "$@" <"${IN:-/dev/null}" >"$dir/out" 2>"$dir/err"
	status=$?
}
# ends NAME STATUS PATTERN: the last VM ended so, and its standard error is one line that matches (or nothing)
ends() {
	local why=
	[ "$status" = "$2" ] || why="status $status, expected $2;"
	if [ -z "$3" ]; then
		[ ! -s "$dir/err" ] || why="$why it said: $(head -c 300 "$dir/err")"
	else
		[ "$(wc -l <"$dir/err")" = 1 ] && grep -q "^insula-run: $3" "$dir/err" || why="$why it said: $(head -c 300 "$dir/err")"
	fi
	verdict "$1" "$why"
}
# results NAME STATUS: pass the payload's own lines on; it must have ended with STATUS and have had something to say
results() {
	sed -n -e "s|^ok |ok payload/$1/|p" -e "s|^skip |skip payload/$1/|p" -e "s|^not ok |not ok payload/$1/|p" "$dir/out"
	! grep -q '^not ok ' "$dir/out" || failed=1
	if [ "$status" != "$2" ] || ! grep -q '^ok ' "$dir/out"; then
		not_ok "$1/end" "status $status, expected $2; it ended with: $(tail -n 1 "$dir/out") $(tail -n 1 "$dir/err")"
	else
		ok "$1/end"
	fi
}
# says NAME PATTERN: a line of the output matches
says() { if grep -q -- "$2" "$dir/out"; then ok "$1"; else not_ok "$1" "no line '$2'; the last is '$(tail -n 1 "$dir/out")'"; fi; }
# number FILE PATH...: a number of the metrics, such as .exits.pio
number() {
	python3 -c '
import json, sys
v = json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."):
    v = v[int(k)] if isinstance(v, list) else v[k]
print(v)' "$1" "$2" 2>&1 | tail -n 1
}
have_python=1
python3 -c 'import json, select, termios' 2>/dev/null || have_python=0

# ---- both entries, memory, CPUs

for entry in '' -linux; do
	vm hello$entry
	ends "hello$entry: its exit status" 42 ''
	if [ -z "$entry" ]; then says "hello: entry" '(PVH)'; else says "hello$entry: entry" '(64-bit Linux boot protocol)'; fi
	for cpus in 1 4; do
		vm board$entry --cpus $cpus
		results "board$entry/$cpus-cpus" 0
	done
	for mem in 64:0x4000000 3100:0x101c00000 6144:0x1c0000000; do
		mib=${mem%%:*}
		vm mem$entry --mem "${mib}M"
		if [ $status = 2 ] && grep -q 'what this host has' "$dir/err"; then
			skip "mem$entry/${mib}M" 'the host has less'
			continue
		fi
		results "mem$entry/${mib}M" 0
		says "mem$entry/${mib}M/top" "^top ${mem##*:}$(printf '\r')*\$"
		ram=$(sed -n 's/^ram \([0-9]*\).*/\1/p' "$dir/out")
		[[ ${ram:-0} -gt $(((mib - 1) << 20)) && $ram -le $((mib << 20)) ]]
		holds "mem$entry/${mib}M/ram" $? "$ram bytes"
	done
	vm mem$entry --append 'one two=3 "four five"'
	says "mem$entry/command line" 'cmdline .*one two=3 "four five"'
done

# ---- processors that come and go

vm cpus --cpus 3,max=5 --mem 64M
results cpus 0
vm hello --cpus 3 --metrics "$dir/three.json"
vm hello --cpus 3,max=3 --metrics "$dir/three-max.json"
ends 'hello: max is no more than cpus' 42 ''
if [ $have_python = 1 ]; then
	# But for those that were canceled, which is how the end comes.
	asked() { number "$1" exits | sed -E "s/'(canceled|total)': [0-9]+,? ?//g"; }
	same=$(asked "$dir/three.json")
	[ "$same" = "$(asked "$dir/three-max.json")" ]
	holds 'max is no more than cpus: the same exits' $? "$same and $(asked "$dir/three-max.json")"
fi

# ---- devices

vm uart
results uart 0
burst=$(sed -n '/^burst begin/,/^burst end/p' "$dir/out" | sed '1d;$d' | tr -d '\r' | wc -c)
[ "$burst" = 10000 ]
holds 'uart/no byte of a burst is lost' $? "$burst of 10000 bytes"

vm blk --disk path="$dir/disk.img" --metrics "$dir/blk.json"
results blk 0
for how in ro direct; do
	vm blk --disk path="$dir/disk.img,$how,serial=S-$how"
	if [ $how = direct ] && [ $status = 2 ] && grep -q 'direct I/O is not possible' "$dir/err"; then
		skip blk-direct 'not on this file system'
	else
		results blk-$how 0
	fi
done
vm blk --disk path="$dir/disk.img" --cpus 4
results blk/4-cpus 0
says 'blk/4-cpus/a queue for each' '^queues 4'
# On one processor the I/O thread lets the guest run before it sleeps: a system call that the jail must know.
whole=$RUN
printf '#!/bin/sh\nexec taskset -c %s "%s" "$@"\n' "$(taskset -cp $$ | sed 's/.*: //; s/[^0-9].*//')" "$RUN" >"$dir/on-one"
chmod 755 "$dir/on-one"
RUN=$dir/on-one
vm blkloop --append seconds=1 --disk path="$dir/disk.img" --metrics "$dir/one.json"
RUN=$whole
results blkloop/one-processor 0
[ $have_python = 0 ] || [ "$(number "$dir/one.json" devices.1.restarts)" = 0 ]
holds 'blkloop/one-processor/no helper was killed' $? "$(number "$dir/one.json" devices.1)"
sum=$(sha256sum <"$dir/disk.img")
vm blk --disk path="$dir/disk.img,ro"
[ "$(sha256sum <"$dir/disk.img")" = "$sum" ]
holds 'blk-ro: nothing was written' $? 'the image has changed'
vm blk -v --disk path="$dir/disk.img,engine=threads" --metrics "$dir/m.json"
results blk/threads 0
grep -q 'vda: .*, threads' "$dir/err"
holds 'blk/threads: -v says it' $? "$(grep vda "$dir/err")"
grep -q '"engine": *"threads"' "$dir/m.json"
holds 'blk/threads: so do the metrics' $? "$(head -c 300 "$dir/m.json")"
vm evilblk --disk path="$dir/disk.img"
results evilblk 0
vm rng --metrics "$dir/m.json"
results rng 0
if [ $have_python = 1 ]; then
	[[ $(number "$dir/m.json" devices.1.name) = rng && $(number "$dir/m.json" devices.1.helper.bytes) -gt 4096 ]]
	holds 'rng: its counters' $? "$(number "$dir/m.json" devices.1.helper)"
fi
vm rng --rng rate=64K
results rng/slow 0
says 'rng/slow: the rate holds' '^rate held$'
vm rng --rng off
ends 'rng=off: no such device' 3 ''

# The guest waits when it has given 48 MiB back, and the memory's file is looked at: /proc/PID/fd of insula-run.
vm balloon
ends 'no --balloon: no such device' 3 ''
held() { # PID: MiB that guest memory takes on the host
	local f
	for f in /proc/"$1"/fd/*; do
		[ "$(readlink "$f")" != '/memfd:insula-guest (deleted)' ] || stat -L -c '%b' "$f"
	done | awk '{ print int($1 / 2048) }'
}
mkfifo "$dir/given"
exec {given}<>"$dir/given"
timeout -s KILL 60 "$RUN" --kernel "$GUESTS/balloon.elf" --mem 128M --balloon target=100M --metrics "$dir/m.json" <"$dir/given" >"$dir/out" 2>"$dir/err" &
run=$!
for _ in $(seq 600); do
	! grep -q '^given' "$dir/out" || break
	sleep 0.05
done
read -r pid _ <"/proc/$run/task/$run/children"
mib=$(held "$pid")
printf q >&$given
wait $run
status=$?
results balloon 0
[ "${mib:-99}" -le 24 ]
holds 'balloon: the host has 48 of 64 MiB back' $? "the guest has $mib MiB"
says 'balloon: the size that is asked for' "^asked for $((28 * 256)) pages\$"
if [ $have_python = 1 ]; then
	[[ $(number "$dir/m.json" devices.2.name) = balloon && $(number "$dir/m.json" devices.2.helper.reported_bytes) = $((56 << 20)) &&
		$(number "$dir/m.json" devices.2.helper.inflated_bytes) = $((4 << 20)) ]]
	holds 'balloon: its counters' $? "$(number "$dir/m.json" devices.2.helper)"
fi
vm balloon --mem 128M --balloon reports=off
says 'balloon/reports=off: not offered' '^not ok starts'

vm net
ends 'no --net: no card' 3 ''
if [ $have_python = 1 ]; then
	python3 "$HERE/netpeer.py" "$dir/peer" >"$dir/peer.out" 2>&1 &
	peer=$!
	for _ in $(seq 200); do
		[ ! -S "$dir/peer" ] || break
		sleep 0.05
	done
	vm net --net socket="$dir/peer" --metrics "$dir/m.json"
	results net 0
	[[ $(number "$dir/m.json" devices.1.name) = eth0 && $(number "$dir/m.json" devices.1.restarts) = 0 ]]
	holds 'net: one helper to the end' $? "$(number "$dir/m.json" devices.1)"
	kill -0 $peer
	holds 'net: never out of step' $? "$(cat "$dir/peer.out")"
	kill $peer 2>/dev/null
	wait $peer 2>/dev/null
else
	skip net 'no python3'
fi

# ---- metrics

if [ $have_python = 1 ]; then
	m=$dir/blk.json
	[ "$(number "$m" reason)/$(number "$m" status)" = status/0 ]
	holds 'metrics: how it ended' $? "$(head -c 200 "$m")"
	pio=$(number "$m" exits.pio) mmio=$(number "$m" exits.mmio) total=$(number "$m" exits.total)
	[[ $pio -gt 0 && $mmio -gt 0 && $total -ge $((pio + mmio)) ]]
	holds 'metrics: exits are counted' $? "$(number "$m" exits)"
	vda=$(number "$m" devices.1)
	[[ $(number "$m" devices.1.name) = vda && $(number "$m" devices.1.exits.shadow_reads) = 0 ]]
	holds 'metrics: no virtio register read exits' $? "$vda"
	[ "$(number "$m" devices.1.exits.doorbells)" = 0 ]
	holds 'metrics: no doorbell exits' $? "$vda"
	[[ $(number "$m" devices.1.helper.reads) -gt 300 &&
		$(number "$m" devices.1.helper.posted) = $(number "$m" devices.1.exits.posted) &&
		$(number "$m" devices.1.helper.calls) = $(number "$m" devices.1.exits.calls) ]]
	holds 'metrics: what the helper did' $? "$vda"
	first=$(number "$m" first_instruction_ns)
	[[ $first -gt 0 && $first -lt $(number "$m" run_ns) ]]
	holds 'metrics: first instruction' $? "$first ns"
else
	skip metrics 'no python3 with json'
fi

# ---- ends

vm reboot --metrics "$dir/m.json"
ends 'reboot: status 0' 0 ''
says 'reboot: it ran' '^reboot'
grep -q '"reason": *"reboot"' "$dir/m.json"
holds 'reboot: metrics' $? "$(cat "$dir/m.json")"
for way in keyboard cf9 firmware; do
	vm resets --append "$way"
	ends "reset by $way: status 0" 0 ''
	says "reset by $way: it ran" "^resets by $way"
	! grep '^not ok' "$dir/out"
	holds "reset by $way: registers" $? "$(grep -m 1 '^not ok' "$dir/out")"
done
vm poweroff
ends 'power off: status 0' 0 ''
vm pvpanic
ends 'guest panic: status 120' 120 'the guest kernel panicked$'
vm tfault
ends 'triple fault: status 121' 121 'the guest crashed: triple fault, vCPU 0\(, rip 0x10[0-9a-f]*\)\?$' # AMD forgets where
vm spin --timeout 1 --metrics "$dir/m.json"
ends 'timeout: status 124' 124 '--timeout: 1 second has passed$'
grep -q '"status": *124' "$dir/m.json"
holds 'timeout: metrics' $? "$(cat "$dir/m.json")"

# signal NAME SIGNAL STATUS: to insula-run, while the guest spins on CPUS CPUs
signal() {
	local pid
	rm -f "$dir/out" # or what the last VM said would count
	"$RUN" --kernel "$GUESTS/spin.elf" --cpus 2 </dev/null >"$dir/out" 2>"$dir/err" &
	pid=$!
	for _ in $(seq 200); do
		! grep -qs spinning "$dir/out" || break
		sleep 0.05
	done
	kill -"$2" $pid
	for _ in $(seq 100); do
		kill -0 $pid 2>/dev/null || break
		sleep 0.05
	done
	kill -KILL $pid 2>/dev/null && not_ok "$1" 'it did not end in 5 s'
	wait $pid
	status=$?
	ends "$1" "$3" ''
}
set -m # or SIGINT would be ignored in the background
signal 'SIGTERM: status 143' TERM 143
signal 'SIGINT: status 130' INT 130
signal 'SIGHUP: status 129' HUP 129
set +m

# ---- consoles

vm hello --console file="$dir/console.log"
ends 'console=file: status' 42 ''
grep -q '^Hello from' "$dir/console.log" && [ ! -s "$dir/out" ]
holds 'console=file: the text is there, and only there' $? "$(cat "$dir/out")"
vm hello --console file="$dir/console.log"
[ "$(grep -c '^Hello' "$dir/console.log")" = 2 ]
holds 'console=file: appended' $? "$(cat "$dir/console.log")"
size=$(stat -c %s "$dir/console.log")
vm hello --console file="$dir/console.log,limit=$((size + 5))"
[ "$status" = 42 ]
holds 'console=file at its limit: the VM goes on' $? "status $status"
[ "$(stat -c %s "$dir/console.log")" = $((size + 5)) ]
holds 'console=file at its limit: the file stops there' $? "$(stat -c %s "$dir/console.log"), it was $size"
[ "$(grep -c 'insula-console com1: warning: ' "$dir/err")" = 2 ] && grep -q "console's file has reached its limit" "$dir/err" &&
	grep -q '[0-9] bytes of output were dropped' "$dir/err"
holds 'console=file at its limit: said once, and counted' $? "$(cat "$dir/err")"
timeout -s KILL 60 "$RUN" --kernel "$GUESTS/hello.elf" </dev/null >/dev/full 2>"$dir/err"
[ $? = 42 ] && grep -q 'output is dropped: No space left on device' "$dir/err" && grep -q '[0-9] bytes of output were dropped' "$dir/err"
holds 'console on a full disk: said once, and counted' $? "$(cat "$dir/err")"
vm hello --console none
ends 'console=none: status' 42 ''
verdict 'console=none: silence' "$(cat "$dir/out")"
printf 'a line\nand \001 more q' >"$dir/in"
IN=$dir/in vm echo
ends 'console input from a file' 0 ''
says 'console input from a file: all of it' '^a line'
grep -q "$(printf 'and \001 more')" "$dir/out"
holds 'console input: an escape is only an escape on a terminal' $? "$(cat -v "$dir/out")"
mkfifo "$dir/pipe"
{ sleep 0.3; printf 'through a pipe'; sleep 0.3; printf q; } >"$dir/pipe" &
IN=$dir/pipe vm echo
wait $!
ends 'console input from a pipe' 0 ''
says 'console input from a pipe: all of it' 'through a pipe'
head -c 20000 /dev/zero | tr '\0' 'y' >"$dir/in"
echo q >>"$dir/in"
IN=$dir/in vm echo
count=$(tr -cd y <"$dir/out" | wc -c)
[ "$count" = 20001 ] # with that of "ready"
holds 'console input: 20000 bytes, none lost' $? "$count"

if [ $have_python = 1 ]; then
	on() { timeout -s KILL 60 python3 "$HERE/onpty.py" "$@" >"$dir/out" 2>"$dir/err"; status=$?; }
	on 'echo ready' 'abc' 'abc' '\x01x' -- "$RUN" --kernel "$GUESTS/echo.elf"
	ends 'terminal: Ctrl-A x ends the VM' 0 ''
	says 'terminal: restored' '^terminal restored'
	on 'echo ready' '\x01\x01z' '\x01z' 'q' -- "$RUN" --kernel "$GUESTS/echo.elf"
	ends 'terminal: Ctrl-A Ctrl-A is Ctrl-A' 0 ''
	on 'echo ready' '\x03\x1a\x1cz' 'z' 'q' 'echo done' '' -- "$RUN" --kernel "$GUESTS/echo.elf"
	ends 'terminal: Ctrl-C, Ctrl-Z and Ctrl-\ are the guest'\''s' 0 ''
	on 'spinning' '\x01x' -- "$RUN" --kernel "$GUESTS/spin.elf"
	ends 'terminal: Ctrl-A x when the guest does not listen' 0 ''

	rm -f "$dir/err"
	timeout -s KILL 60 "$RUN" --kernel "$GUESTS/echo.elf" --console pty </dev/null >"$dir/out" 2>"$dir/err" &
	pid=$!
	for _ in $(seq 200); do
		pty=$(sed -n 's/^console: //p' "$dir/err" 2>/dev/null)
		[ -z "$pty" ] || break
		sleep 0.05
	done
	timeout -s KILL 30 python3 "$HERE/onpty.py" 'echo ready' 'to the pty' 'to the pty' 'q' @ "${pty:-/nonexistent}" >"$dir/talk" 2>&1
	holds 'console=pty: typed and read' $? "$(cat "$dir/talk" "$dir/err")"
	wait $pid
	holds 'console=pty: status' $? "$(cat "$dir/err")"
else
	skip terminal 'no python3'
fi
exit $failed
