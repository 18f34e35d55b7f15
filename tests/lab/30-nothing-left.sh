#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# However a VM ends, no process, mount, namespace, memory or temporary file of it remains.
. "$(dirname "$0")/lib.sh"
export XDG_CACHE_HOME=/dev/shm/cache.$$
trap 'rm -rf "$T" "$XDG_CACHE_HOME"' EXIT

shmem() { awk '$1 == "Shmem:" { print $2 }' /proc/meminfo; }

state() {
	ps -eo comm= | grep -c '^insula-' | sed 's/^/processes /'
	sort /proc/mounts | sed 's/ / mount /'
	lsns -no NS 2>/dev/null | sort | sed 's/^ */namespace /'
	# /tmp is the host's, where other suites work at the same time: only what is ours by name, and not theirs.
	find /run /dev/shm -mindepth 1 | sort
	find /tmp /var/tmp -maxdepth 1 -name '*insula*' | grep -vE '/insula(-lab|-wine|-test|-acpi|-conf|-image|\.)' | sort
	find /sys/fs/cgroup -mindepth 1 -type d | sort
}

# left NAME: compare with what was before; processes get three seconds to go.
left() {
	for _ in $(seq 30); do
		state >"$T/after"
		# A guest's memory is 64 MiB at the least once it has booted.
		if cmp -s "$T/before" "$T/after" && [ $(($(shmem) - before)) -lt 32768 ]; then
			ok "$1"
			return
		fi
		sleep 0.1
	done
	echo "shared memory: $before KiB before, $(shmem) after" >>"$T/after"
	diff "$T/before" "$T/after" >"$T/out"
	not_ok "$1" "not as before: $(grep '^[<>]' "$T/out" | head -n 4 | paste -sd' ')"
}

# start ARGS...: a VM in the background whose command runs; sets pid.
start() {
	"$RUN" "$@" >"$T/out" 2>&1 </dev/null &
	pid=$!
	for _ in $(seq 300); do
		grep -q running "$T/out" && return 0
		kill -0 $pid 2>/dev/null || break
		sleep 0.1
	done
	not_ok start "the guest did not come up"
	return 1
}

"$RUN" -- true </dev/null >/dev/null 2>&1     # the initrd is in the cache now
state >"$T/before"
before=$(shmem)

"$RUN" -- true </dev/null >"$T/out" 2>&1
left after-a-command

for sig in TERM INT KILL; do
	start -- sh -c 'echo running; sleep 1000' || continue
	kill -$sig $pid
	wait $pid 2>/dev/null
	left after-SIG$sig
done

start -- sh -c 'echo running; sleep 1000' && {
	kill -KILL "$(pgrep -x insula-vmm | head -n 1)"
	wait $pid
	status=$?
	if [ $status = 125 ]; then ok vmm-killed-is-125; else not_ok vmm-killed-is-125 "status $status"; fi
	left after-the-core-was-killed
}

"$RUN" --timeout 3 -- sleep 1000 </dev/null >"$T/out" 2>&1
left after-a-timeout

expect bad-kernel 2 'neither a bzImage nor an ELF' "$RUN" --kernel /etc/passwd -- true
left after-a-bad-kernel
expect bad-disk 2 'nowhere' "$RUN" --disk path=/nowhere -- true
left after-a-bad-disk

# Killed at any moment of its start, the initrd not being there yet.
for ms in 5 20 40 80 160; do
	rm -rf "$XDG_CACHE_HOME"
	"$RUN" -- sleep 1000 </dev/null >"$T/out" 2>&1 &
	pid=$!
	sleep "$(printf '0.%03d' $ms)"
	kill -KILL $pid
	wait $pid 2>/dev/null
done
"$RUN" -- true </dev/null >/dev/null 2>&1
left after-being-killed-while-starting
