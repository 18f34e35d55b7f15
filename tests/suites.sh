# shellcheck shell=bash disable=SC2154,SC2094
# SPDX-License-Identifier: BSD-2-Clause
# Run suites and count their cases. Sourced by tests/check; tests/suites is its test. The caller sets
#   log       a file, for all that suites print
#   results   an empty file, for what total needs
#
# A suite prints `ok NAME`, `not ok NAME - why` or `skip NAME - why` lines (Check suites: TAP). One line per suite is shown, failures and skips
# in full; `work` is the processor time of its processes, except of those that nobody waited for (VMs of insulad). A suite has one more failure if
# it ends badly without a `not ok`, if its status is above 1 (a signal, no end in time), or if it ran no case. Lines of several suites at once are
# written whole.

# suite NAME SECONDS COMMAND...: run one suite and count its lines
suite() {
	local name=$1 limit=$2 out rc p f s why='' start=$SECONDS work TIMEFORMAT='%U %S'
	shift 2
	printf 'begun\t%s\n' "$name" >>"$results"
	out=$(mktemp)
	work=$( { time timeout -k 10 "$limit" "$@" >"$out" 2>&1 </dev/null; } 2>&1)
	rc=$?
	work=$(awk '{ printf "%d", $1 + $2 + 0.5 }' <<<"$work")
	p=$(grep -ac '^ok ' "$out")
	f=$(grep -ac '^not ok ' "$out")
	s=$(grep -ac '^skip ' "$out")
	case $rc in
	0) [ $((p + f + s)) -gt 0 ] || why='no case ran' ;;
	1) [ "$f" -gt 0 ] || why='status 1' ;;
	124) why="no end after $limit s" ;;
	*) why="status $rc" ;;
	esac
	{
		flock 9
		{ echo "==== $name: $*"; cat "$out"; echo "==== $name: status $rc"; } >>"$log"
		grep -aE '^(not ok|skip) ' "$out"
		grep -a '^not ok ' "$out" | failed "$name" >>"$results"
		if [ -n "$why" ]; then
			f=$((f + 1))
			why="not ok $name - $why; the last lines were:"$'\n'$(tail -n 12 "$out" | sed 's/^/    /')
			echo "$why"
			echo "$why" | failed "$name" >>"$results"
		fi
		printf '%-28s %4d passed, %d failed, %d skipped  (%d s, work %d s)\n' "$name" "$p" "$f" "$s" $((SECONDS - start)) "$work"
		printf 'ended\t%s\t%d\t%d\t%d\n' "$name" "$p" "$f" "$s" >>"$results"
	} 9<"$log"
	rm -f "$out"
	[ "$f" -eq 0 ]
}
# Records for total of lines that say what failed. They do not begin with `not ok` there: each failure has one such line.
failed() { # SUITE
	awk -v "name=$1" '{ print "failed\t" (/^not ok / ? name ": " : "") $0 }'
}

# A step that passes or fails as a whole.
step() {
	local name=$1 limit=$2
	shift 2
	# shellcheck disable=SC2016
	suite "$name" "$limit" bash -c '"$@" && echo "ok $0"' "$name" "$@"
}

# The end: what failed, once more, because a long log is often cut in the middle; then the sum. A suite that was begun and has no end (its
# lane died) is a failure. Status 1 if anything failed.
total() {
	awk -F '\t' '
		function say(line) {
			if (!said++) print "---- what failed:"
			print line
		}
		$1 == "begun" { open[$2]++ }
		$1 == "failed" { sub("failed\t", ""); say($0) }
		$1 == "ended" { open[$2]--; p += $3; f += $4; s += $5 }
		END {
			for (name in open)
				for (; open[name] > 0; open[name]--) {
					say(name ": begun, and no end")
					f++
				}
			printf "%d passed, %d failed%s\n", p, f, s ? ", " s " skipped" : ""
			exit f > 0
		}' "$results"
}
