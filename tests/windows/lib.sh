# SPDX-License-Identifier: BSD-2-Clause
# For the tests of the Windows programs under wine; sourced. $build, $here (tests) and $t are set by whoever does.
# shellcheck shell=bash disable=SC2034
bin=$build/windows/test-bin
guests=$build/guests
failed=0

ok() { echo "ok $1"; }
not_ok() { echo "not ok $1 - ${2//$'\n'/ | }"; failed=1; } # on one line: each that begins so is a case
# verdict NAME WHY: WHY is empty if all is well
verdict() { if [ -z "$2" ]; then ok "$1"; else not_ok "$1" "$2"; fi; }

# exe DIRECTORY ARGUMENT...: insula-run.exe of that build; $t/wout, $t/werr without carriage returns and without the lines that say that
# nobody is contained, which are counted in $bare; the status in $wrc. Now and then, on a busy machine, a process that wine makes ends before
# its loader has begun, and CreateProcess() says ERROR_INTERNAL_ERROR (1359); or, if it is insula-run.exe itself, wine ends with status 1 and
# not one line. That is no program's of ours (insula-run says why it ends), and it is said and done once more.
exe() {
	local dir=$1
	shift
	for _ in 1 2 3; do
		timeout -k 5 120 "$here/whp-double/wine" "$build" "$dir/insula-run.exe" "$@" <"${IN:-/dev/null}" >"$t/wout" 2>"$t/wraw"
		wrc=$?
		tidy
		grep -q 'start: error 1359$' "$t/werr" || { [ $wrc = 1 ] && [ "$bare" = 0 ] && [ ! -s "$t/wraw" ] && [ ! -s "$t/wout" ]; } || break
		echo "wine could not make a process, once more: $(tail -n 1 "$t/werr")"
	done
}
# The services that wine begins for itself write to the same stream. One of them faults now and then, in the ntoskrnl.exe of Debian's wine,
# which lies at 0x31ca90000 and is no program's of ours: such a line is said, and is not part of the output.
tidy() {
	local own='^wine: Unhandled page fault .* at address 000000031C(A[9A-F]|B[0-9A-C])[0-9A-F]{4} '
	bare=$(grep -c 'TEST BUILD, NOT CONTAINED' "$t/wraw")
	grep -v 'TEST BUILD, NOT CONTAINED' "$t/wraw" | tr -d '\r' >"$t/werr"
	grep -E "$own" "$t/werr" && sed -i -E "/$own/d" "$t/werr"
	true
}
