#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insula-oci with real guests, from the command line: a bundle of busybox.
. "$(dirname "$0")/lib.sh"
for c in $(cat /sys/fs/cgroup/cgroup.controllers); do
	echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control
done
ROOT=/run/oci-test B=$T/b
OCI=("$BUILD/bin/insula-oci" --root "$ROOT")
oci() { "${OCI[@]}" "$@"; }
make_root "$B/rootfs"
for a in sleep ps stty hostname true; do
	ln -s busybox "$B/rootfs/bin/$a"
done
bundle() { # JQ-FILTER
	rm -f "$B/config.json"
	oci spec -b "$B"
	jq '.process.terminal = false | '"$1" "$B/config.json" >"$T/new" && mv "$T/new" "$B/config.json"
}
left() {
	same "$1-nothing-left" '0 0 0' "$(find "$ROOT" -mindepth 1 2>/dev/null | wc -l) $(grep -c "$ROOT" /proc/self/mounts) $(pgrep -c insula-)"
}

bundle '.process.args = ["sh", "-c", "echo hello; hostname; echo $$; exit 42"]'
expect run 42 '^hello' "${OCI[@]}" run -b "$B" c
also run-host-name '^insula'
also run-first-process '^1$'
left run

bundle '.process.args = ["sh", "-c", "trap \"echo term; exit 7\" TERM; echo up; while :; do sleep 0.1; done"] | .root.readonly = false'
oci create -b "$B" --pid-file "$T/pid" c >"$T/streams" 2>&1 </dev/null
same create 0 $?
same created created "$(oci state c | jq -r .status)"
same nothing-runs-before-start '' "$(cat "$T/streams")"
expect start 0 '' "${OCI[@]}" start c
pid=$(cat "$T/pid")
same running "running $pid" "$(oci state c | jq -r '"\(.status) \(.pid)"')"
expect exec 5 '^in' "${OCI[@]}" exec c sh -c 'echo in; exit 5'
same exec-input hello "$(echo hello | oci exec c cat)"
expect exec-sees-the-container 0 'trap' "${OCI[@]}" exec c ps
expect exec-missing 127 'executable file not found' "${OCI[@]}" exec c no-such-program
expect exec-directory 126 'is a directory: permission denied' "${OCI[@]}" exec c /etc
expect pause 0 '' "${OCI[@]}" pause c
expect resume 0 '' "${OCI[@]}" resume c
expect update 0 '' "${OCI[@]}" update --pids-limit 77 c
same events stats "$(oci events --stats c | jq -r .type)"
same writes-reach-the-bundle yes "$(oci exec c sh -c 'echo yes >/tmp/written' && cat "$B/rootfs/tmp/written")"
oci kill c TERM
for _ in $(seq 200); do
	[ "$(oci state c | jq -r .status)" != stopped ] || break
	sleep 0.1
done
same kill-was-passed-on 'up term' "$(tr '\n' ' ' <"$T/streams" | sed 's/ $//')"
expect delete 0 '' "${OCI[@]}" delete c
left delete
expect no-bundle 1 'config.json' "${OCI[@]}" create -b "$T" c
left no-bundle
