#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What this machine's own /dev/kvm shows: start-up, the cost of an access by kind, memory. tests/bench/host.sh BUILD
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
build=$1
run=$build/bin/insula-run
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
truncate -s 64M "$dir/disk"

head_row "this machine's KVM, bare-metal payloads"

for _ in $(seq 15); do
	for b in off on; do
		timeout 30 "$run" --kernel "$build/guests/hello.elf" --disk "path=$dir/disk" --console none --balloon $b --metrics "$dir/m" </dev/null || true
		json "$dir/m" first_instruction_ns | awk '{ print $1 / 1e6 }' >>"$dir/first.$b"
	done
done
alone "exec to first guest instruction" "$(median <"$dir/first.off")" "<= 20 ms" " ms"
row "the same with a balloon / without" "$(median <"$dir/first.on")" "$(median <"$dir/first.off")" "" " ms"

# Several runs; the median of each run's medians.
for _ in 1 2 3 4 5; do
	timeout 60 "$run" --kernel "$build/guests/bench.elf" --disk "path=$dir/disk" </dev/null | tr -d '\r'
done >"$dir/bench"
khz=$(awk '/^tsc_khz/ { print $2; exit }' "$dir/bench")
us() { awk -v n="$1" '$1 == "bench" && $2 == n { print $3 }' "$dir/bench" | median | awk -v k="$khz" '{ print $1 * 1000 / k }'; }
bare=$(us bare_write)
row "posted port write / bare exit" "$(us posted_port)" "$bare" "<= 1.3" " us"
row "posted MMIO write / bare exit" "$(us posted_mmio)" "$bare" "" " us"
row "synchronous call, port / bare exit" "$(us sync_port)" "$bare" "<= 3" " us"
row "synchronous call, MMIO / bare exit" "$(us sync_mmio)" "$bare" "<= 3" " us"
row "doorbell (no user-space exit) / bare exit" "$(us doorbell)" "$bare" "" " us"
row "virtio register read (no exit) / bare exit" "$(us shadow_mmio)" "$bare" "" " us"

# Memory of a running VM: all processes, without the mappings of guest RAM.
pss() { # ARG...: MiB
	local pid sum
	"$run" --kernel "$build/guests/spin.elf" --disk "path=$dir/disk" --console none "$@" </dev/null >/dev/null 2>&1 &
	pid=$!
	sleep 3
	# shellcheck disable=SC2046
	sum=$(own_pss $pid $(cat /proc/$pid/task/*/children))
	kill -TERM $pid
	wait $pid || true
	awk -v k="$sum" 'BEGIN { print k / 1024 }'
}
alone "PSS without guest RAM: console, disk" "$(pss --rng off)" "<= 5 MiB" " MiB"
alone "PSS with a balloon as well" "$(pss --rng off --balloon on)" "" " MiB"
if ip tuntap add dev insula-bench mode tap 2>/dev/null; then
	alone "PSS with rng, vsock and a TAP as well" "$(pss --vsock path="$dir/v" --net tap=insula-bench)" "<= 6 MiB" " MiB"
	ip link del insula-bench
fi
