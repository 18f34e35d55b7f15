# SPDX-License-Identifier: BSD-2-Clause
# What the suites of this directory share. Sourced, with SUITE set: the name before each of its cases. BUILD names the build directory.
# Sets BUILD, HERE (this directory), RUN, GUESTS, failed (the status to exit with), slow and nap.
# shellcheck shell=bash disable=SC2034,SC2154
BUILD=$(cd "${BUILD:-build}" && pwd -P) || exit 1
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
RUN=$BUILD/bin/insula-run
GUESTS=$BUILD/guests
failed=0

ok() { echo "ok $SUITE/$1"; }
skip() { echo "skip $SUITE/$1 - $2"; }
not_ok() { echo "not ok $SUITE/$1 - ${2//$'\n'/ | }"; failed=1; } # on one line: each that begins so is a case
# holds NAME TRUTH DETAIL: TRUTH is the status of the test before it
holds() { if [ "$2" = 0 ]; then ok "$1"; else not_ok "$1" "${3:-no}"; fi; }
# same NAME WANT GOT
same() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected '$2', got '$3'"; fi; }
# verdict NAME WHY: WHY is empty if all is well
verdict() { if [ -z "$2" ]; then ok "$1"; else not_ok "$1" "$2"; fi; }

have_kvm() { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }
# Without it nothing is tried, and nothing fails.
need_kvm() { have_kvm || { skip all 'no access to /dev/kvm'; exit 0; }; }

# An emulated machine is slower than the limits were made for; so is a sanitizer.
slow=1
! grep -qs ' lab=' /proc/cmdline || slow=4
# Nothing ever comes from there: to wait on it starts no process.
exec {nap}<> <(:)
nap() { read -rt "$1" -u $nap; }
# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
	local end=$((SECONDS + $1 * slow))
	shift
	while ! "$@"; do
		[ $SECONDS -le $end ] || return 1
		nap 0.02
	done
	return 0
}
