#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# podman, unchanged, with insula-oci as its runtime: each container of an image of busybox is a VM.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/podman.sh"
podman_setup
podman_image bb sleep
run=(podman run --network none)

expect run 7 '^in a VM' "${run[@]}" --rm bb sh -c 'echo in a VM; exit 7'
expect missing 127 'No such file|not found' "${run[@]}" --rm bb no-such-program
expect limits 0 '^268435456' "${run[@]}" --rm --memory 256m --cpus 1 bb cat /sys/fs/cgroup/memory.max
expect restricted 0 '^CapEff:.0000000000000000' "${run[@]}" --rm --read-only --user 1000:1000 --cap-drop all bb sh -c 'touch /x; id; cat /proc/self/status'
also read-only 'Read-only file system'
also user 'uid=1000'
expect detached 0 '' "${run[@]}" -d --name d bb sh -c 'trap "echo term; exit 3" TERM; echo up; while :; do sleep 1; done'
expect exec 5 '^out' podman exec d sh -c 'echo out; exit 5'
expect logs 0 '^up' podman logs d
echo data >"$T/file"
podman cp "$T/file" d:/tmp/file
expect cp-in 0 '^data' podman exec d cat /tmp/file
podman cp d:/etc/marker "$T/marker"
same cp-out 'this is the root' "$(cat "$T/marker")"
expect stop 0 '' podman stop -t 60 d
same stop-status 3 "$(podman inspect d --format '{{.State.ExitCode}}')"
expect start-again 0 '' podman start d
expect kill 0 '' podman kill d
podman wait d >/dev/null
same kill-status 137 "$(podman inspect d --format '{{.State.ExitCode}}')"
expect rm 0 '' podman rm d
same nothing-left '0 0 0' "$(find /run/insula-oci -mindepth 1 2>/dev/null | wc -l) $(grep -c insula /proc/self/mounts) $(pgrep -c insula-)"
podman_end
