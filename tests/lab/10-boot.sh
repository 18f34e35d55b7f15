#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A stock kernel boots, runs a command, and every way in which that can end has its status.
. "$(dirname "$0")/lib.sh"

# A lab whose KVM holds the lab's TSC for one of another rate lets guests stall for minutes: see lab-init.
if [ -d /run/lab ]; then
	expect lab-keeps-time 0 '^[0-9]{5,}$' cat /sys/module/kvm/parameters/tsc_tolerance_ppm
else
	skip lab-keeps-time "this machine is not the lab"
fi
expect exit-3 3 '' "$RUN" -- sh -c 'uname -a; exit 3'
also uname '^Linux insula .* x86_64'
expect not-found-127 127 '^insula-run: no-such-program: command not found$' "$RUN" -- no-such-program
expect not-executable-126 126 '^insula-run: /etc/hosts: Permission denied$' "$RUN" -- /etc/hosts
expect signal-9 137 '' "$RUN" -- sh -c 'kill -9 $$'

# One boot, many looks.
inside='
printf "[%s]" "$@"; echo
echo "env $HOME $USER $PATH $LANG $HOSTNAME $PWD $(id -u)"
for m in /proc /sys /dev /dev/pts /dev/shm /run /sys/fs/cgroup /tmp; do
	grep -q " $m " /proc/mounts && seen="$seen ${m##*/}"
done
echo "mounted$seen"
ping -c 1 -W 2 127.0.0.1
echo "pid 1 is $(cat /proc/1/comm)"
echo "hwrng $(cat /sys/class/misc/hw_random/rng_current) $(dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c)"
awk "/MemTotal/ { print \"memory\", (\$2 > 180000 && \$2 < 262144) ? \"fits\" : \$2 }" /proc/meminfo
(sleep 1000 &)'
expect inside 0 '' "$RUN" -- sh -c "$inside" sh 'a b' '' '$x "y"'
also arguments '^\[a b\]\[\]\[\$x "y"\]$'
also environment '^env /root root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin C.UTF-8 insula / 0$'
also filesystems '^mounted proc sys dev pts shm run cgroup tmp$'
also loopback 'bytes from 127.0.0.1'
also hwrng '^hwrng virtio_rng\.[0-9]+ 256$'
also pid-1-is-ours '^pid 1 is init$'
also memory-default '^memory fits$'

# Memory in huge pages: all of it, from the start. (The mapping that holds gpa 0 is the first of 120 MiB or more.)
"$RUN" --mem 128M,hugepages -- sh -c 'echo up; read x' >"$T/got" 2>"$T/out" < <(sleep 60) &
pid=$!
for _ in $(seq 300); do ! grep -q up "$T/got" || break; sleep 0.1; done
awk '/ShmemPmdMapped:/ && $2 > most { most = $2 } END { print "huge", most, "KiB" }' "/proc/$(pgrep -P $pid -x insula-vmm)/smaps" >>"$T/out"
kill $pid
wait $pid
also huge-pages '^huge 131072 KiB$'

# Without a command: a shell on the console, and status 0 when the guest ends.
echo 'echo in-$((40+2)); poweroff; sleep 1000' >"$T/in"
IN=$T/in expect no-command-poweroff 0 'in-42' "$RUN" --metrics "$T/m.json"
also no-command-says-how-to-leave 'a shell; exit or poweroff ends the machine'
cat "$T/m.json" >>"$T/out"
also no-command-poweroff-reason '"reason": *"poweroff"'
echo 'reboot; sleep 1000' >"$T/in"
IN=$T/in expect no-command-reboot 0 '' "$RUN" --metrics "$T/m.json"
cat "$T/m.json" >>"$T/out"
also no-command-reboot-reason '"reason": *"reboot"'
# On virtio-console. A shell's input is there before the guest has a driver.
echo 'echo in-$((40+2)) $(tty) $(cat /sys/class/tty/console/active); exit 7' >"$T/in"
IN=$T/in expect no-command-exit 0 'in-42 /dev/hvc0 hvc0' "$RUN" --console virtio
# Its process dies five times under output: each line is there, in its order; what was being written may be there twice.
echo 'stty -opost; echo go; i=0; while [ $((i+=1)) -le 3000 ]; do echo "line $i end"; done; echo all; exit' >"$T/in"
"$RUN" --console virtio --timeout 240 --metrics "$T/m.json" <"$T/in" >"$T/got" 2>"$T/out" &
vm=$!
for _ in $(seq 600); do ! grep -q '^line 1 end' "$T/got" || break; sleep 0.1; done
for _ in 1 2 3 4 5; do
	pkill -9 -P "$vm" -x insula-console
	sleep 0.3
done
wait "$vm"
echo "status $?" >>"$T/out"
cat "$T/m.json" >>"$T/out"
also virtio-console-killed-status '^status 0$'
also virtio-console-killed '"restarts": *[1-5]'
tr -d '\r' <"$T/got" | awk '/^line [0-9]+ end$/ && $2 == n + 1 { n++ } END { print "in order up to", n }' >>"$T/out"
also virtio-console-killed-loses-nothing '^in order up to 3000$'

# Ends that are nobody's status.
expect panic-120 120 'panic' "$RUN" -- sh -c 'echo before; echo c >/proc/sysrq-trigger'
expect triple-fault-121 121 'triple fault' "$RUN" --append reboot=t -- reboot -f
expect poweroff-under-command-122 122 '^before$' "$RUN" -- sh -c 'echo before; poweroff; sleep 1000'
also poweroff-under-command-says-so 'the guest powered off before the command ended'
expect halt-under-command-122 122 '' "$RUN" -- sh -c 'halt; sleep 1000'
# The ways to reset that the command line of Linux knows; the board's side of all of them is tests/guests/resets.c.
expect reboot-by-keyboard-122 122 'rebooted before the command ended' "$RUN" --append reboot=k -- reboot -f
expect reboot-by-bios-122 122 'rebooted before the command ended' "$RUN" --append reboot=b -- reboot -f
expect timeout-124 124 '' "$RUN" --timeout 6 -- sleep 100

expect cpus-4 0 '^4$' "$RUN" --cpus 4 -- nproc
expect memory-6G 0 '^memory fits$' "$RUN" --mem 6G -- \
	awk '/MemTotal/ { print "memory", ($2 > 5900000 && $2 < 6291456) ? "fits" : $2 } / : System RAM/' /proc/meminfo /proc/iomem
also memory-6G-below-the-hole '^00100000-bfffffff : System RAM'
also memory-6G-above-the-hole '^100000000-1bfffffff : System RAM'
for_user
expect ordinary-user 4 '' "${AS_USER[@]}" "$RUN" -- sh -c 'exit 4'
