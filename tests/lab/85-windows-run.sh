#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The distribution's kernel under insula-run.exe, wine and the WinHvPlatform.dll that is made of KVM: two processors, and each device in its
# own process: the console, a disk that is read and written, random numbers, vsock streams both ways. The same guest under insula-run says
# the same. Then commands in the guest, with the default kernel and Insula's own initrd.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
EXE=$BUILD/windows/test-bin/insula-run.exe
KERNEL=$(readlink -f "$BUILD/guest/vmlinuz")
MODULES=$(echo "$BUILD"/guest/lib/modules/*/kernel)
PEER=$BUILD/tests/vsockpeer
PIPE='\\.\pipe\insula-lab'
export WINE_SESSION=$T/session
[ -e "$EXE" ] && [ -e "$PEER" ] || { not_ok build "make tests windows-test-programs was not run"; exit 1; }

make_root "$T/root"
for m in drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_mmio drivers/block/virtio_blk drivers/char/hw_random/virtio-rng \
	net/vmw_vsock/vsock net/vmw_vsock/vmw_vsock_virtio_transport_common net/vmw_vsock/vmw_vsock_virtio_transport; do
	cp "$MODULES/$m.ko" "$T/root/"
done
cp "$PEER" "$T/root/"
cat >"$T/root/init" <<EOI
#!/bin/sh
b=/bin/busybox
\$b mount -t devtmpfs dev /dev
\$b mount -t proc proc /proc
\$b mount -t sysfs sys /sys
say() { echo "guest: \$*"; }
for m in virtio_ring virtio virtio_mmio virtio_blk virtio-rng vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport; do
	\$b insmod /\$m.ko
done
say "processors \$(\$b nproc)"
say "disk \$(\$b cat /sys/block/vda/size) \$(\$b cat /sys/block/vda/serial)"
say "read \$(\$b sha256sum </dev/vda)"
\$b dd if=/bin/busybox of=/dev/vda bs=64k seek=8 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
say "written \$(\$b dd if=/dev/vda bs=64k skip=8 count=8 2>/dev/null | \$b sha256sum)"
\$b head -c 64 /dev/hwrng >/tmp/random && say "random numbers: \$(\$b wc -c </tmp/random)"
/vsockpeer echo vsock:$ANY:52 &
/vsockpeer accept vsock:$ANY:90
say "vsock: \$(/vsockpeer load vsock:2:77 8 60000 5)"
\$b poweroff -f
EOI
chmod +x "$T/root/init"
(cd "$T/root" && find . | cpio -o -H newc 2>/dev/null) >"$T/initrd"
for s in linux windows; do
	truncate -s 16M "$T/$s.img"
	dd if="$BUILD/libexec/insula/busybox" of="$T/$s.img" conv=notrunc bs=64k count=4 2>/dev/null
done

# The host's side: an echo that the guest connects to, and a client of the guest's echo, which then tells the guest to go on.
serve() { # NAME
	case $1 in
	linux_on_kvm) exec "$PEER" echo "unix:$T/v_77" ;;
	*) exec tests/whp-double/wine "$BUILD" "${EXE%/*}/pipepeer.exe" echo "${PIPE}_77" ;;
	esac
}
# Not before the guest's echo is about to be there: each try is a process of wine, and takes from the guest a second of the one processor.
client() { # NAME
	until grep -qs 'guest: random numbers' "$T/out"; do sleep 0.5; done
	until said=$(load "$1"); do sleep 1; done
	echo "$said" | tr -d '\r' | grep -o 'all came back'
	until go_on "$1" | grep -q OK; do sleep 1; done
}
go_on() { # NAME
	case $1 in
	linux_on_kvm) (printf 'CONNECT 90\n'; sleep 1) | socat - "UNIX-CONNECT:$T/v" ;;
	*) tests/whp-double/wine "$BUILD" "${EXE%/*}/pipepeer.exe" line "$PIPE" 'CONNECT 90\n' ;;
	esac 2>/dev/null
}
load() { # NAME
	case $1 in
	linux_on_kvm) "$PEER" rtt "fc:$T/v:52" 1 >/dev/null && "$PEER" load "fc:$T/v:52" 8 60000 3 ;;
	*) tests/whp-double/wine "$BUILD" "${EXE%/*}/pipepeer.exe" load "$PIPE" 52 8 60000 3 ;;
	esac 2>/dev/null
}

# boot NAME DISK PATH COMMAND...
boot() {
	local name=$1 disk=$2 path=$3 echo client
	shift 3
	rm -f "$T/out"
	serve "$name" >/dev/null 2>&1 &
	echo=$!
	client "$name" >"$T/$name.client" &
	client=$!
	LIMIT=500 expect "$name" 0 'guest: vsock: .*all came back' "$@" --vsock "path=$path" --kernel "$KERNEL" --initrd "$T/initrd" --cpus 2 --mem 512M \
		--disk path="$disk,serial=data" --console stdio
	kill $echo $client 2>/dev/null
	if grep -q '^all came back' "$T/$name.client"; then ok "$name: clients"; else not_ok "$name: clients" 'they said nothing'; fi
	tr -d '\r' <"$T/out" | sed -n 's/^guest: //p' >"$T/$name.lines"
}
boot linux_on_kvm "$T/linux.img" "$T/v" "$RUN"
boot linux_on_whp "$T/windows.img" "$PIPE" tests/whp-double/wine "$BUILD" "$EXE"
tests/whp-double/wine "$BUILD" --end
if [ "$(wc -l <"$T/linux_on_kvm.lines")" = 6 ] && diff "$T/linux_on_kvm.lines" "$T/linux_on_whp.lines" >"$T/out"; then
	ok linux_says_the_same
else
	cat "$T/linux_on_kvm.lines" "$T/linux_on_whp.lines" >"$T/out"
	not_ok linux_says_the_same "KVM (first) and WHP differ"
fi
cmp "$T/linux.img" "$T/windows.img" >"$T/out" 2>&1
case $? in 0) ok the_same_on_the_disks ;; *) not_ok the_same_on_the_disks "they differ" ;; esac

# ---- commands, at the same time

unset WINE_SESSION # each run has one of its own
tools/windows-guest "$BUILD" "${EXE%/*}/guest" >"$T/out" 2>&1 || not_ok command_guest 'tools/windows-guest fails'
rm -r "$T/root/init" "$T"/root/*.ko "$T/root/vsockpeer"
truncate -s 16M "$T/root.img"
PATH=$PATH:/sbin:/usr/sbin mke2fs -q -F -t ext4 -d "$T/root" "$T/root.img" >"$T/out" 2>&1 || not_ok command_root 'no image'
head -c 3000000 /dev/urandom >"$T/in"
BARE='TEST BUILD, NOT CONTAINED'

# run_ NAME ARGUMENT...: its status into NAME.status, its errors without the lines of a test build into NAME.e
run_() {
	local name=$1
	shift
	timeout -k 5 600 tests/whp-double/wine "$BUILD" "$EXE" --mem 512M "$@" 2>"$T/$name.raw"
	echo $? >"$T/$name.status"
	grep -v "$BARE" "$T/$name.raw" | tr -d '\r' >"$T/$name.e"
}
until_() { # SECONDS COMMAND...
	local end=$((SECONDS + $1))
	until "${@:2}"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}
came() { [ "$(stat -c %s "$T/streams.o" 2>/dev/null)" -ge 1000000 ] 2>/dev/null; }
kill_vsock() {
	local p c
	for p in /proc/[0-9]*; do
		IFS= read -r -d '' c <"$p/cmdline" || continue
		[ "${c%insula-vsock.exe}" = "$c" ] || kill -9 "${p#/proc/}"
	done 2>/dev/null
}
# A third of the input, and when that has come back, and the other guests are gone, insula-vsock dies.
feed() {
	until_ 300 grep -qs '^up' "$T/streams.raw"
	head -c 1000000 "$T/in"
	until_ 60 came && until_ 300 [ -e "$T/yes.status" ] && until_ 300 [ -e "$T/missing.status" ] && kill_vsock
	tail -c +1000001 "$T/in"
}
same() { # NAME WANT GOT
	cat "$T"/*.e >"$T/out" 2>/dev/null
	if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected '$2', got '$3'"; fi
}

run_ missing -- nope </dev/null >"$T/missing.o" &
run_ yes -- yes </dev/null | head -1 >"$T/yes.o" &
feed | run_ streams --rootfs "$T/root.img" -e A=one -w /etc -- sh -c 'echo up $A $(pwd) $(cat marker) >&2; cat; exit 7' >"$T/streams.o"
wait
same command_missing '127 insula-run: nope: command not found' "$(cat "$T/missing.status" "$T/missing.e" "$T/missing.o" | tr '\n' ' ' | sed 's/ $//')"
same command_whose_reader_goes y "$(cat "$T/yes.o")"
same command_status 7 "$(cat "$T/streams.status")"
same command_errors 'up one /etc this is the root' "$(grep -v '^insula-run: warning' "$T/streams.e")"
same command_insula_vsock_died 1 "$(grep -c 'insula-vsock vsock: restarted' "$T/streams.e")"
if cmp "$T/in" "$T/streams.o" >"$T/out" 2>&1; then ok command_every_byte; else not_ok command_every_byte "$(stat -c %s "$T/streams.o") bytes"; fi
