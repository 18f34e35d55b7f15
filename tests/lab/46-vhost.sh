#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A disk that qemu-storage-daemon serves over vhost-user: Linux makes a file system on it, writes, compares, and verifies with fio, while the
# daemon and insula-vhost are killed with -9 in turn. Then the host looks at what is in the image.
# VHOST_KILLS: how often in each part (6).
. "$(dirname "$0")/lib.sh"
export XDG_CACHE_HOME=$T/cache
for need in fio qemu-storage-daemon mke2fs; do
	if ! command -v $need >/dev/null; then
		not_ok $need "needs $need"
		exit 1
	fi
done
KILLS=${VHOST_KILLS:-6}

make_root "$T/root"
mkdir -p "$T/root/mnt"
for f in $(command -v fio) $(ldd "$(command -v fio)" "$(command -v mke2fs)" | grep -oE '/[^ ]+\.so[^ ]*'); do
	install -D "$(realpath "$f")" "$T/root$f"
done
install "$(realpath "$(command -v mke2fs)")" "$T/root/sbin/mke2fs.ext" # busybox has one of its own
for a in cmp md5sum sleep umount seq tail; do
	ln -sf busybox "$T/root/bin/$a"
done
cat >"$T/root/bin/job" <<'JOB'
#!/bin/sh
# Files written, compared and removed on a file system until the host has said a word; their sums stay on it.
set -e
exec 3<&0 # what runs in the background has no input of its own
(read -r word <&3 && echo "$word" >/tmp/word) &
/sbin/mke2fs.ext -q -F -t ext4 -O ^has_journal /dev/vdb
mount -t ext4 /dev/vdb /mnt
echo begun
n=0
while [ ! -s /tmp/word ]; do
	n=$((n + 1))
	dd if=/dev/urandom of=/mnt/f$((n % 8)) bs=64k count=$((n % 16 + 1)) conv=fsync 2>/dev/null
	(cd /mnt && md5sum f? >/mnt/sums)
	sync
	echo 3 >/proc/sys/vm/drop_caches
	(cd /mnt && md5sum -c sums >/dev/null)
done
umount /mnt
echo "compared $n times"
JOB
chmod +x "$T/root/bin/job"

daemon=
mkfifo "$T/word"
exec {word_fd}<>"$T/word"
serve() { # [MORE]
	rm -f "$T/s"
	qemu-storage-daemon --blockdev driver=file,node-name=f,filename="$T/disk" \
		--export "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=$T/s,writable=on$*" >>"$T/daemon" 2>&1 &
	daemon=$!
	for _ in $(seq 100); do
		[ ! -S "$T/s" ] || return 0
		sleep 0.1
	done
	not_ok daemon "does not listen: $(tail -n 1 "$T/daemon")"
}
stop_daemon() {
	kill -9 "$daemon" 2>/dev/null
	wait "$daemon" 2>/dev/null
}
# helper PID: the insula-vhost of this VM
helper() { pgrep -P "$1" -x insula-vhost; }

killing() { # NAME WORD COMMAND...: run it in a guest; once it has said WORD, kill daemon and helper in turn
	local name=$1 word=$2 pid status kills=0 h
	shift 2
	truncate -s 0 "$T/disk"
	truncate -s 48M "$T/disk"
	serve
	"$RUN" -i --device "vhost-user,type=blk,socket=$T/s" --rootfs "$T/root" --timeout 240 -- "$@" <"$T/word" >"$T/out" 2>&1 &
	pid=$!
	for _ in $(seq 300); do
		grep -qE "$word" "$T/out" && break
		kill -0 $pid 2>/dev/null || break
		sleep 0.2
	done
	sleep 0.5
	while kill -0 $pid 2>/dev/null && [ $kills -lt "$KILLS" ]; do
		if [ $((kills % 2)) = 0 ]; then
			stop_daemon
			serve
		else
			h=$(helper $pid)
			[ -z "$h" ] || kill -9 "$h" 2>/dev/null
		fi
		kills=$((kills + 1))
		sleep 1.5
	done
	echo enough >&$word_fd
	wait $pid
	status=$?
	stop_daemon
	if [ $status -ne 0 ]; then
		not_ok "$name" "status $status"
	elif grep -qE 'verify: bad|err= *[1-9]|I/O error|needs a reset|FAILED' "$T/out"; then
		not_ok "$name" "the guest saw an error"
	else
		ok "$name"
	fi
	if [ $kills = "$KILLS" ] && [ "$(grep -c 'insula-vhost vhost0 was killed by signal 9' "$T/out")" = $((KILLS / 2)) ]; then
		ok "$name-killed"
	else
		not_ok "$name-killed" "$kills times"
	fi
}

killing file-system begun job
also file-system-compared 'compared [0-9]+ times'
if e2fsck -fn "$T/disk" >"$T/fsck" 2>&1; then
	ok file-system-is-clean
else
	not_ok file-system-is-clean "$(tail -n 2 "$T/fsck")"
fi

# Every block once, in a random order; the host verifies them in the image.
blocks=(--size=48M --bs=8k --randseed=9 --verify=crc32c --verify_fatal=1)
killing many-at-once 'Starting|fio-' fio --name=v --filename=/dev/vdb --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite --do_verify=0 \
	--end_fsync=1 --rate=2m "${blocks[@]}"
if fio --name=v --filename="$T/disk" --ioengine=psync --rw=randwrite --verify_only=1 "${blocks[@]}" >"$T/out" 2>&1; then
	ok many-at-once-in-the-image
else
	not_ok many-at-once-in-the-image "the host reads other blocks"
fi
