#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The metadata service with this machine's TCP as its guest, on /dev/kvm: in a network namespace, behind the second card of a payload that
# carries frames between its two (netbridge.c), curl asks 169.254.169.254; the first card has metadata. Tokens of both kinds, lists, JSON,
# refusals, changes through insulad, a killed insula-metadata and insula-net, slow and many connections, and nothing of it on the wire.
# BUILD names the build directory. One line per case: ok, not ok, skip.
set -u
SUITE=metadata
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm

if [ "$(id -u)" != 0 ] || [ ! -w /dev/net/tun ]; then
	skip all 'not root, or no /dev/net/tun'
	exit 0
fi
if [ -z "${METADATA_NAMESPACE:-}" ]; then
	METADATA_NAMESPACE=1 exec unshare --net bash "$0"
fi
for p in curl ip python3; do
	command -v $p >/dev/null || { skip all "no $p"; exit 0; }
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/metadata.XXXXXX") || exit 1
pids=() daemon=
trap '{ ctl kill v w; kill -KILL $daemon "${pids[@]}"; wait; } >/dev/null 2>&1; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

# ---- input that is refused, before anything is started

# refused NAME TEXT ARG...
refused() {
	local name=$1 text=$2 got=0
	shift 2
	"$RUN" --kernel "$GUESTS/netbridge.elf" "$@" </dev/null >"$dir/out" 2>&1 || got=$?
	if [ $got = 2 ] && grep -qF -- "$text" "$dir/out"; then ok "$name"; else not_ok "$name" "status $got: $(cat "$dir/out")"; fi
}
# Nothing beyond this can be in a message of 50 KiB and an object.
big() { printf '{"a":"%*s"}' "$1" ''; }
echo '{"a":' >"$dir/cut"
echo '["a"]' >"$dir/array"
echo '{"a/b":1}' >"$dir/slash"
echo '{"":1}' >"$dir/empty"
printf '{"a":%s%s}' "$(printf '[%.0s' {1..12})" "$(printf ']%.0s' {1..12})" >"$dir/deep"
big 51193 >"$dir/big"
echo '{}' >"$dir/good"
ip link set lo up
ip tuntap add tap0 mode tap
ip tuntap add tap1 mode tap
refused no-file "--metadata: $dir/none: No such file" --net tap=tap1 --metadata "$dir/none"
refused no-card '--metadata: no network card; expected --net, too' --metadata "$dir/good"
refused two-cards 'metadata: two cards; expected at most one' --net tap=tap0,metadata --net tap=tap1,metadata
refused no-json "--metadata: $dir/cut: metadata: " --net tap=tap1 --metadata "$dir/cut"
refused no-object 'expected an object of JSON' --net tap=tap1 --metadata "$dir/array"
refused slash "the name 'a/b'; expected some characters, without a slash" --net tap=tap1 --metadata "$dir/slash"
refused empty-name "the name ''; expected some characters" --net tap=tap1 --metadata "$dir/empty"
refused too-deep 'expected objects at most 12 deep' --net tap=tap1 --metadata "$dir/deep"
refused too-large '51201 bytes as JSON; expected at most 51200' --net tap=tap1 --metadata "$dir/big"

# ---- a VM

cat >"$dir/tree" <<'JSON'
{"latest": {"meta-data": {"instance-id": "i-0123", "local-hostname": "box", "count": 3, "placement": {"zone": "a"}},
  "user-data": "#cloud-config\nhostname: \u00e4\n"}, "list": [1, 2], "empty": {}}
JSON
ip addr add 192.0.2.2/24 dev tap0
ip link set tap0 up
ip link set tap1 up
# The first guest's way is the address itself, a link-local one.
ip route add 169.254.169.254 dev tap0
python3 - "$dir/wire" <<'PY' &
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("tap1", 0))
f = open(sys.argv[1], "w")
print("ready", file=f, flush=True)
while True:
    d = s.recv(65536)
    there = bytes([169, 254, 169, 254])
    if d[12:14] == b"\x08\0" and there in (d[26:30], d[30:34]) or d[12:14] == b"\x08\6" and there in (d[28:32], d[38:42]):
        print("metadata", d[:60].hex(), file=f, flush=True)
    elif d[12:14] == b"\x08\6":
        print("other", file=f, flush=True)
PY
pids+=($!)
wait_for 20 grep -qs ready "$dir/wire"
mkdir "$dir/state"
printf '{"state_dir": "%s", "socket": "%s", "cgroup": "off"}\n' "$dir/state" "$dir/socket" >"$dir/conf"
"$BUILD/bin/insulad" --config "$dir/conf" >"$dir/log" 2>&1 </dev/null &
daemon=$!
ctl() { "$BUILD/bin/insulactl" --socket "$dir/socket" "$@" </dev/null 2>&1; }
wait_for 20 ctl info >/dev/null || { not_ok insulad "$(cat "$dir/log")"; exit 1; }
vm=(--kernel "$GUESTS/netbridge.elf" --mem 16M --net tap=tap1,metadata --net tap=tap0 --rng off)
ctl run -d --name v "${vm[@]}" --metadata "$dir/tree" >"$dir/out"
is_up() { ctl logs v | grep -q up; }
wait_for 20 is_up
holds starts $? "$(cat "$dir/out" "$dir/log"; ctl logs v)"
[ $failed = 0 ] || exit 1
supervisor() { ctl --json info "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'; }
run=$(supervisor v)

U=http://169.254.169.254
ask() { curl -s -m $((10 * slow)) "$@" 2>&1; }
code() { ask -o /dev/null -w '%{http_code}' "$@"; }
# Whoever asks while a process is away asks again.
token() { ask -X PUT -H 'X-metadata-token-ttl-seconds: 300' $U/latest/api/token; }
get() { ask -H "X-metadata-token: $T" "$@"; }

T=$(token)
same token 40 ${#T}
same string i-0123 "$(get $U/latest/meta-data/instance-id)"
same list 'instance-id
local-hostname
count
placement/' "$(get $U/latest/meta-data/)"
same root 'latest/
list
empty/' "$(get $U)"
same lines '#cloud-config
hostname: ä' "$(get $U/latest/user-data)"
same date box "$(get $U/2021-03-23/meta-data/local-hostname)"
same json '{"zone":"a"}' "$(get -H 'Accept: application/json' $U/latest/meta-data/placement)"
same json-list '[1,2]' "$(get -H 'Accept: application/json' $U/list)"
same empty '' "$(get $U/empty)"
same number 501 "$(code -H "X-metadata-token: $T" $U/latest/meta-data/count)"
same nowhere 404 "$(code -H "X-metadata-token: $T" $U/latest/nowhere)"
same no-token 401 "$(code $U/latest/)"
same wrong-token 401 "$(code -H "X-metadata-token: ${T%?}" $U/latest/)"
same proxy 400 "$(code -X PUT -H 'X-metadata-token-ttl-seconds: 60' -H 'X-Forwarded-For: 192.0.2.9' $U/latest/api/token)"
same no-seconds 400 "$(code -X PUT $U/latest/api/token)"
same seconds-0 400 "$(code -X PUT -H 'X-metadata-token-ttl-seconds: 0' $U/latest/api/token)"
same seconds-many 400 "$(code -X PUT -H 'X-metadata-token-ttl-seconds: 21601' $U/latest/api/token)"
same method 405 "$(code -X POST -d x $U/latest/)"
same large-request 413 "$(code -X PUT --data-binary @"$dir/big" $U/latest/api/token)"
E=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 1' -D "$dir/head" $U/latest/api/token)
grep -qi '^x-aws-ec2-metadata-token-ttl-seconds: 1' "$dir/head"
holds ec2-seconds $? "$(cat "$dir/head")"
E=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $U/latest/api/token)
same ec2 i-0123 "$(ask -H "X-aws-ec2-metadata-token: $E" $U/latest/meta-data/instance-id)"
short=$(ask -X PUT -H 'X-metadata-token-ttl-seconds: 1' $U/latest/api/token)
expired() { [ "$(code -H "X-metadata-token: $short" $U/latest/)" = 401 ]; }
wait_for 20 expired
holds expires $? "it still counts"

# The same by a router: frames to another station's address, which is on the wire no more than those before.
ip route del 169.254.169.254 dev tap0
ip neigh add 192.0.2.1 lladdr 02:00:5e:00:53:01 dev tap0 nud permanent
ip route add default via 192.0.2.1
same by-router box "$(get $U/latest/meta-data/local-hostname)"

# ---- changes

echo '{"latest": {"meta-data": {"local-hostname": "other", "count": null, "new": {"a": "b"}}}, "list": null}' >"$dir/patch"
ctl metadata patch v "$dir/patch" >"$dir/out"
same patched other "$(get $U/latest/meta-data/local-hostname)"
same patched-list 'instance-id
local-hostname
placement/
new/' "$(get $U/latest/meta-data/)"
same read-back 'other b None' "$(ctl metadata get v | python3 -c 'import json, sys
t = json.load(sys.stdin)
print(t["latest"]["meta-data"]["local-hostname"], t["latest"]["meta-data"]["new"]["a"], t.get("list"))')"
python3 -c 'import json, sys; json.dump({"latest": {"q": "\"\\\n" * 8000}}, open(sys.argv[1], "w"))' "$dir/quotes"
ctl metadata set v "$dir/quotes" >"$dir/out"
same large 24000 "$(get $U/latest/q | wc -c)"
same large-back yes "$(ctl metadata get v | python3 -c 'import json, sys; print("yes" if json.load(sys.stdin) == json.load(open(sys.argv[1])) else "no")' "$dir/quotes")"
same too-large-patch 2 "$(python3 -c 'import json, sys; json.dump({"more": "x" * 30000}, open(sys.argv[1], "w"))' "$dir/more"
	ctl metadata patch v "$dir/more" >"$dir/out"
	echo $?)"
same too-large-patch-words 1 "$(grep -c 'expected at most 51200' "$dir/out")"
same unchanged 24000 "$(get $U/latest/q | wc -c)"
ctl metadata set v "$dir/tree" >"$dir/out"
same set-back box "$(get $U/latest/meta-data/local-hostname)"

# ---- a snapshot has it

ctl metadata patch v "$dir/patch" >"$dir/out"
ctl snapshot --stop v "$dir/snap" >"$dir/out"
holds snapshot $? "$(cat "$dir/out")"
# The kernel may still have the TAPs of processes that have ended.
goes_on() { ctl run -d --name w --restore "$dir/snap" >"$dir/out" || { ctl rm w >/dev/null; false; }; }
wait_for 20 goes_on || { not_ok goes-on "$(cat "$dir/out")"; exit 1; }
run=$(supervisor w)
again() { T=$(token) && [ ${#T} = 40 ]; }
wait_for 20 again
same restored other "$(get $U/latest/meta-data/local-hostname)"
ctl metadata set w "$dir/tree" >"$dir/out"

# ---- without tokens, where that is said

ctl kill w >/dev/null
ctl rm w >/dev/null
open_up() { ctl run -d --name w "${vm[@]}" --metadata "$dir/tree,tokens=optional" >"$dir/out" || { ctl rm w >/dev/null; false; }; }
wait_for 20 open_up || { not_ok open-up "$(cat "$dir/out")"; exit 1; }
run=$(supervisor w)
wait_for 20 again
same open box "$(ask $U/latest/meta-data/local-hostname)"
same open-wrong-token 401 "$(code -H "X-metadata-token: x" $U/latest/)"

# ---- processes that die

helper() { pgrep -P "$run" -x "$1"; }
old=$(helper insula-metadata)
kill -KILL "$old"
back() { T=$(token) && [ ${#T} = 40 ] && [ "$(helper insula-metadata)" != "$old" ]; }
wait_for 20 back
holds helper-killed $? "$(ctl logs w | tail)"
same tree-survives box "$(get $U/latest/meta-data/local-hostname)"
old=$(helper insula-net | head -n 1)
kill -KILL $(helper insula-net)
both() { [ "$(helper insula-net | grep -c .)" = 2 ] && [ "$(get $U/latest/meta-data/local-hostname)" = box ]; }
wait_for 20 both
holds net-killed $? "$(ctl logs w | tail)"

# ---- slow, many, wrong

python3 - "$slow" <<'PY' >"$dir/many" 2>&1
import socket, sys, time
slow = int(sys.argv[1])
there = ("169.254.169.254", 80)
def connect():
    s = socket.create_connection(there, 10 * slow)
    s.settimeout(25 * slow)
    return s
# More that say nothing than there are places: the last one is served.
idle = [connect() for _ in range(40)]
s = connect()
s.sendall(b"PUT /latest/api/token HTTP/1.1\r\nX-metadata-")
time.sleep(0.3)
s.sendall(b"token-ttl-seconds: 60\r\n")
s.sendall(b"\r\n")
d = b""
while True:
    n = s.recv(100)
    if not n:
        break
    d += n
print("in pieces", d.split(b"\r\n")[0].decode())
# One that goes on and on is ended.
s = connect()
begin = time.monotonic()
try:
    while time.monotonic() - begin < 60 * slow:
        s.sendall(b"G")
        time.sleep(0.5)
    print("slow: never ended")
except OSError:
    print("slow: ended")
s = connect()
s.sendall(b"\0\xff nonsense\r\n\r\n")
print("nonsense", s.recv(100).split(b"\r\n")[0].decode())
s = socket.socket()
s.settimeout(10 * slow)
print("port 81", s.connect_ex(("169.254.169.254", 81)))
PY
same pieces-beside-idle-ones 'in pieces HTTP/1.1 200 OK' "$(grep pieces "$dir/many")"
same slow-ended 'slow: ended' "$(grep slow "$dir/many")"
same nonsense 'nonsense HTTP/1.1 400 Bad Request' "$(grep nonsense "$dir/many")"
same other-port 'port 81 111' "$(grep port "$dir/many")"

# ---- the jail, and the wire

pid=$(helper insula-metadata)
same jail '2 1' "$(sed -n 's/^Seccomp:\t//p; s/^NoNewPrivs:\t//p' "/proc/$pid/status" | sort -r | paste -sd' ')"
fds=$(ls -l "/proc/$pid/fd" | sed -n 's/.* -> //p' | sed 's/:.*//; s/\/dev\/null/null/' | sort | uniq -c | sed 's/^ *//' | paste -sd,)
same holds-two-sockets '1 null,2 pipe,2 socket' "$fds"
# What is not for it passes.
ping -c 1 -W 1 192.0.2.77 >/dev/null 2>&1
wait_for 20 grep -qs other "$dir/wire"
holds others-pass $? "no frame of another address was seen on the wire"
same nothing-on-the-wire '' "$(grep metadata "$dir/wire")"
ctl kill w >/dev/null
exit $failed
