#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Snapshots: tests/bench/snapshot.sh BUILD [ROUNDS]. Payloads on this machine's KVM; with LINUX=1 (in the lab) a Linux guest of 256 MiB.
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
build=$(realpath "$1")
rounds=${2:-15}
run=$build/bin/insula-run
export INSULA_SOCKET
T=$(mktemp -d)
INSULA_SOCKET=$T/s
ctl() { "$build/bin/insulactl" "$@"; }
insulad=
cleanup() {
	ctl pool rm bench >/dev/null 2>&1 || true
	for v in $(ctl ps -q 2>/dev/null); do ctl kill "$v" >/dev/null || true; done
	[ -z "$insulad" ] || kill "$insulad"
	rm -rf "$T"
}
trap cleanup EXIT
mkdir "$T/state"
"$build/bin/insulad" --state-dir "$T/state" --socket "$INSULA_SOCKET" 2>"$T/log" &
insulad=$!
until [ -S "$INSULA_SOCKET" ]; do sleep 0.1; done

# own NAME: private memory of a VM's processes, guest RAM included, MiB
own() {
	local p sum=0
	for p in $(ctl --json info "$1" | python3 -c 'import json,sys; v = json.load(sys.stdin); print(v["pid"], *[p["pid"] for p in v["processes"]])'); do
		sum=$((sum + $(awk '/^Private_Dirty:/ { n += $2 } END { print n + 0 }' "/proc/$p/smaps")))
	done
	# Guest memory is shared between the processes of one VM, and belongs to no other: what its file has.
	p=$(ctl --json info "$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)["pid"])')
	for f in /proc/"$p"/fd/*; do
		case $(readlink "$f") in */memfd:insula-guest*) sum=$((sum + $(stat -L -c %b "$f") / 2)) ;; esac
	done
	awk -v k=$sum 'BEGIN { print k / 1024 }'
}

# unchanged NAME SNAPSHOT: guest memory that a restored VM has, and how much of it is as the snapshot has it, MiB
unchanged() {
	local p f
	p=$(ctl --json info "$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)["pid"])')
	for f in /proc/"$p"/fd/*; do
		case $(readlink "$f") in */memfd:insula-guest*) break ;; esac
	done
	python3 - "$f" "$2/memory" <<-'EOP'
		import os, sys
		ram, saved = (os.open(f, os.O_RDONLY) for f in sys.argv[1:])
		have = same = at = 0
		while True:
		    try:
		        at = os.lseek(ram, at, os.SEEK_DATA)
		        end = os.lseek(ram, at, os.SEEK_HOLE)
		    except OSError:
		        break
		    for at in range(at, end, 4096):
		        have += 1
		        same += os.pread(ram, 4096, at) == os.pread(saved, 4096, at)
		    at = end
		print(have / 256, same / 256)
	EOP
}

head_row "snapshots"
if [ -z "${LINUX:-}" ]; then
	truncate -s 64M "$T/disk"
	vm=(--kernel "$build/guests/snap.elf" --mem 64M --disk "$T/disk,ro")
	ctl run -d --name source "${vm[@]}" >/dev/null
	sleep 1
	ctl snapshot source "$T/snap" >/dev/null
	ctl kill source >/dev/null
	for _ in $(seq "$rounds"); do
		for b in cold restored; do
			case $b in cold) a=("${vm[@]}") ;; *) a=(--restore "$T/snap") ;; esac
			echo q | timeout 30 "$run" "${a[@]}" --metrics "$T/m" >/dev/null || true
			json "$T/m" first_instruction_ns | awk '{ print $1 / 1e6 }' >>"$T/first.$b"
		done
	done
	cp -r --sparse=always "$T/snap" "$T/all" # with a working set of its own: all of the memory
	for _ in $(seq "$rounds"); do
		for b in cold restored; do
			case $b in cold) a=("${vm[@]}") ;; *) a=(--restore "$T/all") ;; esac
			printf mmq | timeout 60 "$run" "${a[@]}" >"$T/out" || true
			awk '/^reads/ { us = $2 } END { print us / 1000 }' "$T/out" >>"$T/reads.$b"
		done
	done
	row "restore / start to first instruction" "$(median <"$T/first.restored")" "$(median <"$T/first.cold")" "<= 1.3" " ms"
	row "200,000 random reads of its memory" "$(median <"$T/reads.restored")" "$(median <"$T/reads.cold")" "<= 1.05" " ms"
	python3 tests/bench/pool.py "$INSULA_SOCKET" "$T/snap" "$rounds" >"$T/pool" # cold, restored, pooled: milliseconds, a line each round
	for i in 1 2 3; do cut -d' ' -f$i "$T/pool" >"$T/run.$i"; done
	row "vm.run to a console byte, restored / started" "$(median <"$T/run.2")" "$(median <"$T/run.1")" "" " ms"
	row "vm.run to a console byte, pool / restored" "$(median <"$T/run.3")" "$(median <"$T/run.2")" "<= 0.5" " ms"
	ctl start source >/dev/null
	sleep 1
	for _ in $(seq "$rounds"); do
		ctl rpc vm.clone "{\"id\":\"source\",\"name\":\"c$RANDOM\"}" >"$T/c"
		json "$T/c" paused_us | awk '{ print $1 / 1e3 }' >>"$T/pause"
		ctl kill "$(json "$T/c" vms.0.id)" >/dev/null
	done
	alone "clone, 16 MiB of 64 in use: source paused" "$(median <"$T/pause")" "<= 5 ms" " ms"
	exit
fi

ctl run -d --name source --mem 256M -- >/dev/null
until ctl exec source true 2>/dev/null; do sleep 0.5; done
sleep 3
ctl snapshot source "$T/snap" >/dev/null
alone "size of the snapshot" "$(du -sm "$T/snap" | cut -f1)" "" " MiB"
alone "memory that the source has touched" "$(own source)" "" " MiB"
"$run" --restore "$T/snap" -- true </dev/null # writes the working set
for _ in $(seq "$rounds"); do
	timed cold "$run" --mem 256M -- true
	timed restored "$run" --restore "$T/snap" -- true
	ctl rpc vm.clone "{\"id\":\"source\",\"name\":\"c$RANDOM\"}" >"$T/c"
	json "$T/c" paused_us | awk '{ print $1 / 1e3 }' >>"$T/pause"
	id=$(json "$T/c" vms.0.id)
	sleep 2
	own "$id" >>"$T/own"
	ctl kill "$id" >/dev/null
done
ctl run -d --name idle --restore "$T/snap" >/dev/null
sleep 2
read -r have same < <(unchanged idle "$T/snap")
alone "guest memory of one restored, 2 s old" "$have" "" " MiB"
alone "of it as it is in the snapshot" "$same" "" " MiB"
ctl kill idle >/dev/null
row "restore / start, to the end of exec true" "$(median <"$T/restored")" "$(median <"$T/cold")" "<= 0.2" " ms"
row "clone: source paused / start" "$(median <"$T/pause")" "$(median <"$T/cold")" "<= 0.05" " ms"
alone "own memory of an idle clone, 2 s old" "$(median <"$T/own")" "<= 12 MiB" " MiB"
