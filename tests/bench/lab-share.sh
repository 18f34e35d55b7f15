#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: virtio-fs, a file of 256 MiB that the host has in its cache read in sequence, and tar of 4,000 files, over insula-vhost and over
# QEMU's vhost-user-fs (PCI), ours on MMIO and on PCI, the same kernel, the same initrd, the same virtiofsd with the same arguments, in alternating boots.
# tests/bench/lab-share.sh BUILD [ROUNDS]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$1 rounds=${2:-5}
# shellcheck disable=SC1091
. tests/lab/lib.sh
set -eu
kernel=$(echo "$BUILD"/guest/boot/vmlinuz-*)
size=${SHARE_MIB:-256} files=${SHARE_FILES:-4000}
BOOT_SECONDS=${BOOT_SECONDS:-900} # each file is some ten requests, and a request some milliseconds in the lab

mkdir -p "$T/dir/many"
dd if=/dev/urandom of="$T/dir/big" bs=1M count="$size" status=none
for i in $(seq "$files"); do echo "file number $i" >"$T/dir/many/$i"; done
# Hundredths of a second of the guest's clock. The first pass of a boot is for what it warms up.
cat >"$T/dir/job" <<'JOB'
now() { awk '{ printf "%d\n", $1 * 100 }' /proc/uptime; } # a number with a 0 in front would be octal
one() { # NAME UNITS COMMAND
	s=$(now)
	sh -c "$3" >/dev/null
	e=$(now)
	echo "$1 $(($2 * 100 / (e - s)))"
}
pass() {
	one read $1 'cat /mnt/big'
	one tar $2 'tar cf - -C /mnt/many . | cat'
}
pass $1 $2 >/dev/null
for i in 1 2; do pass $1 $2; done
JOB
bench_initrd "$T/initrd" "mount -t virtiofs bench /mnt; sh /mnt/job $((size * 1024)) $files" virtio_mmio virtio_pci virtiofs

for virtiofsd in /usr/libexec/virtiofsd /usr/lib/virtiofsd /usr/lib/qemu/virtiofsd; do
	[ ! -x "$virtiofsd" ] || break
done
args=(-f -o "source=$T/dir" -o cache=auto -o sandbox=chroot -o log_level=err --thread-pool-size=0)
! "$virtiofsd" --help 2>&1 | grep -q -- --shared-dir || args=(--shared-dir "$T/dir" --cache auto --sandbox chroot --log-level error)
serve() {
	rm -f "$T/fs"
	"$virtiofsd" "${args[@]}" --socket-path="$T/fs" >"$T/fs.log" 2>&1 &
	for _ in $(seq 200); do
		[ ! -S "$T/fs" ] || return 0
		sleep 0.05
	done
	cat "$T/fs.log"
	return 1
}
qemu() {
	serve
	bounded qemu-system-x86_64 -accel kvm -cpu host -m 256 -smp 1 -nodefaults -no-user-config -display none -serial stdio -no-reboot -M q35 \
		-object memory-backend-memfd,id=m,size=256M,share=on -numa node,memdev=m \
		-kernel "$kernel" -initrd "$T/initrd" -append 'console=ttyS0 panic=-1 loglevel=3 tsc=reliable cryptomgr.notests' \
		-chardev "socket,id=fs,path=$T/fs" -device vhost-user-fs-pci,chardev=fs,tag=bench
	wait
}
insula() { # BUS
	serve
	bounded "$RUN" --mem 256M --kernel "$kernel" --initrd "$T/initrd" --rng off --device "vhost-user,type=fs,socket=$T/fs,tag=bench,bus=$1"
	wait
}
for _ in $(seq "$rounds"); do
	measured "$T/mmio" 4 insula mmio || true
	measured "$T/pci" 4 insula pci || true
	measured "$T/qemu" 4 qemu || true
done
med() { awk -v n="$2" '$1 == n { print $2 }' "$T/$1" | median; }
for side in mmio pci qemu; do
	got=$(($(cat "$T/$side" 2>/dev/null | wc -l) / 4))
	if [ $((2 * got)) -lt "$rounds" ]; then
		echo "$side: $got of $rounds boots have figures; these are none"
		exit 1
	fi
done
head_row "lab, virtio-fs, ${virtiofsd##*/} on both sides"
for side in mmio pci; do
	row "$side: a cached file of $size MiB read / QEMU, KiB/s" "$(med $side read)" "$(med qemu read)" ">= 1.0"
	row "$side: tar of $files files / QEMU, files a second" "$(med $side tar)" "$(med qemu tar)" ">= 1.0"
done
