#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A reset that misses its deadline, because insula-blk is stopped (SIGSTOP): the next helper must not submit what was in flight before.
# A helper that does, does it in a race with its own look at the device page; so there are several VMs at once.
# BUILD names the build directory. One line per case: ok, not ok, skip.
set -u
SUITE=latereset
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
VMS=${LATERESET_VMS:-5}
dir=$(mktemp -d "${TMPDIR:-/tmp}/latereset.XXXXXX") || exit 1
vms=() failed=0
cleanup() {
	[ ${#vms[@]} = 0 ] || kill -KILL "${vms[@]}" 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
for ((i = 0; i < VMS; i++)); do
	mkdir "$dir/$i"
	truncate -s 1M "$dir/$i/disk"
	mkfifo "$dir/$i/in"
	exec {type[i]}<>"$dir/$i/in"
	"$BUILD/bin/insula-run" --kernel "$BUILD/guests/latereset.elf" --disk "path=$dir/$i/disk" --metrics "$dir/$i/m" --timeout 150 \
		<"$dir/$i/in" >"$dir/$i/out" 2>"$dir/$i/err" &
	vms[i]=$!
done
for ((i = 0; i < VMS; i++)); do
	for _ in $(seq 600); do
		grep -q '^stop it' "$dir/$i/out" && break
		kill -0 "${vms[i]}" 2>/dev/null || break
		sleep 0.1
	done
	helper=$(pgrep -P "${vms[i]}" -x insula-blk) && kill -STOP "$helper" || echo "not ok latereset/$i/stopped - no helper"
done
for ((i = 0; i < VMS; i++)); do
	printf . >&"${type[i]}"
done
for ((i = 0; i < VMS; i++)); do
	wait "${vms[i]}"
	status=$?
	sed -n -e "s|^ok |ok latereset/$i/|p" -e "s|^not ok |not ok latereset/$i/|p" "$dir/$i/out"
	if [ $status = 0 ] && grep -q '"timeouts": *[1-9]' "$dir/$i/m"; then
		echo "ok latereset/$i/end"
	else
		echo "not ok latereset/$i/end - status $status; $(tail -n 2 "$dir/$i/out" "$dir/$i/err" | tr '\n' '|')"
		failed=1
	fi
done
vms=()
exit $failed
