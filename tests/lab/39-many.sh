#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# podman with insula-oci: many containers one after the other, and some at once: none fails, and nothing of them is left. MANY_RUNS and
# MANY_AT_ONCE say how many: 10 and 4; the long run is 100 and 20. MANY_NETWORK is podman's --network: none.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/podman.sh"
runs=${MANY_RUNS:-10} at_once=${MANY_AT_ONCE:-4} network=${MANY_NETWORK:-none}
podman_setup
# One emulated processor does not boot so many guests within the minute that each has otherwise.
mkdir -p /etc/insula
echo '{"boot_timeout": 900}' >/etc/insula/oci.json
podman_image bb

one() { # NAME: a short container; its words and its status
	local got status=0
	got=$(timeout 1700 podman run --rm --network "$network" --memory 128m bb sh -c "echo $1; exit 3" 2>&1 </dev/null) || status=$?
	[ "$status $got" = "3 $1" ] || echo "$1: $status: $got" >>"$T/wrong"
}
shmem() { awk '/^Shmem:/ { print $2 }' /proc/meminfo; }
: >"$T/wrong"
one first
before=$(shmem)
for i in $(seq "$runs"); do one "run-$i"; done
same "runs-$runs" '' "$(cat "$T/wrong")"
podman_nothing_left runs
pids=()
for i in $(seq "$at_once"); do
	one "beside-$i" &
	pids+=($!)
done
wait "${pids[@]}"
same "at-once-$at_once" '' "$(cat "$T/wrong")"
podman_nothing_left at-once
# The memory of guests counts as shared memory; so do podman's storage and its list of events, some KiB a run.
more=$(($(shmem) - before))
if [ $more -lt $((16384 + 128 * (runs + at_once))) ]; then ok "memory # $more KiB more"; else not_ok memory "$more KiB more"; fi
podman_end
