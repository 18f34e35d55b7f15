#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The other end of --net socket=PATH goes away and comes back, on this machine's /dev/kvm: the card lives on with its link down; a VM
# starts without its switch; many VMs behind one switch that is away cost no processor time. BUILD names the build directory, SWITCH_VMS
# how many VMs (8), SWITCH_SECONDS how long the switch is away (3). One line per case: ok, not ok, skip.
set -u
SUITE=link
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
vms=${SWITCH_VMS:-8} seconds=${SWITCH_SECONDS:-3}

if ! python3 -c 'import json, selectors' 2>/dev/null; then
	skip all 'no python3'
	exit 0
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/link.XXXXXX") || exit 1
peer='' runs=()
trap '{ kill -KILL $peer "${runs[@]}"; wait; } 2>/dev/null; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

start_peer() {
	rm -f "$dir/switch"
	python3 "$HERE/netpeer.py" "$dir/switch" >"$dir/peer.out" 2>&1 &
	peer=$!
	wait_for 20 test -S "$dir/switch"
}
stop_peer() {
	kill -KILL $peer
	wait $peer 2>/dev/null
	peer=
}
# vm NAME ARG...: in the background; $dir/NAME.out, $dir/NAME.err
vm() {
	local name=$1
	shift
	"$RUN" --kernel "$GUESTS/netlink.elf" --mem 16M --net socket="$dir/switch" --rng off "$@" </dev/null >"$dir/$name.out" 2>"$dir/$name.err" &
	runs+=($!)
}
# printed NAME N TEXT: so often, or more often. A switch that dies can still take a connection, and the link is up for a moment.
printed() { [ "$(tr -d '\r' <"$dir/$1.out" | grep -cx "$3")" -ge "$2" ]; }
helper() { pgrep -P "$1" -x insula-net; }
number() {
	python3 -c '
import json, sys
v = [d for d in json.load(open(sys.argv[1]))["devices"] if d["name"] == "eth0"][0]
for k in sys.argv[2].split("."): v = v[k]
print(v)' "$1" "$2"
}

# ---- a switch that restarts

start_peer
vm restart --append ups=3 --metrics "$dir/m"
run=${runs[0]}
wait_for 20 printed restart 1 echo
holds 'frames pass' $? "$(cat "$dir/restart.out" "$dir/restart.err")"
before=$(helper "$run")
for n in 1 2; do
	stop_peer
	wait_for 20 printed restart $n 'link down'
	holds "the link is down ($n)" $? "$(cat "$dir/restart.out" "$dir/restart.err")"
	[ -n "$before" ] && [ "$(helper "$run")" = "$before" ]
	holds "the same process serves it ($n)" $? "$before, now $(helper "$run")"
	start_peer
	wait_for 30 printed restart $((n + 1)) echo
	holds "up again, and frames pass ($n)" $? "$(cat "$dir/restart.out" "$dir/restart.err")"
done
wait "$run"
holds 'everything was answered all the time' $? "$(cat "$dir/restart.out")"
[ "$(number "$dir/m" restarts)" = 0 ]
holds 'a lost peer is no crash' $? "$(number "$dir/m" restarts) restarts"
[ "$(number "$dir/m" helper.tx_dropped)" -gt 0 ]
holds 'what was sent meanwhile is counted' $? "$(number "$dir/m" helper)"
downs=$(grep -c 'the link is down$' "$dir/restart.err") ups=$(grep -c 'the link is up$' "$dir/restart.err")
! grep -q 'restarted' "$dir/restart.err" && [ "$downs" -ge 2 ] && [ "$downs" = "$ups" ]
holds 'it is said' $? "$(cat "$dir/restart.err")"

# ---- a helper that is killed while the switch is away; a VM that starts then

vm killed --append ups=2
wait_for 20 printed killed 1 echo
stop_peer
wait_for 20 printed killed 1 'link down'
kill -KILL "$(helper "${runs[1]}")"
wait_for 20 grep -q 'restarted, carries on' "$dir/killed.err"
holds 'a new process starts without the switch' $? "$(cat "$dir/killed.err")"
vm early --append ups=1
wait_for 20 printed early 1 'link down'
holds 'a VM starts without the switch' $? "$(cat "$dir/early.out" "$dir/early.err")"
start_peer
for n in 1 2; do
	wait "${runs[$n]}"
	holds "and goes on with it ($n)" $? "$(cat "$dir/killed.out" "$dir/early.out" "$dir/killed.err" "$dir/early.err")"
done
rm -f "$dir/none"
"$RUN" -n --kernel "$GUESTS/netlink.elf" --net socket="$dir/none" >"$dir/out" 2>&1
[ $? = 2 ] && grep -q 'No such file' "$dir/out"
holds 'a path where nothing is is refused' $? "$(cat "$dir/out")"

# ---- passt on a host without an uplink

# offline: passt takes a while to find that it cannot run. VMs that last are ended by the timeout.
if command -v passt >/dev/null && unshare -n true 2>/dev/null; then
	unshare -n "$RUN" -n --kernel "$GUESTS/netlink.elf" --net user,fwd=tcp:8080:80 >"$dir/out" 2>&1
	holds 'no uplink: -n' $? "$(cat "$dir/out")"
	unshare -n "$RUN" -v --kernel "$GUESTS/netlink.elf" --net user,fwd=tcp:8080:80 --timeout $((3 * slow)) --append halt </dev/null >"$dir/out" 2>&1
	[ $? = 124 ] && grep -q 'no default route' "$dir/out" && ! grep -q 'link is down' "$dir/out"
	holds 'no uplink: passt serves the guest' $? "$(cat "$dir/out")"
else
	skip 'no uplink' 'no passt, or not root'
fi

# ---- many

# connections: of the switch, without its socket that listens
connections() { [ "$(find /proc/"$peer"/fd -lname 'socket:*' 2>/dev/null | wc -l)" -gt "$vms" ]; }
all_halted() { [ "$(grep -l '^halted' "$dir"/many*.out 2>/dev/null | wc -l)" = "$vms" ]; }
all_down() { [ "$(grep -l 'the link is down$' "$dir"/many*.err | wc -l)" = "$vms" ]; }
# used_us: processor time of all supervisors and cards so far, in microseconds
used_us() {
	local p f t=0 ns rest
	for p in "${many[@]}" $(for p in "${many[@]}"; do helper "$p"; done); do
		for f in /proc/"$p"/task/*/schedstat; do
			read -r ns rest <"$f" && t=$((t + ns / 1000))
		done
	done 2>/dev/null
	echo $t
}
for i in $(seq "$vms"); do
	vm "many$i" --append halt
done
many=("${runs[@]:3}")
wait_for $((30 + vms)) all_halted && wait_for $((10 + vms)) connections
holds "$vms VMs behind one switch" $? "$(cat "$dir"/many*.err | sort | uniq -c | head -5)"
stop_peer
wait_for $((10 + vms)) all_down
holds 'all notice that it is away' $? "$(cat "$dir"/many*.err | sort | uniq -c | head -5)"
before=$(used_us)
sleep "$seconds"
used=$(($(used_us) - before))
most=$((vms * seconds * 5000 * slow)) # half a percent of a processor each; a VM that polls every millisecond takes 1 to 2
echo "# $vms VMs without their switch for $seconds s: $used us of processor time, at most $most"
[ "$before" -gt 0 ] && [ $used -le $most ]
holds 'a switch that is away costs no processor time' $? "$used us, at most $most"
start_peer
wait_for $((20 + vms)) connections
holds 'all come back' $? "$(cat "$dir"/many*.err | sort | uniq -c | head -5)"
exit $failed
