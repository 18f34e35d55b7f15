# shellcheck shell=bash disable=SC2154,SC2094
# SPDX-License-Identifier: BSD-2-Clause
# Run suites and count their cases. Sourced by tests/check; tests/suites is its test. The caller sets
#   log       a file, for all that suites print
#   results   an empty file, for what total needs
#
# A suite prints `ok NAME`, `not ok NAME - why` or `skip NAME - why` lines (Check suites: TAP). One line per suite is shown, failures and skips
# in full, with up to 20 lines behind a failure that begin with #; `work` is the processor time of its processes, except of those that nobody
# waited for (VMs of insulad). A suite has one more failure if it ends badly without a `not ok`, if its status is above 1 (a signal, no end in
# time), or if it ran no case. Lines of several suites at once are written whole.
#
# Suites that failed can be run a second time, alone, by `again`: what then passes is called unsteady, in words at the end, and counts as passed.

# suite NAME SECONDS COMMAND...: run one suite and count its lines; $once: `again` leaves it out
suite() {
	local name=$1 limit=$2 out rc start=$SECONDS work TIMEFORMAT='%U %S'
	shift 2
	printf 'begun\t%s\n' "$name" >>"$results"
	out=$(mktemp)
	work=$( { time timeout -k 10 "$limit" "$@" >"$out" 2>&1 </dev/null; } 2>&1)
	rc=$?
	counted "$name" "$limit" "$out" $rc $((SECONDS - start)) "$(awk '{ printf "%d", $1 + $2 + 0.5 }' <<<"$work")" "$@"
}
# together PREFIX SECONDS NAME... -- COMMAND...: suites that `COMMAND... NAME...` runs one after the other. What it prints up to the line
# "# NAME: N s, work N s" is that suite's. Each is counted as PREFIX NAME, and when it runs again, it runs alone. SECONDS are for each.
together() {
	local prefix=$1 limit=$2 names=() name all out rc=0 took work status left=1
	# The lines behind the last suite's end
	local rest='/^# [^ ]+: [0-9]+ s, work [0-9]+ s$/ { lines = ""; next } { lines = lines $0 "\n" } END { printf "%s", lines }'
	shift 2
	for name; do
		shift
		[ "$name" != -- ] || break
		names+=("$name")
		printf 'begun\t%s\n' "$prefix$name" >>"$results"
	done
	all=$(mktemp)
	timeout -k 10 $((limit * ${#names[@]})) "$@" "${names[@]}" >"$all" 2>&1 </dev/null || rc=$?
	for name in "${names[@]}"; do
		out=$(mktemp)
		if read -r took work < <(sed -nE "s/^# $name: ([0-9]+) s, work ([0-9]+) s$/\1 \2/p" "$all"); then
			awk -v "name=$name" '/^# [^ ]+: [0-9]+ s, work [0-9]+ s$/ { if ($2 == name ":") { printf "%s", lines; exit } lines = ""; next }
				{ lines = lines $0 "\n" }' "$all" >"$out"
			status=0
			# How the machine ended is the last one's.
			if [ "$name" = "${names[-1]}" ]; then
				awk "$rest" "$all" >>"$out"
				[ $rc = 1 ] && grep -qa '^not ok ' "$all" || status=$rc
			fi
			[ $status != 0 ] || status=$(grep -acm 1 '^not ok ' "$out")
			counted "$prefix$name" "$limit" "$out" "$status" "$took" "$work" "$@" "$name"
			continue
		fi
		# The first one without an end is what it ended in, with what is left of the lines.
		[ -z "$left" ] || awk "$rest" "$all" >"$out"
		left=
		counted "$prefix$name" "$limit" "$out" $((rc ? rc : 1)) 0 0 "$@" "$name"
	done
	rm -f "$all"
}
# counted NAME LIMIT OUT STATUS SECONDS WORK COMMAND...: show and record what a suite has said; OUT is removed
counted() {
	local name=$1 limit=$2 out=$3 rc=$4 took=$5 work=$6 once=${once:-} p f s cases why=''
	shift 6
	p=$(grep -ac '^ok ' "$out")
	f=$(grep -ac '^not ok ' "$out")
	s=$(grep -ac '^skip ' "$out")
	cases=$((p + f))
	case $rc in
	0) [ $((p + f + s)) -gt 0 ] || why='no case ran' ;;
	1) [ "$f" -gt 0 ] || why='status 1' ;;
	124) why="no end after $limit s" ;;
	*) why="status $rc" ;;
	esac
	{
		flock 9
		{ echo "==== $name: $*"; cat "$out"; echo "==== $name: status $rc"; } >>"$log"
		shown 'not ok|skip' "$out"
		shown 'not ok' "$out" | failed "$name" >>"$results"
		if [ -n "$why" ]; then
			f=$((f + 1))
			why="not ok $name - $why; the last lines were:"$'\n'$(tail -n 12 "$out" | sed 's/^/    /')
			echo "$why"
			echo "$why" | failed "$name" >>"$results"
		fi
		printf '%-28s %4d passed, %d failed, %d skipped  (%d s, work %d s)\n' "$name" "$p" "$f" "$s" "$took" "$work"
		printf 'ended\t%s\t%d\t%d\t%d\t%d\n' "$name" "$p" "$f" "$s" "$cases" >>"$results"
		! grep -qaE 'Sanitizer|runtime error:' "$out" || once=1 # what they say is no matter of time
		[ "$f" -eq 0 ] || [ -n "${once:-}" ] || printf 'command\t%s\n' "$(printf '%q ' "$name" "$limit" "$@")" >>"$results"
	} 9<"$log"
	rm -f "$out"
	[ "$f" -eq 0 ]
}
# shown WHICH FILE: the lines of these results; behind a failure what the suite says of it, in lines that begin with #
shown() {
	awk -v "which=^($1) " '$0 ~ which { print; left = /^not ok/ ? 20 : 0; next } /^#/ && left-- > 0 { print; next } { left = 0 }' "$2"
}
# Records for total of lines that say what failed. They do not begin with `not ok` there: each failure has one such line.
failed() { # SUITE
	awk -v "name=$1" '{ print "failed\t" name "\t" (/^not ok / ? name ": " : "") $0 }'
}

# lane FUNCTION: suites one after the other, beside other lanes; if it dies, that is a failure
lane() {
	printf 'begun\tlane %s\n' "$1" >>"$results"
	"$1"
	printf 'ended\tlane %s\t0\t0\t0\t0\n' "$1" >>"$results"
}

# A step that passes or fails as a whole. It waits for nobody, so a second run would say the same.
step() {
	local name=$1 limit=$2 once=1
	shift 2
	# shellcheck disable=SC2016
	suite "$name" "$limit" bash -c '"$@" && echo "ok $0"' "$name" "$@"
}

# again MOST SECONDS: each suite that failed, once more, when no other runs; none if more than MOST failed, or SECONDS have passed, or the caller
# set CHECK_STRICT. A machine that is shared and emulates others fails a test of processes with deadlines now and then.
again() {
	local most=$1 seconds=$2 n what
	n=$(grep -c '^command' "$results")
	[ "$n" -gt 0 ] && [ -z "${CHECK_STRICT:-}" ] || return 0
	if [ "$n" -gt "$most" ] || [ $SECONDS -gt "$seconds" ]; then
		echo "---- $n suites failed, after $SECONDS s: none is run again (it is if at most $most failed, within $seconds s)"
		return
	fi
	echo "---- run again, alone:"
	while IFS= read -r what; do
		eval "set -- $what"
		printf 'again\t%s\n' "$1" >>"$results"
		once=1 suite "$@"
	done < <(sed -n 's/^command\t//p' "$results")
	return 0
}

# The end: what failed, once more, because a long log is often cut in the middle; then the sum. A suite that was begun and has no end (its
# lane died) is a failure. Status 1 if anything failed.
total() {
	awk -F '\t' '
		function say(line) {
			if (!said++) print "---- what failed:"
			print line
		}
		# What is known of a suite before it runs again.
		$1 == "again" {
			first[$2] = why[$2]
			p -= passed[$2]; f -= bad[$2]; s -= left[$2]
			least[$2] = cases[$2]
			why[$2] = ""
			next
		}
		$1 == "begun" { open[$2]++; if (!($2 in why)) { why[$2] = ""; order[n++] = $2 } }
		$1 == "failed" { name = $2; sub("failed\t[^\t]*\t", ""); why[name] = why[name] $0 "\n" }
		$1 == "ended" {
			open[$2]--
			p += $3; f += $4; s += $5
			passed[$2] = $3; bad[$2] = $4; left[$2] = $5; cases[$2] = $6
			if ($3 + $4 < least[$2]) {
				why[$2] = why[$2] $2 ": the second run had " $3 + $4 " cases, the first one " least[$2] "\n"
				f++
			}
		}
		END {
			for (i = 0; i < n; i++)
				if ((order[i] in first) && why[order[i]] == "" && !open[order[i]]) {
					if (!unsteady++) print "---- unsteady: these failed, and passed when their suite ran again, alone:"
					printf "%s", first[order[i]]
				}
			for (i = 0; i < n; i++) {
				if (why[order[i]] != "") say(substr(why[order[i]], 1, length(why[order[i]]) - 1))
				for (; open[order[i]] > 0; open[order[i]]--) {
					say(order[i] ": begun, and no end")
					f++
				}
			}
			printf "%d passed, %d failed%s\n", p, f, s ? ", " s " skipped" : ""
			exit f > 0
		}' "$results"
}
