# SPDX-License-Identifier: BSD-2-Clause
# Shared by lab-disk.sh and lab-modules.sh: fio in a guest of ours and in one of QEMU's, the same kernel, the same root, each with its way to one
# disk, in alternating boots. Behind lib.sh and tests/lab/lib.sh; $kernel, $rounds and $T are the caller's.
# shellcheck shell=bash disable=SC2154

# disk_guest: what a pass measures comes on the standard input, in the words of bench_fio. Makes $T/job DEVICE TIMES, and the guest of both.
disk_guest() {
	local a f
	{
		bench_fio
		echo 'dev=$1'
		echo 'pass() {'
		cat
		cat <<-'JOB'
			}
			# The first pass of a boot is for nothing but what it warms up: memory that nobody has touched, and code that TCG has not translated.
			pass >/dev/null 2>&1
			for i in $(seq "$2"); do
				pass
			done
		JOB
	} >"$T/job"
	make_root "$T/root"
	for f in $(command -v fio) $(ldd "$(command -v fio)" | grep -oE '/[^ ]+'); do
		install -D "$(realpath "$f")" "$T/root$f"
	done
	for a in timeout seq cut; do
		ln -s busybox "$T/root/bin/$a"
	done
	install -m 755 "$T/job" "$T/root/bin/measure"
	printf '#!/bin/sh\nexec /bin/measure /dev/vda 3\n' >"$T/root/bin/job"
	chmod 755 "$T/root/bin/job"
	mke2fs -q -F -t ext4 -d "$T/root" "$T/root.img" 128M >/dev/null 2>&1
	bench_initrd "$T/initrd" "$(bench_root /dev/vdb)" virtio_mmio virtio_pci virtio_blk ext4
}

disk_insula() { # DISK: of --disk; on the bus BUS
	bounded "$RUN" --bus "${BUS:-mmio}" --mem 256M --kernel "$kernel" --initrd "$T/initrd" --disk "$1" --disk "path=$T/root.img,ro" --rng off --metrics "$T/m"
}
disk_qemu() { # WORD...: that make the drive d
	bounded qemu-system-x86_64 -accel kvm -cpu host -m 256 -smp 1 -nodefaults -no-user-config -display none -serial stdio \
		-no-reboot -M q35 -kernel "$kernel" -initrd "$T/initrd" \
		-append 'console=ttyS0 panic=-1 loglevel=3 tsc=reliable cryptomgr.notests' \
		-object iothread,id=io "$@" -device virtio-blk-pci,drive=d,iothread=io \
		-drive "if=none,id=r,format=raw,readonly=on,file=$T/root.img" -device virtio-blk-pci,drive=r
}

# disk_boots DISK WORD...: of disk_insula and disk_qemu, or another PEER. Three figures a pass, three passes a boot; less than half of the boots is not a figure.
disk_boots() {
	local ours=$1 side got
	shift
	for _ in $(seq "$rounds"); do
		measured "$T/insula" 9 disk_insula "$ours" || true
		measured "$T/qemu" 9 "${PEER:-disk_qemu}" "$@" || true
	done
	for side in insula qemu; do
		got=$(($(cat "$T/$side" 2>/dev/null | wc -l) / 9))
		if [ $((2 * got)) -lt "$rounds" ]; then
			echo "$side: $got of $rounds boots have figures; these are none"
			exit 1
		fi
	done
}
# med SIDE NAME: the median of what disk_boots has measured
med() { awk -v n="$2" '$1 == n { print $2 }' "$T/$1" | median; }
