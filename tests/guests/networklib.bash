# SPDX-License-Identifier: BSD-2-Clause
# What the suites of programs that have a network share. Sourced, behind modulelib.bash.
# shellcheck shell=bash disable=SC2154,SC2317
log() { tail -n 3 "$dir/err" | tr '\n' '|'; }
listens_tcp() { ss -tlnH "sport = :$1" | grep -q .; }
# broken NAME TEXT DISK: status 125, and the program has the last word
broken() {
	local status
	timeout -s KILL 60 "$RUN" --kernel "$GUESTS/hello.elf" --disk "$3" </dev/null >"$dir/out" 2>"$dir/err"
	status=$?
	[ $status = 125 ] && grep -qF -- "$2" "$dir/err"
	holds "broken/$1" $? "status $status: $(log)"
}
# program: sets pid to that of qemu-storage-daemon
program() {
	local p
	pid=
	for p in $(children); do
		[ "$(tr '\0' '\n' <"/proc/$p/cmdline" | head -n 1)" != qemu-storage-daemon ] || pid=$p
	done 2>/dev/null
	[ -n "$pid" ]
}
old=
again() { program && [ "$pid" != "$old" ]; }
kill_program() {
	[ $((deaths++)) -lt 5 ] && wait_for 10 again || return 1
	old=$pid
	kill -KILL "$old" 2>/dev/null
}
