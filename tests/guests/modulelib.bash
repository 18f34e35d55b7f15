# SPDX-License-Identifier: BSD-2-Clause
# What the suites of storage modules share. Sourced, with these set: SUITE, its name; MODULE, or empty if its program is the
# host's; BUILD, RUN, GUESTS.
# shellcheck shell=bash disable=SC2034,SC2154,SC2317
# shellcheck source=tests/guests/lib.bash
. "$(dirname "${BASH_SOURCE[0]}")/lib.bash"
need_kvm
if [ -n "$MODULE" ] && [ ! -x "$BUILD/libexec/insula/modules/$MODULE" ]; then
	not_ok all "the module $MODULE was not built: no lib$MODULE-dev"
	exit 1
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/$SUITE.XXXXXX") || exit 1
chmod 755 "$dir"
servers=()
run='' server=''
cleanup() {
	local p
	for p in $run "${servers[@]}"; do kill -KILL "$p" 2>/dev/null; done
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
mkfifo "$dir/nap" "$dir/type"
exec {type}<>"$dir/type"
listens() { ss -xlH | grep -q "LISTEN.* $1 "; }
# serve COMMAND...: a server in the background; sets server
serve() {
	"$@" >>"$dir/servers" 2>&1 &
	server=$!
	servers+=("$server")
}
gone() { kill -KILL "$server" 2>/dev/null; wait "$server" 2>/dev/null; }

# vm NAME PAYLOAD ARG...: run it to its end, which must be good; its lines are cases
vm() {
	local name=$1 payload=$2 status
	shift 2
	timeout -s KILL 60 "$RUN" --kernel "$GUESTS/$payload.elf" "$@" </dev/null >"$dir/out" 2>"$dir/err"
	status=$?
	grep -q '^not ok ' "$dir/out" && sed -n "s|^not ok |not ok $SUITE/$name/|p" "$dir/out" && failed=1
	[ $status = 0 ] && grep -q '^ok ' "$dir/out"
	holds "$name" $? "status $status; it ended with: $(tail -n 1 "$dir/out") $(tail -n 1 "$dir/err")"
}
# refused NAME TEXT DISK: status 2, and one line with that text
refused() {
	local status
	timeout -s KILL 30 "${4:-$RUN}" --kernel "$GUESTS/hello.elf" --disk "$3" </dev/null >"$dir/out" 2>"$dir/err"
	status=$?
	[ $status = 2 ] && [ "$(wc -l <"$dir/err")" = 1 ] && grep -qF -- "$2" "$dir/err"
	holds "refused/$1" $? "status $status: $(head -c 300 "$dir/err" | tr '\n' '|')"
}

children() { local f; for f in /proc/"$run"/task/*/children; do cat "$f"; done 2>/dev/null; }
module_pid() {
	local p
	pid=
	for p in $(children); do
		[ "$(tr -d '\0' 2>/dev/null <"/proc/$p/cmdline")" != $MODULE ] || pid=$p
	done
	[ -n "$pid" ]
}
looping() { grep -q ^looping "$dir/out"; }
# sealed DISK: its jail, from outside: a descriptor of the module is a socket for its connection and one for the channel, and nothing of a
# file. The guest still works then: run, pid.
sealed() {
	local ns open
	: >"$dir/out"
	"$RUN" --kernel "$GUESTS/blkloop.elf" --append seconds=20 --disk "$1" </dev/null >"$dir/out" 2>"$dir/err" &
	run=$!
	wait_for 10 looping && module_pid
	[ "$(awk '/^(NoNewPrivs|Seccomp|CapEff|CapBnd):/ {printf "%s ", $2}' "/proc/$pid/status")" = '0000000000000000 0000000000000000 1 2 ' ]
	holds jail/sealed $? "$(grep -E 'NoNewPrivs|Seccomp|Cap' "/proc/$pid/status" | tr '\n' ' ')"
	for ns in net mnt pid ipc; do [ "$(readlink "/proc/$pid/ns/$ns")" != "$(readlink "/proc/self/ns/$ns")" ] || not_ok "jail/$ns" 'shared'; done
	[ -z "$(find "/proc/$pid/root/" -mindepth 1 2>&1 | head -n 1)" ]
	holds jail/root $? "$(find "/proc/$pid/root/" -mindepth 1 2>&1 | head -n 3)"
	# Standard input, output and error, the channel, one connection; events.
	open=$(find "/proc/$pid/fd" -type l -printf '%l\n' | sed -E 's/[0-9]+//g' | sort | uniq -c | awk '{print $1 ":" $2}' | tr '\n' ' ')
	grep -qE '2:socket:\[\] $' <<<"$open" && ! grep -qE ':/[^ ]*' <<<"${open//:\/dev\/null/}"
	holds 'jail/one connection, and no file' $? "$open"
}
sealed_over() { kill -KILL "$run"; wait "$run" 2>/dev/null; run=''; }

# load NAME KILLER APPEND DISK [LINE]: the guest works while KILLER is called again and again, for its time or until it has said LINE
load() {
	local n=0 status
	while read -rt 0.01 -u $type; do :; done # what the one before has not read
	: >"$dir/out"
	"$RUN" --kernel "$GUESTS/blkloop.elf" --cpus 2 --append "$3" --disk "$4" <"$dir/type" >"$dir/out" 2>"$dir/err" &
	run=$!
	wait_for 20 looping || not_ok "$1/began" "$(tail -n 1 "$dir/err")"
	while kill -0 "$run" 2>/dev/null; do
		nap "0.$((RANDOM % 7 + 2))"
		kill -0 "$run" 2>/dev/null && $2 && n=$((n + 1))
		[ -z "${5-}" ] || ! grep -q "^$5" "$dir/out" || echo x >&$type
	done
	wait "$run"
	status=$?
	run=''
	sed -n "s|^not ok |not ok $SUITE/$1/|p" "$dir/out"
	[ $status = 0 ] && grep -q '^ok all_rounds' "$dir/out" && [ $n -gt 0 ]
	holds "$1" $? "status $status, $n deaths: $(tail -n 2 "$dir/err" | tr '\n' '|')"
}
deaths=0
kill_module() {
	# Fewer than RESTART_TELL.
	[ $((deaths++)) -lt 8 ] && module_pid && kill -KILL "$pid" 2>/dev/null
}
