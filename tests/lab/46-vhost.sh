#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A disk over vhost-user: Linux makes a file system on it, writes, compares, and verifies with fio, while back end and insula-vhost are
# killed with -9. Then the host looks at what is in the image. qemu-storage-daemon answers out of order and keeps no account of what it has
# begun, so only the helper is killed there (tests/guests/vhost.sh kills the daemon, with one request at a time); the back end of the tests
# keeps one, and both are killed in turn.
# VHOST_KILLS: how often in each part (4; CHECK_LONG=1: 6).
. "$(dirname "$0")/lib.sh"
export XDG_CACHE_HOME=$T/cache
for need in fio qemu-storage-daemon mke2fs python3; do
	if ! command -v $need >/dev/null; then
		not_ok $need "needs $need"
		exit 1
	fi
done
KILLS=${VHOST_KILLS:-$(short 4 6)}
guests=$(cd "$(dirname "$0")/../guests" && pwd)

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

back='' kind=''
mkfifo "$T/word"
exec {word_fd}<>"$T/word"
serve() {
	case $kind in
	plain)
		rm -f "$T/s"
		qemu-storage-daemon --blockdev driver=file,node-name=f,filename="$T/disk" \
			--export "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=$T/s,writable=on" >>"$T/back" 2>&1 &
		;;
	account) python3 "$guests/vhostback.py" "$T/s" "$T/disk" >>"$T/back" 2>&1 & ;;
	esac
	back=$!
	for _ in $(seq 100); do
		[ $kind = plain ] && [ ! -S "$T/s" ] || return 0
		sleep 0.1
	done
	not_ok "back end" "does not listen: $(tail -n 1 "$T/back")"
}
stop_back() {
	[ -z "$1" ] || kill -9 "$back" 2>/dev/null
	wait "$back" 2>/dev/null
}
# helper PID: the insula-vhost of this VM
helper() { pgrep -P "$1" -x insula-vhost; }

killing() { # KIND NAME WORD COMMAND...: run it in a guest; once it has said WORD, kill what may be killed
	kind=$1
	local name=$1-$2 word=$3 pid status kills=0 helpers=0 h device="vhost-user,type=blk,socket=$T/s"
	shift 3
	rm -f "$T/s" "$T/disk"
	truncate -s 48M "$T/disk"
	: >"$T/back"
	[ $kind = plain ] || device+=,server
	serve
	"$RUN" -i --device "$device" --rootfs "$T/root" --timeout 240 -- "$@" <"$T/word" >"$T/out" 2>&1 &
	pid=$!
	for _ in $(seq 300); do
		grep -qE "$word" "$T/out" && break
		kill -0 $pid 2>/dev/null || break
		sleep 0.2
	done
	sleep 0.5
	while kill -0 $pid 2>/dev/null && [ $kills -lt "$KILLS" ]; do
		if [ $kind = account ] && [ $((kills % 2)) = 0 ]; then
			stop_back now
			serve
		else
			h=$(helper $pid)
			[ -z "$h" ] || kill -9 "$h" 2>/dev/null
			helpers=$((helpers + 1))
			[ $kind = plain ] || { stop_back ''; serve; } # it ends with its connection
		fi
		kills=$((kills + 1))
		sleep 1.5
	done
	echo enough >&$word_fd
	wait $pid
	status=$?
	stop_back now
	if [ $status -ne 0 ]; then
		not_ok "$name" "status $status: $(grep insula "$T/out" | tail -n 2 | paste -sd' ')"
	elif grep -qE 'verify: bad|err= *[1-9]|I/O error|needs a reset|FAILED' "$T/out"; then
		not_ok "$name" "the guest saw an error: $(grep -m1 -E 'verify: bad|err= *[1-9]|I/O error|needs a reset|FAILED' "$T/out")"
	else
		ok "$name"
	fi
	if [ $kills = "$KILLS" ] && [ "$(grep -c 'insula-vhost vhost0 was killed by signal 9' "$T/out")" = $helpers ]; then
		ok "$name-killed"
	else
		not_ok "$name-killed" "$kills times"
	fi
	if [ $kind = account ]; then
		if grep -q '^again' "$T/back"; then ok "$name-again"; else not_ok "$name-again" "the account was given to nobody"; fi
	fi
}
# Every block once, in a random order; the host verifies them in the image.
blocks=("--size=$(short 32 48)M" --bs=8k --randseed=9 --verify=crc32c --verify_fatal=1)
many_at_once() {
	killing "$1" many-at-once 'Starting|fio-' fio --name=v --filename=/dev/vdb --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite \
		--do_verify=0 --end_fsync=1 --rate=3m "${blocks[@]}"
	if fio --name=v --filename="$T/disk" --ioengine=psync --rw=randwrite --verify_only=1 "${blocks[@]}" >"$T/out" 2>&1; then
		ok "$1-many-at-once-in-the-image"
	else
		not_ok "$1-many-at-once-in-the-image" "the host reads other blocks"
	fi
}

for kind in plain account; do
	killing $kind file-system begun job
	also $kind-file-system-compared 'compared [0-9]+ times'
	if e2fsck -fn "$T/disk" >"$T/fsck" 2>&1; then
		ok $kind-file-system-is-clean
	else
		not_ok $kind-file-system-is-clean "$(tail -n 2 "$T/fsck")"
	fi
	many_at_once $kind
done
