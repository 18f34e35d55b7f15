#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# kill -9 of insula-blk under a guest that reads, writes and verifies with fio: the guest sees no error, nothing that was acknowledged is
# lost, nothing is answered twice. Then several jobs at once, whose blocks the host verifies in the image after the VM has ended.
# At the end the same with copy on write over an ext4: what one VM wrote the next one has, and the base has nothing of it.
# BLK_KILLS: how often the helper is killed in each part (3; CHECK_LONG=1: 6, and twice as much is written).
. "$(dirname "$0")/lib.sh"
export XDG_CACHE_HOME=$T/cache

make_root "$T/root"
root_program "$T/root" fio
truncate -s 48M "$T/disk"
KILLS=${BLK_KILLS:-$(short 3 6)}
disk=path=$T/disk all=

# Writes with checksums all over the disk, each read back; every block carries what fio expects to find there.
job=(fio --name=v --filename=/dev/vda --direct=1 --ioengine=psync --rw=randwrite --bs=4k --size=48M "--io_size=$(short 6 16)M" --numjobs=1
	--verify=crc32c --verify_fatal=1 --verify_backlog=256 --do_verify=1 --fsync=64 --randseed=7)
deep=(fio --name=d --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite --bs=8k --size=48M "--io_size=$(short 20 48)M"
	--verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=8)

# helpers PID: the insula-blk processes of this VM, the first disk's first
helpers() { pgrep -P "$1" -x insula-blk | sort -n; }

killing() { # NAME FIO...: run it in a guest and kill its disk's helper again and again, each time when the next one has served for a while
	local name=$1 pid status kills=0 restarts resubmitted errors killed
	shift
	"$RUN" --disk "$disk" --rootfs "$T/root" ${all:+--rootfs-size 32M} --metrics "$T/m" --timeout 240 -- "$@" >"$T/out" 2>&1 </dev/null &
	pid=$!
	# Until the guest is at work there is nothing to disturb.
	for _ in $(seq 150); do
		grep -qE 'Starting|fio-' "$T/out" && break
		kill -0 $pid 2>/dev/null || break
		sleep 0.2
	done
	sleep 0.5
	while kill -0 $pid 2>/dev/null && [ $kills -lt "$KILLS" ]; do
		for h in $(helpers $pid); do
			kill -9 "$h" 2>/dev/null && kills=$((kills + 1))
			killed=$h
			[ "$all" ] || break
		done
		while kill -0 $pid 2>/dev/null && [[ " $(helpers $pid | tr '\n' ' ')" = *" $killed "* ]]; do sleep 0.1; done
		sleep 0.4
	done
	wait $pid
	status=$?
	restarts=$(python3 -c 'import json,sys; print(sum(d["restarts"] for d in json.load(open(sys.argv[1]))["devices"]))' "$T/m")
	errors=$(python3 -c 'import json,sys; print(sum(d["helper"].get("errors", 0) for d in json.load(open(sys.argv[1]))["devices"]))' "$T/m")
	resubmitted=$(python3 -c 'import json,sys; print(sum(d["helper"].get("resubmitted", 0) for d in json.load(open(sys.argv[1]))["devices"]))' "$T/m")
	echo "# $name: $kills kills, $restarts restarts, $resubmitted requests submitted again by the last helper"
	if [ $status -ne 0 ]; then
		not_ok "$name" "status $status"
	elif grep -qE 'verify: bad|err= *[1-9]|I/O error' "$T/out"; then
		not_ok "$name" "the guest saw an error"
	else
		ok "$name"
	fi
	if [ "$restarts" -ge 2 ] && [ "$errors" -eq 0 ]; then
		ok "$name-restarted"
	else
		not_ok "$name-restarted" "$kills kills, $restarts restarts, $errors errors"
	fi
}

killing verify-each "${job[@]}"
killing verify-deep "${deep[@]}"

# Four jobs, each with a part of a quarter of the disk, write every block of that once, in a random order, and flush at the end. The guest verifies
# nothing: the host has fio do it with the image, when no insula-blk is there any more.
truncate -s 0 "$T/disk"
truncate -s 48M "$T/disk"
jobs=("--size=$(short 7 12)M" --offset_increment=12M --numjobs=4 --bs=4k --randseed=9 --verify=crc32c --verify_fatal=1)
killing host-verifies fio --name=h --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --do_verify=0 --end_fsync=1 "${jobs[@]}"
if fio --name=h --filename="$T/disk" --ioengine=psync --rw=randwrite --verify_only=1 "${jobs[@]}" >"$T/out" 2>&1; then
	ok host-verifies-image
else
	not_ok host-verifies-image "the image has not what was acknowledged"
fi

# ---- copy on write

mkdir -p "$T/root/mnt" "$T/files"
head -c 100000 /dev/urandom >"$T/files/old"
for a in cmp cp mount umount sync; do ln -sf busybox "$T/root/bin/$a"; done
mke2fs -q -F -t ext4 -d "$T/files" "$T/base" 48M >/dev/null
base=$(sha256sum <"$T/base")
# Requests of 1 to 7 KiB: most of them have a part of a block of the base.
disk=path=$T/base,overlay=$T/over
all=1 # the disk's, and those of the root
killing overlay sh -c 'mount -t ext4 /dev/vda /mnt && fio --name=o --filename=/mnt/new --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite \
	--bsrange=1k-7k --bs_unaligned=0 --blockalign=1k --size=16M --io_size='"$(short 7 12)"'M --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=128 --randseed=10 &&
	cp /mnt/old /mnt/copy && umount /mnt'
expect overlay-next-vm 0 '^same$' "$RUN" --disk "$disk" --rootfs "$T/root" --rootfs-size 32M -- \
	sh -c 'mount -t ext4 /dev/vda /mnt && cmp /mnt/old /mnt/copy && [ -s /mnt/new ] && echo same'
expect overlay-discard 0 '^only the old one$' "$RUN" --disk "path=$T/base,overlay=discard" --rootfs "$T/root" --rootfs-size 32M -- \
	sh -c 'mount -t ext4 /dev/vda /mnt && [ ! -e /mnt/new ] && cp /mnt/old /mnt/copy && sync && echo only the old one'
if [ "$(sha256sum <"$T/base")" = "$base" ]; then ok overlay-base-unchanged; else not_ok overlay-base-unchanged "the base has changed"; fi
