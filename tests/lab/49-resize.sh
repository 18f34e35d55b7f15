#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Memory of a Linux guest that is resized while programs fill it: the guest has it, the host's memory follows, both ways, and so does the
# limit of the VM's control group; insula-mem killed meanwhile; saved and restored, cloned; on PCI. The host's side is the memory of the
# group. RESIZE_MEM: the larger size, in MiB (default 640, of 256; from 2048 on of 512); RESIZE_ROUNDS: how often up and down (1).
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
mem=${RESIZE_MEM:-640}
base=$((mem < 2048 ? 256 : 512))
fill=$(((mem - base) * 3 / 4))
patience=$((120 + (mem - base) / 2)) # the guest of an emulated machine gives a block back in a third of a second, at worst
in_guest() { "$CTL" exec m -- sh -c "$1"; }
host() { echo $(($(cat "$g/memory.current") >> 20)); }
limit() { echo $(($(cat "$g/memory.max") >> 20)); }
total() { in_guest 'sed -n "s/^MemTotal: *//p" /proc/meminfo' | cut -d' ' -f1; }
# of VM MEMBER: MiB of its memory; more than it can have if that is not known at the moment
of() {
	local bytes
	bytes=$("$CTL" info "$1" 2>/dev/null | member "memory.$2")
	[[ $bytes =~ ^[0-9]+$ ]] || bytes=$((1 << 50))
	echo $((bytes >> 20))
}
# until_ SECONDS MOST COMMAND...: until what it prints is at most MOST; $got is the last
until_() {
	local end=$((SECONDS + $1)) most=$2
	shift 2
	while got=$("$@") && [ "$got" -gt "$most" ]; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.3
	done
}
# holds NAME DETAIL: the status of the command before
holds() { if [ $? = 0 ]; then ok "$1"; else not_ok "$1" "$2"; fi; }
helper() { "$CTL" info "$1" | python3 -c 'import json, sys; print([p["pid"] for p in json.load(sys.stdin)["processes"] if p["name"].startswith("insula-mem") and p["state"] == "ready"][0])' 2>/dev/null; }
sum='md5sum /m/keep | cut -d" " -f1'

GROUP=/sys/fs/cgroup insulad_up
"$CTL" create --name m --mem "${base}M,max=${mem}M" >"$T/out" && "$CTL" start m >"$T/out"
g=$(group m)
expect the-driver-is-there 0 virtio_mem "$CTL" exec m -- ls -d /sys/bus/virtio/drivers/virtio_mem
in_guest 'mkdir /m && mount -t tmpfs -o size=100% m /m && dd if=/dev/urandom of=/m/keep bs=1M count=8 2>/dev/null'
keep=$(in_guest "$sum")
small=$(total)
overhead=$(($(limit) - base))

# ---- refused, in words

expect too-large 2 "mem: $((mem + 2))M; expected ${base}M to" "$CTL" resize m --mem $((mem + 2))M
expect too-small 2 "mem: $((base - 2))M; expected ${base}M to" "$CTL" resize m --mem $((base - 2))M
expect between 2 'in steps of 2M' "$CTL" resize m --mem $((base + 1))M
same nothing-has-changed "$base $base" "$(of m requested) $(of m actual)"

# ---- up and down

for round in $(seq "${RESIZE_ROUNDS:-1}"); do
	before=$(host)
	start=$(date +%s%N)
	"$CTL" resize m --mem "${mem}M" >"$T/out"
	up=$((($(date +%s%N) - start) / 1000000))
	same "up-$round" $((mem << 20)) "$(member memory.actual <"$T/out")"
	[ $(($(total) - small)) -ge $(((mem - base) * 1024 * 9 / 10)) ]
	holds "the-guest-has-it-$round" "$small, now $(total) KiB"
	same "so-has-its-control-group-$round" $((mem + overhead)) "$(limit)"
	in_guest "mount -o remount,size=$((fill + 64))M /m; dd if=/dev/zero of=/m/f bs=1M count=$fill 2>/dev/null"
	full=$(host)
	[ $((full - before)) -ge $((fill * 9 / 10)) ]
	holds "the-guest-uses-it-$round" "$before, then $full MiB"
	in_guest 'rm /m/f'
	start=$(date +%s%N)
	"$CTL" resize m --mem "${base}M" >"$T/out" &
	resize=$!
	sleep 0.5
	pid=$(helper m)
	kill -9 "$pid"
	wait $resize
	until_ $patience "$base" of m actual
	holds "down-while-insula-mem-is-killed-$round" "the guest has $got MiB, after $(cat "$T/out")"
	down=$((($(date +%s%N) - start) / 1000000))
	until_ 10 $((base + overhead)) limit
	holds "the-control-group-follows-$round" "$got MiB"
	[ "$(host)" -le $((before + (full - before) / 10)) ]
	holds "the-host-has-it-back-$round" "$before, then $full, now $(host) MiB"
	echo "# $base to $mem MiB in $up ms, back in $down ms; on the host $before MiB, $full, $(host)"
	same "what-the-guest-keeps-is-what-it-was-$round" "$keep" "$(in_guest "$sum")"
done

# ---- saved in the middle

part=$((base + 128))
"$CTL" resize m --mem ${part}M >"$T/out"
in_guest 'dd if=/dev/urandom of=/m/more bs=1M count=8 2>/dev/null; md5sum /m/more >/m/sum'
expect saved 0 '' "$CTL" snapshot m "$T/snap"
"$CTL" create --name r --restore "$T/snap" --mem "${base}M,max=${mem}M" >"$T/out" && "$CTL" start r >"$T/out"
same restored $part "$(of r actual)"
expect its-memory-is-there 0 'more: OK' "$CTL" exec r -- md5sum -c /m/sum
"$CTL" resize r --mem "${base}M" >"$T/out"
until_ $patience "$base" of r actual
holds and-can-be-given-back "$got MiB"
expect its-memory-is-still-there 0 'more: OK' "$CTL" exec r -- md5sum -c /m/sum
"$CTL" kill r >/dev/null && "$CTL" rm r >/dev/null
"$CTL" clone --name c m >"$T/out"
same cloned $part "$(of c actual)"
expect the-clone-has-its-memory 0 'more: OK' "$CTL" exec c -- md5sum -c /m/sum
"$CTL" resize c --mem $((part + 64))M >"$T/out"
same the-clone-is-resized-alone "$((part + 64)) $part" "$(of c actual) $(of m actual)"
"$CTL" kill c >/dev/null
# Taking back is one loop of the guest's, which an emulated machine may find long.
same no-complaints '' "$(in_guest 'dmesg' | grep -E 'BUG:|Oops|Bad page|corrupt|virtio_mem.*(error|unknown|fail)' | grep -v 'soft lockup' | head -n 3)"
"$CTL" stop m >"$T/out"
same ends-in-order poweroff "$(member reason <"$T/out")"
"$CTL" rm m >/dev/null

# ---- a guest that writes where it has been given nothing, 128 MiB: its control group has 16 and the overhead

printf w >"$T/keys"
IN=$T/keys expect no-more-than-its-control-group-has 125 'memory.max' "$CTL" run --rm --kernel "$BUILD/guests/vmem.elf" --mem 16M,max=144M

# ---- on PCI

"$CTL" create --name m --bus pci --mem 256M,max=384M >"$T/out" && "$CTL" start m >"$T/out"
expect on-pci 0 virtio_mem "$CTL" exec m -- ls -d /sys/bus/virtio/drivers/virtio_mem
"$CTL" resize m --mem 384M >"$T/out"
same on-pci-up 384 "$(of m actual)"
"$CTL" resize m --mem 256M >"$T/out"
until_ $patience 256 of m actual
holds on-pci-down "$got MiB"
"$CTL" kill m >/dev/null
"$CTL" rm m >/dev/null
