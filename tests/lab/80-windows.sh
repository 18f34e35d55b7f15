#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The Windows backend with real guests: hvrun.exe under wine, on the WinHvPlatform.dll that is made of KVM (tests/whp-double). The
# distribution's kernel boots with two processors, as on KVM with the same hvrun; and the contract's cases, time that stands still included.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
WINE=(tests/whp-double/wine "$BUILD")
KERNEL=$(readlink -f "$BUILD/guest/vmlinuz")
[ -e "$BUILD/windows/tests/hvrun.exe" ] || { not_ok build "make windows-tests was not run"; exit 1; }

make_root "$T/root"
cat >"$T/root/init" <<'EOF'
#!/bin/sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
say() { echo "guest: $*" >/dev/kmsg; }
say "$($b uname -sr)"
say "processors $($b nproc), of apicid $($b grep '^apicid' /proc/cpuinfo | $b cut -d: -f2 | $b tr -d '\n')"
say "memory $($b sha256sum /bin/busybox)"
start=$($b date +%s)
$b sleep 3
slept=$(($($b date +%s) - start))
[ $slept -ge 3 ] && [ $slept -le 5 ] && say "slept 3 seconds, or a little more"
[ "$($b grep LOC: /proc/interrupts | $b awk '{ print ($2 > 10) + ($3 > 10) }')" = 2 ] && say "each has timer interrupts"
say "clock $($b cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
$b reboot -f
EOF
chmod +x "$T/root/init"
(cd "$T/root" && find . | cpio -o -H newc 2>/dev/null) >"$T/initrd"

# boot NAME COMMAND...: 100 is the triple fault that reboot=t ends with.
boot() {
	local name=$1 status
	shift
	timeout -k 5 500 "$@" --mem 512 --cpus 2 --initrd "$T/initrd" --append 'earlyprintk=serial,ttyS0,115200,keep reboot=t panic=-1' "$KERNEL" \
		>"$T/out" 2>&1 </dev/null
	status=$?
	if [ $status = 100 ] && grep -q 'reboot: machine restart' "$T/out"; then ok "$name"; else not_ok "$name" "status $status"; fi
	tr -d '\r' <"$T/out" >"$T/$name"
	sed -n 's/^\[ *[0-9.]*\] guest: //p' "$T/$name" | grep -v '^clock' >"$T/$name.lines"
}

boot linux_on_kvm "$BUILD/tests/hvrun"
boot linux_on_whp "${WINE[@]}" "$BUILD/windows/tests/hvrun.exe"
also linux_finds_hyper_v 'Hypervisor detected: Microsoft Hyper-V'
also linux_has_its_clock 'guest: clock hyperv_clocksource_tsc_page'
if grep -q '^double: ' "$T/linux_on_whp"; then
	not_ok no_complaint "$(grep -m 1 '^double: ' "$T/linux_on_whp")"
else
	ok no_complaint
fi
if [ "$(wc -l <"$T/linux_on_kvm.lines")" = 5 ] && diff "$T/linux_on_kvm.lines" "$T/linux_on_whp.lines" >"$T/out"; then
	ok linux_says_the_same
else
	cat "$T/linux_on_kvm.lines" "$T/linux_on_whp.lines" >"$T/out"
	not_ok linux_says_the_same "KVM (first) and WHP differ"
fi
INSULA_TEST_TIME_STOPS=1 tests/whp-double/suite "$BUILD" test_hv
