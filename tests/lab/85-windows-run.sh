#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The distribution's kernel under insula-run.exe, wine and the WinHvPlatform.dll that is made of KVM: two processors, and each device in its
# own process: the console, a disk that is read and written, random numbers. The same guest under insula-run says the same.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
EXE=$BUILD/windows/test-bin/insula-run.exe
KERNEL=$(readlink -f "$BUILD/guest/vmlinuz")
MODULES=$(echo "$BUILD"/guest/lib/modules/*/kernel/drivers)
[ -e "$EXE" ] || { not_ok build "make windows-test-programs was not run"; exit 1; }

make_root "$T/root"
for m in virtio/virtio_ring virtio/virtio virtio/virtio_mmio block/virtio_blk char/hw_random/virtio-rng; do
	cp "$MODULES/$m.ko" "$T/root/"
done
cat >"$T/root/init" <<'EOI'
#!/bin/sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
say() { echo "guest: $*"; }
for m in virtio_ring virtio virtio_mmio virtio_blk virtio-rng; do
	$b insmod /$m.ko
done
say "processors $($b nproc)"
say "disk $($b cat /sys/block/vda/size) $($b cat /sys/block/vda/serial)"
say "read $($b sha256sum </dev/vda)"
$b dd if=/bin/busybox of=/dev/vda bs=64k seek=8 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
say "written $($b dd if=/dev/vda bs=64k skip=8 count=8 2>/dev/null | $b sha256sum)"
$b head -c 64 /dev/hwrng >/tmp/random && say "random numbers: $($b wc -c </tmp/random)"
$b poweroff -f
EOI
chmod +x "$T/root/init"
(cd "$T/root" && find . | cpio -o -H newc 2>/dev/null) >"$T/initrd"
for s in linux windows; do
	truncate -s 16M "$T/$s.img"
	dd if="$BUILD/libexec/insula/busybox" of="$T/$s.img" conv=notrunc bs=64k count=4 2>/dev/null
done

# boot NAME DISK COMMAND...
boot() {
	local name=$1 disk=$2
	shift 2
	LIMIT=500 expect "$name" 0 'guest: random numbers: 64' "$@" --kernel "$KERNEL" --initrd "$T/initrd" --cpus 2 --mem 512M \
		--disk path="$disk,serial=data" --console stdio
	tr -d '\r' <"$T/out" | sed -n 's/^guest: //p' >"$T/$name.lines"
}
boot linux_on_kvm "$T/linux.img" "$RUN"
boot linux_on_whp "$T/windows.img" tests/whp-double/wine "$BUILD" "$EXE"
if [ "$(wc -l <"$T/linux_on_kvm.lines")" = 5 ] && diff "$T/linux_on_kvm.lines" "$T/linux_on_whp.lines" >"$T/out"; then
	ok linux_says_the_same
else
	cat "$T/linux_on_kvm.lines" "$T/linux_on_whp.lines" >"$T/out"
	not_ok linux_says_the_same "KVM (first) and WHP differ"
fi
cmp "$T/linux.img" "$T/windows.img" >"$T/out" 2>&1
case $? in 0) ok the_same_on_the_disks ;; *) not_ok the_same_on_the_disks "they differ" ;; esac
