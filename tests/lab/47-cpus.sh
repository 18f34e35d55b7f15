#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Processors that come and go, with the stock kernel of Debian: from 1 up and back under load; pause, snapshot, restore and clone in between; the
# control group follows.
# CPUS_ROUNDS: how often up and back (1); CPUS_MAX: the most (4).
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
rounds=${CPUS_ROUNDS:-1} max=${CPUS_MAX:-4}
# holds NAME DETAIL: the status of the command before
holds() { if [ $? = 0 ]; then ok "$1"; else not_ok "$1" "$2"; fi; }
# soon SECONDS WANT COMMAND...: until it prints that; $got is the last
soon() {
	local end=$((SECONDS + $1)) want=$2
	shift 2
	while got=$("$@"); [ "$got" != "$want" ]; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}
# to VM N: resize it; what it has then
to() { "$CTL" --json resize --cpus "$2" "$1" 2>&1 | member processors.actual; }
online() { guest "$1" 'cat /sys/devices/system/cpu/online'; }
share() { cut -d' ' -f1 "$g/cpu.max"; }
load='i=0; while [ $i -lt 3 ]; do (while [ ! -e /stop ]; do x=$(dd if=/dev/urandom bs=4k count=20 2>/dev/null | sha256sum); echo x >>/turns.$i; sleep 0.0$i; done) & i=$((i + 1)); done; wait'
turns() { guest "$1" 'cat /turns.* | wc -l'; }

GROUP=/sys/fs/cgroup insulad_up

# ---- before the guest has booted: nobody is there who would hear of it

"$CTL" run -d --name early --cpus 1,max=3 --mem 256M >"$T/out"
same while-it-boots 2 "$(to early 2)"
soon 60 0-1 online early
holds it-is-used-all-the-same "online: $got"
same and-given-back 1 "$(to early 1)"
"$CTL" kill early >/dev/null

"$CTL" create --name m --cpus "1,max=$max" --mem 384M >"$T/out" && "$CTL" start m >"$T/out"
g=$(group m)
expect one-at-first 0 '^0$' "$CTL" exec m -- cat /sys/devices/system/cpu/online
same the-group-has-one 100000 "$(share)"
"$CTL" exec m -- sh -c "$load" &
loaded=$!

# ---- up and down, under load

for r in $(seq "$rounds"); do
	start=$(now_ms)
	same "up-$r" "$max" "$(to m "$max")"
	same "the-group-has-all-$r" $((max * 100000)) "$(share)"
	soon 60 "0-$((max - 1))" online m
	holds "insula-init-uses-them-$r" "online: $got"
	up=$(($(now_ms) - start)) start=$(now_ms)
	same "down-$r" 1 "$(to m 1)"
	same "the-group-has-one-again-$r" 100000 "$(share)"
	same "the-guest-has-one-$r" 0 "$(online m)"
	echo "# round $r: 1 to $max in $up ms, back in $(($(now_ms) - start)) ms"
done

# ---- pause, and a snapshot while one is about to come

same two 2 "$(to m 2)"
soon 60 0-1 online m
holds two-are-used "online: $got"

"$CTL" pause m >/dev/null
"$CTL" --json resize --cpus 3 m >"$T/three" 2>&1 &
asked=$!
sleep 0.5
expect a-snapshot-while-one-is-about-to-come 0 '' "$CTL" snapshot m "$T/snap"
"$CTL" resume m >/dev/null
wait $asked
same three-after-the-pause 3 "$(member processors.actual <"$T/three")"
before=$(turns m)
soon 60 0-2 online m
holds three-are-used "online: $got"
soon 20 yes sh -c "[ \$($CTL exec m -- sh -c 'cat /turns.* | wc -l') -gt $before ] && echo yes"
holds the-load-goes-on "$before turns, and no more"
expect the-size-is-the-snapshots 1 "cpus: expected 1,max=$max, as the snapshot has" "$CTL" run -d --name no --restore "$T/snap" --mem 384M
expect restored 0 '' "$CTL" run -d --name r --restore "$T/snap" --cpus "1,max=$max" --mem 384M
soon 60 0-2 online r
holds the-restored-one-gets-it-too "online: $got"
soon 10 3 sh -c "$CTL --json info r | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"cpus\"])'"
holds and-insulad-knows "$got"
same the-restored-one-gives-back 1 "$(to r 1)"
expect cloned 0 '' "$CTL" clone m --name c
soon 60 0-2 online c
holds a-clone-has-as-many "online: $got"
same a-clone-gives-back 2 "$(to c 2)"
same the-other-has-kept-them 0-2 "$(online m)"
for v in r c; do "$CTL" kill $v >/dev/null; done

# ---- the end of it

same down-at-last 1 "$(to m 1)"
guest m 'touch /stop' >/dev/null
wait $loaded
holds the-load-ended-well $?
guest m dmesg >"$T/out"
nothing_locked_up
"$CTL" stop m >"$T/out"
same ends-in-order poweroff "$(member reason <"$T/out")"
insulad_down
same no-complaints '' "$(grep -E 'error|warning' "$T/log" | head -n 3)"
