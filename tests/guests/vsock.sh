#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The vsock device with a bare-metal driver, correct and hostile, and what a VM without a path may not reach. BUILD names the build
# directory. One line per case: ok, not ok, skip.
set -u
SUITE=vsock
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
PEER=$BUILD/tests/vsockpeer

dir=$(mktemp -d "${TMPDIR:-/tmp}/vsock.XXXXXX") || exit 1
echo7=
cleanup() {
	[ -z "$echo7" ] || kill "$echo7" 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

"$PEER" echo "unix:$dir/s_7" &
echo7=$!
ln -s "$dir/s_7" "$dir/s_6"
"$RUN" --kernel "$BUILD/guests/vsock.elf" --vsock "path=$dir/s" --metrics "$dir/m" --timeout 100 >"$dir/out" 2>"$dir/err" </dev/null &
vm=$!
for _ in $(seq 300); do
	grep -q '^listening' "$dir/out" && break
	kill -0 $vm 2>/dev/null || break
	sleep 0.1
done
said=$(timeout 30 "$PEER" load "fc:$dir/s:9" 3 30000 1 2>&1)
case $said in *'all came back'*) ok client ;; *) not_ok client "$said" ;; esac
wait $vm
status=$?
sed -n -e 's|^ok |ok vsock/|p' -e 's|^not ok |not ok vsock/|p' "$dir/out"
! grep -q '^not ok ' "$dir/out" || failed=1
why=
[ $status = 0 ] || why="status $status; $(tail -n 1 "$dir/out") $(tail -n 1 "$dir/err")"
verdict end "$why"
why=
[ ! -e "$dir/s" ] || why='the socket is still there'
verdict socket-removed "$why"
why=$(python3 - "$dir/m" <<'END'
import json, sys
d = [d for d in json.load(open(sys.argv[1]))["devices"] if d["name"] == "vsock"][0]
h = d["helper"]
if not (d["restarts"] == 0 and h["connections"] > 10 and h["bad_packets"] >= 6 and h["credit_stalls"] >= 1 and h["resets"] > 20):
    print(d)
END
)
verdict metrics "$why"

# Bad input: one line, status 2, nothing made.
bad() { # NAME PATTERN VALUE
	"$RUN" --kernel "$BUILD/guests/hello.elf" --vsock "$3" >"$dir/out" 2>"$dir/err" </dev/null
	status=$?
	why=
	[ $status = 2 ] || why="status $status;"
	[ "$(wc -l <"$dir/err")" = 1 ] && grep -q "^insula-run: --vsock: $2" "$dir/err" || why="$why it said: $(head -c 200 "$dir/err")"
	[ ! -e "$dir/x" ] || why="$why it made the socket"
	verdict "$1" "$why"
}
touch "$dir/file"
bad bad/no-path "'cid=5'; expected .path=.FILE" cid=5
bad bad/empty-path 'empty' path=
bad bad/cid-2 "cid '2'; expected a number from 3" "path=$dir/x,cid=2"
bad bad/cid-any "cid '4294967295'" "path=$dir/x,cid=4294967295"
bad bad/unknown "'color=red'" "path=$dir/x,color=red"
bad bad/directory 'path .*; expected the path of a socket' "path=$dir/"
bad bad/no-directory '.*No such file' "path=$dir/none/x"
bad bad/file-there '.*something else is there' "path=$dir/file"
bad bad/in-use '.*in use' "path=$dir/s_7"
bad bad/symlink '.*something else is there' "path=$dir/s_6"
exit $failed
