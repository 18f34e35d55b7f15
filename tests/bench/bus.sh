#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Virtio devices on PCI against the same on MMIO, in alternating runs of one program: the ratio is PCI / MMIO. tests/bench/bus.sh BUILD [ROUNDS]
#
# Bare-metal payloads: start-up, what one access costs, reads of a disk without interrupts. With LINUX=1 (in the lab, where this machine's KVM
# boots no Linux): boots to their end, exits, fio in the guest on null_blk. PREFIX: words before insula-run, such as 'chrt -r 10'.
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$(realpath "$1") rounds=${2:-5}
# shellcheck disable=SC1091
. tests/lab/lib.sh
set -eu
buses='mmio pci'
turns() { if [ $(($1 % 2)) = 0 ]; then echo "$buses"; else echo pci mmio; fi; } # ROUND: each is first as often as the other
# pair NAME FIGURE [UNIT]: the medians of $T/FIGURE.pci and $T/FIGURE.mmio
pair() { row "$1" "$(median <"$T/$2.pci")" "$(median <"$T/$2.mmio")" "" "${3:-}"; }
vda() { json "$T/m" devices | python3 -c 'import ast, sys
d = [x for x in ast.literal_eval(sys.stdin.read()) if x["name"] == "vda"][0]
for k in sys.argv[1].split("."):
    d = d[k]
print(d)' "$1"; }

payloads() {
	local b i khz
	truncate -s 64M "$T/disk"
	mkfifo "$T/type"
	exec {type}<>"$T/type"
	for i in $(seq "$rounds"); do
		for b in $(turns "$i"); do
			bounded ${PREFIX:-} "$RUN" --bus "$b" --kernel "$BUILD/guests/hello.elf" --disk "path=$T/disk" --console none --metrics "$T/m" </dev/null >"$T/out" 2>&1 || true
			json "$T/m" first_instruction_ns | awk '{ print $1 / 1e6 }' >>"$T/first.$b"
			bounded ${PREFIX:-} "$RUN" --bus "$b" --kernel "$BUILD/guests/bench.elf" --disk "path=$T/disk" </dev/null 2>&1 | tr -d '\r' >"$T/out"
			khz=$(awk '/^tsc_khz/ { print $2 }' "$T/out")
			awk -v k="$khz" -v to="$T/bench" -v b=$b '$1 == "bench" { print $3 * 1000 / k >>(to "." $2 "." b) }' "$T/out"
			printf q >&"$type"
			bounded ${PREFIX:-} "$RUN" --bus "$b" --kernel "$BUILD/guests/queueload.elf" --disk "path=$T/disk" --append 'seconds=2 bytes=4096' <"$T/type" >"$T/out" 2>&1
			awk '$1 == "queue" { print $3 / 2 }' "$T/out" >>"$T/reads.$b"
		done
	done
	head_row "bare-metal payloads, PCI / MMIO"
	pair "exec to first guest instruction" first " ms"
	pair "register read (no exit)" bench.shadow_mmio " us"
	pair "address of a queue written" bench.posted_mmio " us"
	pair "synchronous call" bench.sync_mmio " us"
	pair "doorbell (no user-space exit)" bench.doorbell " us"
	pair "4 KiB reads, depth 16, without interrupts, a second" reads
}

# One boot: milliseconds of the whole process, exits of its vCPU.
boot() { # BUS
	local t0
	t0=$(now_ns)
	bounded ${PREFIX:-} "$RUN" --bus "$1" --mem 128M --kernel "$kernel" --initrd "$T/boot.initrd" --disk "path=$T/root.img,ro" --metrics "$T/m" </dev/null >"$T/out" 2>&1 &&
		grep -q all-well "$T/out" || { echo "boot on $1: $(tail -n 2 "$T/out")"; return 1; }
	echo $((($(now_ns) - t0) / 1000000)) >>"$T/boot.$1"
	json "$T/m" exits.total >>"$T/exits.$1"
	json "$T/m" exits.mmio >>"$T/mmio.$1"
	vda exits.calls >>"$T/calls.$1"
}
command_run() { # BUS
	local t0
	t0=$(now_ns)
	bounded ${PREFIX:-} "$RUN" --bus "$1" --mem 128M --kernel "$kernel" -- /bin/true </dev/null >"$T/out" 2>&1 || { echo "command on $1: $(tail -n 2 "$T/out")"; return 1; }
	echo $((($(now_ns) - t0) / 1000000)) >>"$T/command.$1"
}
disk_run() { # BUS
	bounded ${PREFIX:-} "$RUN" --bus "$1" --mem 256M --kernel "$kernel" --initrd "$T/disk.initrd" --disk "path=/dev/nullb0,direct" --disk "path=$T/root.img,ro" --rng off \
		--metrics "$T/m"
}

linux() {
	local b i f name
	kernel=$(echo "$BUILD"/guest/boot/vmlinuz-*)
	modprobe null_blk nr_devices=1 gb=1 memory_backed=1 max_sectors=1024 irqmode=1
	timeout 120 dd if=/dev/zero of=/dev/nullb0 bs=1M count=256 oflag=direct conv=nocreat status=none
	make_root "$T/root"
	root_program "$T/root" fio
	for f in timeout seq cut; do
		ln -s busybox "$T/root/bin/$f"
	done
	bench_fio >"$T/root/bin/job"
	cat >>"$T/root/bin/job" <<-'JOB'
		dev=/dev/vda
		pass() {
			one latency 16 15 --rw=randread --bs=4k --iodepth=1
			one reads 8 15 --rw=randread --bs=4k --iodepth=32
			one writes 49 56 --rw=randwrite --bs=4k --iodepth=32
			one stream 7 15 --rw=read --bs=1M --iodepth=8
		}
		pass >/dev/null 2>&1
		pass
		pass
	JOB
	chmod 755 "$T/root/bin/job"
	mke2fs -q -F -t ext4 -d "$T/root" "$T/root.img" 128M >/dev/null 2>&1
	bench_initrd "$T/boot.initrd" "test -b /dev/vda && echo all-well" virtio_mmio virtio_pci virtio_blk
	bench_initrd "$T/disk.initrd" "$(bench_root /dev/vdb)" virtio_mmio virtio_pci virtio_blk ext4
	export XDG_CACHE_HOME=$T/cache
	for i in $(seq 0 "$rounds"); do # round 0 warms the caches
		for b in $(turns "$i"); do
			boot "$b"
			command_run "$b"
			[ "$i" -gt 0 ] || rm -f "$T"/{boot,exits,mmio,calls,command}."$b"
		done
	done
	for i in $(seq "$rounds"); do
		for b in $(turns "$i"); do
			measured "$T/fio.$b" 8 disk_run "$b" || true
			vda helper.interrupts >>"$T/interrupts.$b"
			vda helper.reads >>"$T/served.$b"
		done
	done
	for b in $buses; do
		[ $(($(cat "$T/fio.$b" 2>/dev/null | wc -l) / 8 * 2)) -ge "$rounds" ] || { echo "$b: too few boots have figures; these are none"; return 1; }
		for name in latency reads writes stream; do
			awk -v n=$name '$1 == n { print $2 }' "$T/fio.$b" >"$T/$name.$b"
		done
		paste "$T/interrupts.$b" "$T/served.$b" | awk '{ print $1 / $2 }' >"$T/each.$b"
	done
	head_row "a Debian kernel, 1 vCPU, PCI / MMIO"
	pair "boot to exit, disk and random numbers" boot " ms"
	pair "insula-run -- /bin/true" command " ms"
	pair "user-space exits of the boot" exits
	pair "of them memory-mapped" mmio
	pair "of them calls of the disk" calls
	pair "4 KiB random reads, depth 1: latency" latency " us"
	pair "4 KiB random reads, depth 32, IOPS" reads
	pair "4 KiB random writes, depth 32, IOPS" writes
	pair "1 MiB sequential reads, KiB/s" stream
	pair "interrupts for each request" each
}

if [ -n "${LINUX:-}" ]; then linux; else payloads; fi
