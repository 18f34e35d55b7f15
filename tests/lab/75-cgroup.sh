#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insulad with control groups: each limit holds, an out-of-memory kill is called that, nothing is left.
. "$(dirname "$0")/lib.sh"
for_user
CTL=$BUILD/bin/insulactl
ROOT=/sys/fs/cgroup
export INSULA_SOCKET=$T/s
GROUP=$ROOT # where insulad starts
up() { insulad_up '"overcommit_percent": 1000' "$@"; }
# between NAME LOW HIGH GOT
between() { if [ "$4" -ge "$2" ] && [ "$4" -le "$3" ]; then ok "$1"; else not_ok "$1" "expected $2 to $3, got $4"; fi; }
# run NAME FLAG...: create and start one
run() { "$CTL" create --name "$@" >"$T/out" 2>&1 && "$CTL" start "$1" >"$T/out" 2>&1; }
groups() { find "$ROOT" -type d -name 'vm-*' | wc -l; }
none_left() {
	for _ in $(seq 100); do
		[ "$(groups)" != 0 ] || break
		sleep 0.05
	done
	same "$1" 0 "$(groups)"
}
spin() { run "$1" --kernel "$BUILD/guests/spin.elf" --mem 16M; }

stat -f -c %T "$ROOT" | grep -q cgroup2 || { skip all "$ROOT is not cgroup2"; exit 0; }
for c in cpu memory pids; do
	grep -qw $c "$ROOT/cgroup.controllers" || { skip all "no $c controller of version 2"; exit 0; }
done

# ---- processor: a guest that spins, with a quarter of a processor

up '"cpu_percent": 25' '"overhead_mib": 48'
same in-groups True "$("$CTL" info | member cgroup)"
same no-warning '' "$(grep 'no control groups' "$T/log")"
spin c
g=$(group c)
g_name=${g#"$ROOT"}
same its-own-group "/insula/vm-$("$CTL" info c | member id)" "${g_name%-*}"
# And a thread of KVM's own.
same every-process-in-it '' "$("$CTL" info c | python3 -c 'import json, sys; v = json.load(sys.stdin); have = set(map(int, open(sys.argv[1]).read().split()))
print(*sorted({v["pid"], *(p["pid"] for p in v["processes"])} - have))' "$g/cgroup.procs")"
same cpu.max '25000 100000' "$(cat "$g/cpu.max")"
same memory.max $(((16 + 48) << 20)) "$(cat "$g/memory.max")"
same memory.swap.max 0 "$(cat "$g/memory.swap.max" 2>/dev/null || echo 0)"
same memory.oom.group 1 "$(cat "$g/memory.oom.group")"
usage() { sed -n 's/^usage_usec //p' "$g/cpu.stat"; }
sleep 1
start=$(now_ms) used=$(usage)
sleep 4
between cpu-holds 50 300 $((($(usage) - used) / ($(now_ms) - start)))
between cpu-was-throttled 1 1000000 "$(sed -n 's/^nr_throttled //p' "$g/cpu.stat")"

# ---- processes: a process of the VM that was taken over starts as many as it can

pids=$(cat "$g/pids.max")
between pids.max 16 2000 "$pids"
cat >"$T/threads.py" <<'PY'
import sys, threading, time
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
threading.stack_size(65536)
n = 0
try:
    while n < 5000:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        n += 1
except RuntimeError:
    pass
print(n, open(sys.argv[1] + "/pids.current").read(), flush=True)
time.sleep(1000)
PY
python3 "$T/threads.py" "$g" >"$T/out" 2>&1 &
hostile=$!
for _ in $(seq 1200); do [ ! -s "$T/out" ] || break; sleep 0.1; done
read -r n current <"$T/out"
between pids-hold 1 "$pids" "${n:-0}"
same pids-at-the-limit "$pids" "${current:-0}"
same the-vm-goes-on running "$("$CTL" info c | member state)"
kill -9 $hostile
wait $hostile 2>/dev/null

# ---- memory: the same VM takes more than is left; the whole VM ends, and the reason is told

"$CTL" events c >"$T/events" &
events=$!
sleep 1
cat >"$T/hog.py" <<'PY'
import sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
hold = [bytearray(1 << 20) for _ in range(512)]
PY
mkdir "$g/held" # the group cannot go for a while
python3 "$T/hog.py" "$g"
same oom-kills-the-hog 137 $?
"$CTL" wait c >"$T/out"
same oom-reason oom "$(member reason <"$T/out")"
also oom-message 'memory\.max'
same oom-state ended "$("$CTL" info c | member state)"
sleep 0.5
same oom-event oom "$(python3 -c 'import json, sys; print([e["data"]["reason"] for e in map(json.loads, open(sys.argv[1])) if e["event"] == "ended"][-1])' "$T/events" 2>&1)"
kill $events
"$CTL" start c >/dev/null
h=$(group c)
if [ "$h" != "$g" ]; then ok a-group-for-each-start; else not_ok a-group-for-each-start "$h"; fi
sleep 1
same started-again-at-once running "$("$CTL" info c | member state)"
mkdir "$h/held"
kill -9 "$("$CTL" info c | member pid)"
"$CTL" wait c >"$T/out"
same another-oom-is-not-this-one supervisor-killed "$(member reason <"$T/out")"
"$CTL" start c >/dev/null
sleep 1
same started-again-after-a-crash running "$("$CTL" info c | member state)"
"$CTL" kill c >/dev/null
rmdir "$g/held" "$h/held"
none_left leaves-no-group
"$CTL" rm c >/dev/null
insulad_down

# ---- what a VM may use: all of its guest's memory, and a disk through the page cache, with the default. The disk is a file on a disk: what is
# written to a tmpfs stays in memory, and in the group.

modprobe brd rd_nr=1 rd_size=409600 && [ -b /dev/ram0 ] || { not_ok disk "no module brd"; exit 1; }
mke2fs -q -F -t ext4 /dev/ram0 >/dev/null 2>&1
mkdir "$T/mnt"
mount /dev/ram0 "$T/mnt"
truncate -s 300M "$T/mnt/disk"
up
run m --mem 192M --disk "path=$T/mnt/disk"
g=$(group m)
expect memory-is-enough 0 '' "$CTL" exec m -- sh -c 'mkdir /m && mount -t tmpfs -o size=100% t /m && dd if=/dev/zero of=/m/f bs=1M count=100 && dd if=/dev/zero of=/dev/vda bs=1M count=300'
same no-oom 0 "$(sed -n 's/^oom_kill //p' "$g/memory.events")"
between memory-is-charged $((100 << 20)) $(((192 + 64) << 20)) "$(cat "$g/memory.peak" 2>/dev/null || cat "$g/memory.current")"
"$CTL" stop m >"$T/out"
same stop-clean poweroff "$(member reason <"$T/out")"
"$CTL" rm m >/dev/null
none_left stop-leaves-no-group
insulad_down
umount "$T/mnt"

# ---- disk: 4 MiB at 1 MiB a second

if grep -qw io "$ROOT/cgroup.controllers"; then
	io="$(stat -c '%Hr:%Lr' /dev/ram0)"
	written() {
		local start
		"$CTL" exec "$1" true
		start=$(now_ms)
		"$CTL" exec "$1" -- dd if=/dev/zero of=/dev/vda bs=256k count=16 oflag=direct >"$T/out" 2>&1
		echo $(($(now_ms) - start))
	}
	up
	run i --mem 128M --disk path=/dev/ram0,direct
	free=$(written i)
	"$CTL" stop i >/dev/null
	insulad_down
	up "\"io_max\": \"$io wbps=1048576\""
	"$CTL" start i >/dev/null
	g=$(group i)
	same io.max "$io rbps=max wbps=1048576 riops=max wiops=max" "$(cat "$g/io.max")"
	between io-holds $((free + 2500)) 60000 "$(written i)"
	between io-is-charged $((4 << 20)) $((8 << 20)) "$(sed -n "s/^$io .*wbytes=\([0-9]*\).*/\1/p" "$g/io.stat")"
	"$CTL" stop i >/dev/null
	"$CTL" rm i >/dev/null
	insulad_down
else
	skip io-holds "no io controller"
fi
rmmod brd

# ---- nothing is left, whoever dies

up
for i in $(seq "$(short 6 20)"); do "$CTL" run --rm --kernel "$BUILD/guests/hello.elf" --mem 16M >/dev/null; done
none_left churn-leaves-no-group
spin k
kill -9 "$("$CTL" info k | member pid)"
"$CTL" wait k >"$T/out"
same supervisor-killed supervisor-killed "$(member reason <"$T/out")"
none_left supervisor-killed-leaves-no-group
"$CTL" start k >/dev/null
kill -9 "$insulad"
wait "$insulad" 2>/dev/null
same its-group-outlives-insulad 1 "$(groups)"
kill -9 "$(cat "$ROOT"/insula/vm-*/cgroup.procs | head -n 1)"
up
same found-after-restart ended "$("$CTL" info k | member state)"
none_left restart-leaves-no-group
"$CTL" start k >/dev/null
kill -9 "$insulad"
wait "$insulad" 2>/dev/null
up
python3 "$T/hog.py" "$(group k)"
"$CTL" wait k >"$T/out"
same oom-of-an-adopted-vm oom "$(member reason <"$T/out")"
"$CTL" rm k >/dev/null
insulad_down

# ---- another user's insulad, below a group that was handed over; twice, because the second begins in the leaf of the first

mkdir "$ROOT/service" "$T/theirs"
chown 1000:1000 "$T/theirs" "$ROOT/service" "$ROOT"/service/cgroup.{procs,subtree_control}
echo "+memory +cpu +pids" >"$ROOT/cgroup.subtree_control"
keep=$T
T=$T/theirs INSULA_SOCKET=$keep/theirs/s INSULAD_AS=("${AS_USER[@]}")
for n in first second; do
	if [ $n = first ]; then GROUP=$ROOT/service; else GROUP=$ROOT/service/daemon; fi
	up
	same "delegated-$n-daemon" '0::/service/daemon' "$(cat "/proc/$insulad/cgroup")"
	spin "$n"
	same "delegated-$n-vm" "/service/vm-$("$CTL" info $n | member id)" "$(g=$(group $n); g=${g#"$ROOT"}; echo "${g%-*}")"
	same "delegated-$n-user" 1000 "$(stat -c %u "/proc/$("$CTL" info $n | member pid)")"
	"$CTL" kill "$n" >/dev/null
	"$CTL" rm "$n" >/dev/null
	none_left "delegated-$n-leaves-no-group"
	insulad_down
done
T=$keep INSULA_SOCKET=$T/s GROUP=$ROOT INSULAD_AS=()
rmdir "$ROOT/service/daemon" "$ROOT/service"

# ---- where there are none

mkdir "$ROOT/bare"
echo '' >"$T/log"
up "\"cgroup\": \"$ROOT/bare/below\""
expect refused-place-is-told 0 'warning: no control groups \(.*no memory controller.*\): VMs have no limit' cat "$T/log"
same without-groups False "$("$CTL" info | member cgroup)"
expect runs-without-groups 42 '' "$CTL" run --rm --kernel "$BUILD/guests/hello.elf" --mem 16M
insulad_down
rmdir "$ROOT/bare" # what was made below has been taken away
