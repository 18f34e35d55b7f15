#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The balloon with a Linux guest: what the guest frees the host has back, the size that is asked for, a guest that runs out of memory,
# insula-balloon killed under load; what the guest keeps is what it was. The host's side is the memory of the VM's control group.
# BALLOON_MEM: of the guest, in MiB, for a figure with more than 256.
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
mem=${BALLOON_MEM:-256}
fill=$((mem * 9 / 16))
in_guest() { "$CTL" exec m -- sh -c "$1"; }
mib() { echo $(($1 >> 20)); }
host() { mib "$(cat "$g/memory.current")"; }
# until SECONDS WANT COMMAND...: until what it prints is at most (or, with +, at least) WANT; $got is the last
until_() {
	local end=$((SECONDS + $1)) want=$2
	shift 2
	while :; do
		got=$("$@")
		case $want in
		+*) [ "$got" -lt "${want#+}" ] || return 0 ;;
		*) [ "$got" -gt "$want" ] || return 0 ;;
		esac
		[ $SECONDS -lt $end ] || return 1
		sleep 0.3
	done
}
# holds NAME DETAIL: the status of the command before
holds() { if [ $? = 0 ]; then ok "$1"; else not_ok "$1" "$2"; fi; }

GROUP=/sys/fs/cgroup insulad_up
"$CTL" create --name m --mem "${mem}M" --balloon on >"$T/out" && "$CTL" start m >"$T/out"
g=$(group m)
expect the-driver-is-there 0 'virtio_balloon' "$CTL" exec m -- ls -d /sys/bus/virtio/drivers/virtio_balloon
in_guest 'mkdir /m && mount -t tmpfs -o size=100% m /m && dd if=/dev/urandom of=/m/keep bs=1M count=8 2>/dev/null && md5sum /m/keep' >"$T/sum"

# ---- reports: a guest that used most of its memory, and frees it

before=$(host)
in_guest "dd if=/dev/zero of=/m/f bs=1M count=$fill 2>/dev/null"
full=$(host)
[ $((full - before)) -ge $((fill * 9 / 10)) ]
holds the-guest-takes-memory "$before, then $full MiB"
in_guest 'rm /m/f'
start=$(date +%s%N)
until_ 30 $((full - (full - before) * 9 / 10)) host
holds nine-tenths-are-back "before $before, full $full, now $got MiB"
echo "# $before MiB, full $full, back to $got after $((($(date +%s%N) - start) / 1000000)) ms"
"$CTL" metrics m >/dev/null # the next answer has what was counted until this one
sleep 0.5
same by-reports True "$("$CTL" metrics m | python3 -c 'import json, sys; print([d["helper"]["reported_bytes"] for d in json.load(sys.stdin)["devices"] if d["name"] == "balloon"][0] >= 100 << 20)')"

# ---- statistics

"$CTL" balloon m >"$T/out"
same target $((mem << 20)) "$(member target <"$T/out")"
[ "$(member stats.free_bytes <"$T/out")" -gt $((fill << 20)) ] && [ "$(member stats.total_bytes <"$T/out")" -lt $((mem << 20)) ]
holds statistics "$(cat "$T/out")"
same in-info $((mem << 20)) "$("$CTL" info m | member balloon.target)"

# ---- the size

actual() { mib "$("$CTL" balloon m | member actual)"; }
expect too-small 2 "target: 1048576; expected a number from 16777216 " "$CTL" balloon m 1M
expect too-large 2 "target: $(((mem << 20) + 4096)) bytes; expected 16M to" "$CTL" balloon m $(((mem << 20) + 4096))
"$CTL" balloon m 160M >"$T/out"
until_ 60 160 actual
holds inflates "actual is $got MiB"
[ "$(in_guest 'sed -n "s/^MemTotal: *//p" /proc/meminfo' | cut -d' ' -f1)" -lt $((160 << 10)) ]
holds the-guest-has-less "$(in_guest 'head -n 3 /proc/meminfo')"

# ---- a guest that needs more than it has been left with takes it

in_guest 'dd if=/dev/zero of=/m/f bs=1M count=120 2>/dev/null; stat -c %s /m/f; dmesg | grep -c "Out of memory"; rm /m/f' >"$T/out"
same deflates-on-oom "$((120 << 20)) 0" "$(tr '\n' ' ' <"$T/out" | sed 's/ $//')"
"$CTL" balloon m "${mem}M" >"$T/out"
until_ 60 "+$mem" actual
holds deflates "actual is $got MiB"

# ---- killed under load: the guest fills and frees

in_guest 'i=0; while [ -e /m/keep ] && [ ! -e /m/stop ]; do dd if=/dev/zero of=/m/g bs=1M count=60 2>/dev/null; rm /m/g; i=$((i + 1)); done; echo $i >/m/rounds' &
load=$!
helper() { "$CTL" info m | python3 -c 'import json, sys; print([p["pid"] for p in json.load(sys.stdin)["processes"] if p["name"].startswith("insula-balloon") and p["state"] == "ready"][0])' 2>/dev/null; }
kills=0
for i in $(seq 6); do
	if [ $((i % 2)) = 1 ]; then "$CTL" balloon m 180M >/dev/null; else "$CTL" balloon m "${mem}M" >/dev/null; fi
	sleep 0.7
	pid=$(helper)
	[ -n "$pid" ] && kill -9 "$pid" && kills=$((kills + 1))
	sleep 0.5
done
"$CTL" balloon m "${mem}M" >/dev/null
in_guest 'touch /m/stop'
wait $load
[ "$(in_guest 'cat /m/rounds')" -ge 1 ]
holds the-load-went-on "$(in_guest 'cat /m/rounds')"
same restarts $kills "$("$CTL" info m | python3 -c 'import json, sys; print([d["restarts"] for d in json.load(sys.stdin)["devices"] if d["name"] == "balloon"][0])')"
until_ 60 "+$mem" actual
holds deflates-in-the-end "actual is $got MiB"
in_guest 'md5sum /m/keep' >"$T/sum2"
same what-the-guest-keeps-is-what-it-was "$(cat "$T/sum")" "$(cat "$T/sum2")"
# Linux reports blocks of 2 MiB, and by now some of these have a page in use.
until_ 30 $((full - (full - before) * 3 / 4)) host
holds three-quarters-are-back-again "now $got MiB"
same no-complaints '' "$(in_guest 'dmesg' | grep -E 'BUG:|Oops|Bad page|corrupt' | head -n 3)"
"$CTL" stop m >"$T/out"
same ends-in-order poweroff "$(member reason <"$T/out")"
"$CTL" rm m >/dev/null

# ---- a page cache is not free; with idle=SECONDS it goes when the guest rests

truncate -s "${fill}M" "$T/disk"
"$CTL" create --name i --mem "${mem}M" --balloon idle=2 --disk "path=$T/disk" >"$T/out" && "$CTL" start i >"$T/out"
g=$(group i)
"$CTL" exec i -- true
before=$(host)
"$CTL" exec i -- dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null
full=$(mib "$(cat "$g/memory.peak")") # it may be resting already
[ $((full - before)) -ge $((fill * 9 / 10)) ]
holds the-guest-has-a-cache "$before, then $full MiB"
start=$(date +%s%N)
until_ 60 $((full - (full - before) * 9 / 10)) host
holds nine-tenths-of-a-cache-are-back "before $before, full $full, now $got MiB: $("$CTL" balloon i)"
echo "# cache: $before MiB, full $full, back to $got after $((($(date +%s%N) - start) / 1000000)) ms"
until_ 60 "+$mem" eval 'mib "$("$CTL" balloon i | member actual)"'
holds and-the-guest-may-use-it "actual is $got MiB"
expect and-uses-it 0 '' "$CTL" exec i -- dd if=/dev/vda of=/dev/null bs=1M
"$CTL" kill i >/dev/null
"$CTL" rm i >/dev/null

# ---- without

"$CTL" create --name m --kernel "$BUILD/guests/spin.elf" --mem 16M >/dev/null && "$CTL" start m >/dev/null
expect no-balloon 1 'no balloon' "$CTL" balloon m
"$CTL" kill m >/dev/null
"$CTL" rm m >/dev/null
