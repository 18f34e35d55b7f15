#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: output of a guest, in pieces of 4 KiB, over virtio-console and over the 16550, alternating. The guest's clock, from the first byte that
# it writes until the kernel has handed over the last. tests/bench/lab-console.sh BUILD [ROUNDS]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$1 rounds=${2:-3}
# shellcheck disable=SC1091
. tests/lab/lib.sh
set -eu

# once NAME BLOCKS FLAG...: append the bytes a second
once() {
	local name=$1 n=$2
	shift 2
	cat >"$T/in" <<-JOB
		stty -opost
		dd if=/dev/zero bs=256 count=1 2>/dev/null
		a=\$(cut -d' ' -f1 /proc/uptime); dd if=/dev/zero bs=4k count=$n 2>/dev/null; b=\$(cut -d' ' -f1 /proc/uptime)
		echo; echo "took \$a \$b"; exit
	JOB
	bounded "$RUN" --rng off "$@" <"$T/in" 2>&1 | tr -d '\r\0' >"$T/log"
	awk -v n="$n" '/^took [0-9]/ { printf "%.0f\n", n * 4096 / ($3 - $2) }' "$T/log" >>"$T/$name"
}
for _ in $(seq "$rounds"); do
	once virtio "${BLOCKS:-1000}" --console virtio
	once uart "${UART_BLOCKS:-4}"
done
head_row "lab, virtio-console / 16550"
row "console output, bytes/s" "$(median <"$T/virtio")" "$(median <"$T/uart")" ">= 10"
