# SPDX-License-Identifier: BSD-2-Clause
# A VM in the background whose processes are killed: found, waited for, ended. Sourced after lib.bash, by suites that set dir, and run when
# they start one with its output in $dir/out and $dir/err.
# shellcheck shell=bash disable=SC2034,SC2154

# pid_of PROGRAM: sets pid, of a child of insula-run. It sets argv[0] itself, /proc/PID/exe would need privilege.
pid_of() {
	local f c p name
	pid=
	for f in /proc/"$run"/task/*/children; do
		c=
		read -r c <"$f"
		for p in $c; do
			name=
			IFS= read -r -d '' name <"/proc/$p/cmdline"
			[ "$name" != "$1" ] || pid=$p
		done
	done 2>/dev/null
	[ -n "$pid" ]
}
# sealed PROGRAM: it is there, and in its jail
sealed() {
	local key value rest
	pid_of "$1" || return 1
	while read -r key value rest; do
		[ "$key $value" != 'Seccomp: 2' ] || return 0
	done 2>/dev/null <"/proc/$pid/status"
	return 1
}
# gone_one PID: no such process, or one that nobody has waited for yet (the shell itself does that when it likes)
gone_one() {
	local key value rest
	while read -r key value rest; do
		[ "$key" != State: ] || break
	done 2>/dev/null <"/proc/$1/status"
	case ${value-} in '' | Z | X) ;; *) return 1 ;; esac
}
ended() { gone_one "$run"; }
said() { grep -qs -- "$1" "$dir/out"; }
log() { tail -n 4 "$dir/err" | tr '\n' '|'; }
pause() { nap "0.$((RANDOM % 7 + 1))"; }
# finish SECONDS: wait for the end; $status
finish() {
	if ! wait_for "$1" ended; then
		kill -KILL "$run"
		not_ok 'it ends' "not after $1 s: $(log)"
	fi
	wait "$run" 2>/dev/null
	status=$?
	run=
}
