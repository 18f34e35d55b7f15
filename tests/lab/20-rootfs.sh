#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Root file systems: a directory, raw images, read-only with a tmpfs above or writable.
. "$(dirname "$0")/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
export XDG_CACHE_HOME=$T/cache
make_root "$T/root"

image() {
	mke2fs -q -F -t ext4 -d "$T/root" "$1" 32M >/dev/null 2>&1
}

expect directory 0 'this is the root' "$RUN" --rootfs "$T/root" -- sh -c 'cat /etc/marker /proc/mounts; echo written >/etc/new && cat /etc/new'
also directory-is-overlay '^overlay / overlay'
also directory-write '^written$'
if [ -e "$T/root/etc/new" ]; then not_ok directory-untouched "the guest wrote to the host"; else ok directory-untouched; fi
echo changed >"$T/root/etc/marker"
expect directory-status 9 '' "$RUN" --rootfs "$T/root" -- sh -c 'cat /etc/marker /etc/new; exit 9'
also directory-write-is-gone '/etc/new.*: No such file or directory'
also directory-changed '^changed$'
expect directory-not-found 127 '' "$RUN" --rootfs "$T/root" -- awk
expect directory-rw-refused 2 'rw' "$RUN" --rootfs "$T/root,rw" -- true
expect missing 2 'nowhere' "$RUN" --rootfs "$T/nowhere" -- true

image "$T/ro.ext4"
before=$(sha256sum <"$T/ro.ext4")
expect ext4-ro 0 '^written$' "$RUN" --rootfs "$T/ro.ext4" -- sh -c 'echo written >/etc/new && cat /etc/new'
if [ "$before" = "$(sha256sum <"$T/ro.ext4")" ]; then ok ext4-ro-untouched; else not_ok ext4-ro-untouched "the image changed"; fi

image "$T/rw.ext4"
expect ext4-rw 0 '' "$RUN" --rootfs "$T/rw.ext4,rw" -- sh -c 'echo kept >/etc/new; dd if=/dev/urandom of=/big bs=64k count=64'
expect ext4-rw-survives 0 '^kept$' "$RUN" --rootfs "$T/rw.ext4,rw" -- cat /etc/new
expect ext4-rw-clean 0 '' e2fsck -fn "$T/rw.ext4"
# A process that still writes when the command ends must not leave the file system dirty.
expect ext4-rw-busy 0 '' "$RUN" --rootfs "$T/rw.ext4,rw" -- sh -c '(while :; do echo x >>/etc/log; done) & touch /etc/busy'
expect ext4-rw-busy-clean 0 '' e2fsck -fn "$T/rw.ext4"

if command -v mkfs.erofs >/dev/null; then
	mkfs.erofs "$T/root.erofs" "$T/root" >/dev/null 2>&1
	expect erofs 0 '^changed$' "$RUN" --rootfs "$T/root.erofs" -- cat /etc/marker
	expect erofs-rw-refused 125 'cannot be written' "$RUN" --rootfs "$T/root.erofs,rw" -- true
else
	skip erofs "no mkfs.erofs (erofs-utils)"
fi
head -c 8M /dev/zero >"$T/zero"
expect no-filesystem 125 'holds none of ext4' "$RUN" --rootfs "$T/zero" -- true

# Without a command: the root's own init is PID 1.
cat >"$T/root/sbin/init" <<'INIT'
#!/bin/sh
echo "own init is $$"
poweroff -f
INIT
chmod +x "$T/root/sbin/init"
expect own-init 0 'own init is 1' "$RUN" --rootfs "$T/root"

# A second disk keeps its place and its serial.
head -c 1M /dev/zero >"$T/data"
expect second-disk 0 '^second$' "$RUN" --rootfs "$T/root" --disk "path=$T/data,serial=second" -- \
	sh -c 'cat /sys/block/vda/serial; echo; cat /sys/block/vdb/serial; echo'
