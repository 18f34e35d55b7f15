#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A disk while the guest changes what is around it: discards of all sizes beside verified writes, many flushes, schedulers and queue depths
# switched, a processor taken away and given back, polled requests, read-only and back. The guest looks at what it reads, and the host at what
# is in the files afterwards.
#
# STRESS_SECONDS (1): how long each job that has no end of its own runs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../bench/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
seconds=${STRESS_SECONDS:-1}

# What the guest writes and does not look at, for the host to verify: the same arguments on both sides.
proof="--name=proof --ioengine=psync --rw=randwrite --bs=4k --offset=40M --size=1M --verify=crc32c --randseed=11"

make_root "$T/root"
root_program "$T/root" fio
for a in blockdev blkdiscard cmp head kill printf sed sleep tail tr; do
	ln -sf busybox "$T/root/bin/$a"
done
cat >"$T/root/bin/job" <<JOB
#!/bin/sh
seconds=$seconds proof="$proof"
JOB
cat >>"$T/root/bin/job" <<'JOB'
mount -t sysfs sys /sys
fio() { command fio --eta=never "$@"; }
queue=/sys/block/vda/queue
say() { echo "CASE $*"; }
verdict() { # NAME STATUS: the last lines of the job's output say why
	if [ "$2" = 0 ]; then
		say "ok $1"
	else
		say "not ok $1 - status $2"
		tail -n 6 /tmp/out | sed 's/^/CASE #   /'
	fi
}
# Verified writes all over a part of the disk, for the given time.
busy="fio --name=busy --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=4k --verify=crc32c --verify_fatal=1 --verify_backlog=64
	--time_based --runtime=$seconds --output=/tmp/out"
begin() { # ARGUMENTS: busy, in the background
	$busy "$@" &
	job=$!
}
works() { kill -0 $job 2>/dev/null; }
finish() { # NAME
	wait $job
	verdict "$1" $?
}

# Discards of 4 KiB to 4 GiB on one disk, small ones on the lower half of the other, beside writes on its upper half.
fio --name=large --filename=/dev/vdc --rw=randtrim --norandommap --bsrange=4k-4g --time_based --runtime=$seconds --output=/tmp/large &
large=$!
fio --name=small --filename=/dev/vda --size=32M --rw=randtrim --norandommap --bsrange=4k-1m --time_based --runtime=$seconds --output=/tmp/small &
small=$!
begin --offset=32M --size=8M
finish writes-beside-discards
wait $large
verdict discards-to-4g $?
wait $small
verdict discards $?
tr '\0' x </dev/zero | head -c $((8 << 20)) | dd of=/dev/vda bs=1M iflag=fullblock conv=fsync 2>/tmp/out && blkdiscard -l $((8 << 20)) /dev/vda 2>>/tmp/out &&
	echo 3 >/proc/sys/vm/drop_caches && head -c $((8 << 20)) /dev/vda | cmp -n $((8 << 20)) - /dev/zero >>/tmp/out 2>&1
verdict discarded-reads-as-zeros $?

# Each write with a flush of its own, from many sides; then with O_DSYNC, which on a disk without FUA is a flush as well.
fio --name=flush --filename=/dev/vda --size=32M --thread --numjobs=16 --rw=randwrite --norandommap --bs=4k --fsync=1 --number_ios=$((16 * seconds)) --output=/tmp/out
verdict flushes $?
fio --filename=/dev/vda --direct=1 --sync=dsync --do_verify=0 --output=/tmp/out $proof
verdict synchronous-writes $?

begin --size=32M
n=0
while works; do
	for s in $(tr -d '[]' <$queue/scheduler); do
		for r in 4 256 32; do
			echo "$s" >$queue/scheduler && echo $r >$queue/nr_requests && n=$((n + 1))
			sleep 0.1
		done
	done
done 2>/tmp/refused
finish schedulers-switched
cp /tmp/refused /tmp/out
[ $n -ge 3 ] && [ ! -s /tmp/refused ]
verdict every-switch-taken $?

begin --size=32M --ioengine=psync --numjobs=4 --size=8M --offset_increment=8M
cpu=/sys/devices/system/cpu/cpu1/online n=0
while works; do
	echo 0 >$cpu && sleep 0.2 && echo 1 >$cpu && n=$((n + 1))
	sleep 0.2
done
finish processor-away-and-back
[ $n -ge 1 ] && [ "$(cat $cpu)" = 1 ]
verdict processor-was-away $?

# Requests whose end the guest looks for itself: at once, after a time that it has learned, after 4 us.
[ "$(cat $queue/io_poll)" = 1 ]
verdict polling-is-offered $?
for delay in -1 0 4; do
	echo $delay >$queue/io_poll_delay
	fio --name=poll --filename=/dev/vda --size=32M --direct=1 --ioengine=pvsync2 --hipri=1 --rw=randread --norandommap --bs=4k \
		--number_ios=$((100 * seconds)) --output=/tmp/out
	verdict polled-$delay $?
done

# Read-only by the guest's own wish, and back.
block() { head -c 4096 /dev/zero | tr '\0' "$1"; }
holds() { head -c 4096 "$1" | cmp - /tmp/block; }
put() { block "$2" | dd of="$1" bs=4096 conv=fsync 2>>/tmp/out; }
block a >/tmp/block
put /dev/vda a && blockdev --setro /dev/vda && [ "$(blockdev --getro /dev/vda)" = 1 ] && ! put /dev/vda b && holds /dev/vda
verdict read-only-for-a-while $?
block c >/tmp/block
blockdev --setrw /dev/vda && [ "$(blockdev --getro /dev/vda)" = 0 ] && put /dev/vda c && holds /dev/vda
verdict writable-again $?
# Read-only by the host's: what the guest wishes does not matter.
[ "$(blockdev --getro /dev/vdd)" = 1 ] && blockdev --setrw /dev/vdd && ! put /dev/vdd d
verdict read-only-for-ever $?
say end
JOB
chmod 755 "$T/root/bin/job"
mke2fs -q -F -t ext4 -d "$T/root" "$T/root.img" 128M >/dev/null
bench_initrd "$T/initrd" "rmmod virtio_blk; insmod /m/virtio_blk.ko poll_queues=1; $(bench_root /dev/vdb)" virtio_mmio virtio_blk ext4
truncate -s 64M "$T/disk"
truncate -s 8G "$T/large"
dd if=/dev/urandom of="$T/kept" bs=1M count=1 status=none
kept=$(sha256sum <"$T/kept")

timeout -k 5 $((600 + 40 * seconds)) "$RUN" --cpus 2 --mem 256M --kernel "$(echo "$BUILD"/guest/boot/vmlinuz-*)" --initrd "$T/initrd" --rng off --metrics "$T/m" \
	--disk "path=$T/disk" --disk "path=$T/root.img,ro" --disk "path=$T/large" --disk "path=$T/kept,ro" </dev/null 2>&1 | tr -d '\r' >"$T/out"
# The kernel may say something in the same line, before it.
sed -n 's/.*CASE \(ok\|not ok\|#\)/\1/p' "$T/out"
also all-cases-ran 'CASE end'
ran=$(grep -cE 'CASE (not )?ok' "$T/out")
if [ "$ran" = 17 ]; then ok each-case-ran; else not_ok each-case-ran "$ran of 17"; fi
if fio --filename="$T/disk" --verify_only $proof >"$T/verify" 2>&1; then
	ok host-verifies
else
	not_ok host-verifies "$(grep -m1 verify "$T/verify")"
fi
if [ "$(sha256sum <"$T/kept")" = "$kept" ]; then ok read-only-unchanged; else not_ok read-only-unchanged "the file has changed"; fi
if python3 - "$T/m" >"$T/out" <<'PY'
import json, sys
d = [x["helper"] for x in json.load(open(sys.argv[1]))["devices"] if "discards" in x["helper"]]
print(d)
sys.exit(any(x["errors"] for x in d) or not d[0]["flushes"] or not d[0]["discards"] or not d[2]["discards"])
PY
then ok no-error-counted; else not_ok no-error-counted "the counters of the disks:"; fi
