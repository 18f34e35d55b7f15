#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insulad with a Linux guest: commands, console, an insulad that is killed and comes back, the clean end.
. "$(dirname "$0")/lib.sh"
for_user
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
up() { insulad_up '"cgroup": "off"' '"socket_mode": "0666"'; }

PYTHONPATH=$(cd "$(dirname "$0")/../../docs/examples" && pwd) python3 -c 'import insulad_client' # it is to be quick below
up
modprobe tun
ip tuntap add tap7 mode tap
"$CTL" create --name l --mem 192M --console virtio --vsock "path=$T/v.sock" --net tap=tap7,mac=52:54:00:00:07:01,ip=192.0.2.2/24,dns=192.0.2.1 >/dev/null
expect exec-before-start 1 'Wrong state' "$CTL" exec l -- true
"$CTL" start l >/dev/null
# Not queued: the guest has only begun to boot.
cat >"$T/try.py" <<PY
import os, sys
sys.path.insert(0, "$(cd "$(dirname "$0")/../../docs/examples" && pwd)")
from insulad_client import Insulad
null = os.open("/dev/null", os.O_RDWR)
for n, more in ((0, {}), (1, {}), (4, {}), (2, {}), (2, {"cwd": "relative"}), (2, {"env": ["x"], "queue": True}), (2, {"queue": True, "queue_seconds": 0})):
    try:
        print(n, Insulad("$T/s").call("vm.exec", fds=[null] * n, id="l", command=["true"], **more))
    except RuntimeError as e:
        print(n, e.args[0]["data"]["reason"], e.args[0]["message"])
PY
python3 "$T/try.py" >"$T/out" 2>&1
also exec-without-descriptors '^0 descriptor'
also exec-one-descriptor '^1 descriptor'
also exec-four-descriptors '^4 descriptor'
also exec-not-ready '^2 not-ready .*still booting'
also exec-bad-env '^2 bad-params .*NAME=VALUE'
also exec-bad-queue-seconds '^2 value Invalid params'
# Queued, but the guest stands still.
"$CTL" pause l >/dev/null
cat >"$T/late.py" <<PY
import os, sys
sys.path.insert(0, "$(cd "$(dirname "$0")/../../docs/examples" && pwd)")
from insulad_client import Insulad
c = Insulad("$T/s")
null = os.open("/dev/null", os.O_RDWR)
n = c.call("vm.exec", fds=[null] * 2, id="l", command=["true"], queue=True, queue_seconds=1)["exec"]
r = c.call("vm.exec.wait", id="l", exec=n)
print(r["status"], r["text"])
PY
expect exec-not-up 0 '^125 the guest was not up in time$' python3 "$T/late.py"
"$CTL" resume l >/dev/null

# ---- three at once; the first of them waits for the guest

for i in 1 2 3; do
	timeout 60 "$CTL" exec -i l -- sh -c "cat; echo out $i; echo err $i >&2; exit 4$i" <<<"in $i" >"$T/o$i" 2>"$T/e$i" &
	pid[i]=$!
done
for i in 1 2 3; do
	wait "${pid[i]}"
	same "exec-$i-of-three" "41/in 1/out 1/err 1/" "$(printf '%s/' $(($? - i + 1)) "$(tr "$i" 1 <"$T/o$i" | tr '\n' /)" "$(tr "$i" 1 <"$T/e$i")" | sed 's,//,/,g')"
done
expect exec-not-found 127 'nope: command not found' "$CTL" exec l nope
expect exec-settings 0 '^one /proc 1000$' "$CTL" exec -e A=one -w /proc -u 1000 l -- sh -c 'echo $A $PWD $(id -u)'
expect exec-user-name 0 '^65534 65534 nobody$' "$CTL" exec -u nobody l -- sh -c 'echo $(id -u) $(id -g) $USER'
expect exec-user-name-group 0 '^7 0$' "$CTL" exec -u 7:root l -- sh -c 'echo $(id -u) $(id -g)'
expect exec-user-unknown 126 "user mallory: not in the guest's /etc/passwd" "$CTL" exec -u mallory l -- id
expect exec-user-unknown-group 126 "group mallory: not in the guest's /etc/group" "$CTL" exec -u nobody:mallory l -- id
expect exec-directory-missing 126 '/nowhere: No such file or directory' "$CTL" exec -w /nowhere l -- pwd
expect exec-binary 0 '^1000000$' sh -c 'head -c 1000000 /dev/zero | "$1" exec -i l -- cat | wc -c' - "$CTL"
expect exec-unknown-vm 1 'Not found' "$CTL" exec nobody -- true
expect exec-no-command 2 'a VM and a command' "$CTL" exec l --
expect exec-terminal 0 '33 99' script -qec "stty rows 33 cols 99; $CTL exec -it l -- sh -c 'stty size; tty'" /dev/null
also exec-terminal-tty '/dev/pts/'
"$CTL" exec l -- sh -c 'echo ready; exec sleep 100' >"$T/o1" 2>&1 &
for _ in $(seq 300); do ! grep -q ready "$T/o1" || break; sleep 0.05; done
kill -TERM $!
wait $!
same exec-signal 143 $?

# ---- the answers of vm.exec and its like are as rpc.discover says (tests/daemon/suite.py has the other methods)

cat >"$T/schema.py" <<PY
import os, sys, time
sys.path[:0] = ["$(cd "$(dirname "$0")/../../docs/examples" && pwd)", "$(cd "$(dirname "$0")/../daemon" && pwd)"]
from insulad_client import Insulad
import schema
c = Insulad("$T/s")
methods = {m["name"]: m for m in c.call("rpc.discover")["methods"]}
null = os.open("/dev/null", os.O_RDWR)

def call(method, fds=(), **params):
    m = methods[method]
    for p in m["params"]:
        if p["name"] in params:
            schema.validate(p["schema"], params[p["name"]], method + "." + p["name"])
        else:
            assert not p["required"], (method, p)
    assert set(params) <= {p["name"] for p in m["params"]}, (method, params)
    r = c.call(method, fds=fds, **params)
    schema.validate(m["result"]["schema"], r, method)
    return r

n = call("vm.exec", fds=[null] * 2, id="l", command=["sh", "-c", "sleep 100"], env=["A=b"], cwd="/", user="0:0", tty=True, rows=20, cols=70, queue=True)["exec"]
for _ in range(100):
    try:
        call("vm.exec.resize", id="l", exec=n, rows=30, cols=80)
        break
    except RuntimeError as e:  # it has not begun yet
        assert e.args[0]["data"]["reason"] == "not-ready", e
        time.sleep(0.1)
call("vm.exec.signal", id="l", exec=n, signal=9)
r = call("vm.exec.wait", id="l", exec=n, timeout_ms=60000)
print("validated", r["status"])
PY
expect exec-schemas 0 '^validated 137$' python3 "$T/schema.py"

# ---- the console: a shell, as without the daemon

mkfifo "$T/in"
exec 9<>"$T/in"
# attach NAME REGEX [INPUT]: until REGEX is there, at most 30 s
attach() {
	"$CTL" console l <"$T/in" >"$T/out" 2>&1 &
	[ -z "${3:-}" ] || echo "$3" >&9
	for _ in $(seq 300); do ! grep -q "$2" "$T/out" || break; sleep 0.1; done
	kill $!
	wait $! 2>/dev/null
	also "$1" "$2"
}
attach console-shell mark-42 'echo mark-$((40 + 2))'
attach console-scroll-back mark-42
expect log-of-a-virtio-console 0 'mark-42' "$CTL" logs l

# ---- the guest is told that it goes on

HERE=$(cd "$(dirname "$0")" && pwd)
in_guest() { "$CTL" exec l -- sh -c "$1" 2>&1; }
renewed() { # once there are $1 events "renewed"
	for _ in $(seq 300); do [ "$(grep -c '"renewed"' "$T/events")" -lt "$1" ] || return; sleep 0.1; done
}
in_guest 'mkdir -p /etc/insula/resume.d; cd /etc/insula/resume.d
	printf "#!/bin/sh\necho hook \$1 \$INSULA_VM \$(hostname) >>/run/hooks\n" >10-note; chmod 755 10-note'
"$CTL" events l >"$T/events" 2>&1 &
events=$!
sleep 0.5
in_guest 'date -s @1000000000' >/dev/null
"$CTL" pause l >/dev/null
"$CTL" resume l >/dev/null
same resume-leaves-the-clock yes "$([ "$(in_guest 'date +%s')" -lt 1100000000 ] && echo yes)"
"$CTL" pause l >/dev/null
sleep 1
expect resume-set-clock 0 '' "$CTL" resume --set-clock l
renewed 1
before=$(date +%s) guest=$(in_guest 'date +%s') after=$(date +%s)
same resume-sets-the-clock yes "$([ "$guest" -ge $((before - 1)) ] && [ "$guest" -le $((after + 1)) ] && echo yes || echo "$before $guest $after")"
cp "$T/events" "$T/out"
also resume-says-so '"renewed"'
same resume-without-a-failure 0 "$(grep '"renewed"' "$T/events" | grep -c text)"
same resume-runs-hooks 'hook resumed l insula' "$(in_guest 'cat /run/hooks')"
in_guest 'printf "#!/bin/sh\nexit 3\n" >/etc/insula/resume.d/20-fails; chmod 755 /etc/insula/resume.d/20-fails'
"$CTL" resume --set-clock l >/dev/null # of one that runs
renewed 2
cp "$T/events" "$T/out"
also resume-failure-is-told '"renewed".*"text": *"20-fails: status 3"'
kill "$events"
wait "$events" 2>/dev/null
# What a restored one will hear besides: names, and a card.
id=0123456789abcdef0123456789abcdef
in_guest 'rm /etc/insula/resume.d/20-fails; mkdir -p /etc; echo old >/etc/machine-id'
expect identity 0 '^answer 1 0 $' python3 "$HERE/resumed.py" tell "$T/v.sock" clone clone-1 $id \
	52:54:00:00:07:01,52:54:00:00:07:02,ip=198.51.100.7/25,gw=198.51.100.1,dns=198.51.100.2
same identity-names "clone-1 $id hook resumed clone clone-1" "$(in_guest 'echo $(hostname) $(cat /etc/machine-id) $(tail -n 1 /run/hooks)')"
in_guest 'ip addr show eth0; ip route; cat /etc/resolv.conf' >"$T/out"
also identity-mac 'ether 52:54:00:00:07:02'
also identity-address 'inet 198.51.100.7/25'
also identity-route '^default via 198.51.100.1 dev eth0'
also identity-names-server '^nameserver 198.51.100.2'
same identity-nothing-of-before 0 "$(grep -c '192\.0\.2\.' "$T/out")"
expect identity-no-such-card 0 '^answer 3 125 52:54:00:00:07:01: no card has this address$' \
	python3 "$HERE/resumed.py" tell "$T/v.sock" clone '' '' 52:54:00:00:07:01,52:54:00:00:07:03
# A new generation identifier; this kernel may have no driver for it, but it hears the event.
interrupts() { in_guest 'awk "/ACPI:Ged/ { print \$2 }" /proc/interrupts'; }
same genid-quiet 0 "$(interrupts)"
supervisor=$("$CTL" info --json l | member pid)
expect genid 0 '^signalled True$' python3 "$HERE/resumed.py" genid "$supervisor" "$(pgrep -P "$supervisor" -x insula-vmm)"
for _ in $(seq 50); do [ "$(interrupts)" = 0 ] || break; sleep 0.1; done
same genid-interrupt 1 "$(interrupts)"

# ---- insulad dies in between

timeout 60 "$CTL" exec l -- sh -c 'echo before; sleep 3; echo after; exit 9' >"$T/o1" 2>"$T/e1" &
command=$!
for _ in $(seq 300); do ! grep -q before "$T/o1" || break; sleep 0.05; done
kill -9 "$insulad"
wait "$insulad" 2>/dev/null
up
wait "$command"
same exec-outlives-insulad "9/before/after/" "$?/$(tr '\n' / <"$T/o1")"
expect exec-after-restart 3 '^again$' "$CTL" exec l -- sh -c 'echo again; exit 3'
attach console-after-restart mark-42

# ---- another user's

expect another-user 7 '^Linux$' "${AS_USER[@]}" "$CTL" run --rm --mem 160M -- sh -c 'uname; exit 7'
"${AS_USER[@]}" "$CTL" create --name u --mem 160M >"$T/out" 2>&1 && "${AS_USER[@]}" "$CTL" start u >"$T/out" 2>&1
head -c 1000000 /dev/urandom >"$T/data"
"$CTL" exec -i u -- sh -c 'cat; echo err >&2; sleep 2; exit 6' <"$T/data" >"$T/o" 2>"$T/e" &
root=$!
sleep 1
held=$(for p in $(pgrep -u 1000); do readlink "/proc/$p/fd/"*; done | grep -cE "$T/(data|o|e)\$")
wait $root
same root-in-a-users-vm "6 err 0 same" "$? $(cat "$T/e") $held $(cmp "$T/data" "$T/o" && echo same)"
expect root-in-a-users-vm-reader-goes 0 '^y$' sh -c '"$1" exec u -- yes | head -1' - "$CTL"
"$CTL" kill u >/dev/null
expect another-user-sees-no-state 2 'Permission denied' "${AS_USER[@]}" ls "$T/state/vm"

# ---- ends

"$CTL" stop -t 30 l >"$T/out"
same stop-clean "poweroff clean" "$(member reason <"$T/out") $(member stop <"$T/out")"
"$CTL" start l >/dev/null
expect exec-after-start 0 '^up$' "$CTL" exec l echo up
timeout 30 "$CTL" exec l -- sh -c 'kill -STOP $PPID' >/dev/null 2>&1 & # the server of the commands itself
sleep 1
"$CTL" stop -t 2 l >"$T/out"
same stop-forced "stopped forced" "$(member reason <"$T/out") $(member stop <"$T/out")"
wait $!
same exec-of-a-stopped-vm 125 $?
"$CTL" create --name p --kernel "$BUILD/guests/spin.elf" --mem 16M >/dev/null
"$CTL" start p >/dev/null
expect exec-in-a-payload 1 "does not boot Insula's own initrd" "$CTL" exec p -- true
expect set-clock-of-a-payload 1 "does not boot Insula's own initrd" "$CTL" resume --set-clock p
"$CTL" kill p >/dev/null
"$CTL" rm l p >/dev/null

# ---- the log of a job, kept after its end

"$CTL" create --name j --mem 128M -- sh -c 'echo out; echo err >&2; echo kernel >/dev/console; printf "\33[31mred"; exit 4' >"$T/id"
"$CTL" start j >/dev/null
"$CTL" logs -f j >"$T/out" 2>&1 &
follow=$!
"$CTL" wait j >/dev/null
same log-status 4 $?
wait "$follow"
same log-followed "0 out err kernel $(printf '\33[31m')red " "$? $(for w in out err kernel 'red'; do grep -m1 "$w\$" "$T/out"; done | tr '\n' ' ')"
expect log-after-the-end 0 '^out$' "$CTL" logs j
"$CTL" logs --json j >"$T/out"
same log-streams 'stdout:out stderr:err console:kernel' "$(python3 -c 'import json, sys
all = [json.loads(line) for line in sys.stdin]
print(*["%s:%s" % (x["stream"], x["text"]) for w in ("out", "err", "kernel") for x in all if x["text"] == w])' <"$T/out")"
expect log-timestamps 0 '^20[0-9-]*T[0-9:.]*Z stderr  err$' "$CTL" logs --timestamps j
expect log-terminal 0 '^[?]\[31mred' script -qec "$CTL logs j" /dev/null
"$CTL" rm j >/dev/null
# One that floods ends as soon, and fills no disk.
"$CTL" create --name f --mem 128M -- sh -c 'yes | head -c 4000000; echo; echo the end; exit 3' >"$T/id"
"$CTL" start f >/dev/null
"$CTL" wait f >/dev/null
same log-flood-status 3 $?
same log-flood-last 'the end' "$("$CTL" logs --tail 1 f)"
same log-flood-size yes "$([ "$(cat "$T/state/vm/$(cat "$T/id")"/log* | wc -c)" -lt $((9 << 20)) ] && echo yes)"
expect log-flood-is-told 0 'bytes are missing here' "$CTL" logs f
"$CTL" rm f >/dev/null

expect run-command 5 '^shown$' "$CTL" run --rm --mem 128M -- sh -c 'echo shown; exit 5'
mkdir "$T/shared"
echo content >"$T/shared/file"
cd "$T" || exit 1
echo input >"$T/input"
IN=$T/input expect run-flags 6 '^one from-here /proc 1000:1001 content input /dev/hwrng$' env HERE=from-here "$CTL" run --rm --mem 128M -i -e A=one -e HERE -w /proc -u 1000:1001 \
	--share shared:/s --vsock path=v.sock --rng rate=64K -- \
	sh -c 'read -r x; echo $A $HERE $PWD $(id -u):$(id -g) $(cat /s/file) $x $(ls /dev/hwrng); exit 6'
expect run-terminal 0 '/dev/pts/0' script -qec "$CTL run --rm --mem 128M -it -- tty" /dev/null
insulad_down
same insulad-ends 0 $?
