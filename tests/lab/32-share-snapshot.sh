#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A guest with a live share is saved and goes on: files that it has open, half read and half written, stay what they are, and it sees what the host
# does with the directory. Clones, from one directory or from copies; a file that is gone by then; processes that are killed, or stand still, in
# the middle of the snapshot. It takes a virtiofsd that can say what it holds, which Debian 12 does not have: 32-share-snapshot.host has fetched
# that of Debian 13, and here it lies over /usr, with the libraries that it needs.
if [ -z "${OVER_USR:-}" ]; then
	exec unshare -m --propagation private env OVER_USR=1 bash "$0"
fi
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
for need in fuse overlay; do
	modprobe $need 2>/dev/null || true
done

# ---- one that cannot
mkdir "$T/old"
insulad_up '"cgroup": "off"'
if [ -x /usr/lib/qemu/virtiofsd ] && [ ! -x /usr/libexec/virtiofsd ] && [ ! -x /usr/lib/virtiofsd ]; then
	expect old 0 '' "$CTL" run -d --name old --mem 128M --share "$T/old:/s" --
	guest old 'echo here >/s/f' >"$T/out"
	expect old-is-refused 1 'fs0: what its back end holds cannot be part of a snapshot; expected one that can say it' "$CTL" snapshot old "$T/snap-old"
	same old-goes-on here "$(guest old 'cat /s/f')"
	"$CTL" rm -f old >/dev/null 2>&1
fi
insulad_down

mount -t overlay -o "lowerdir=$BUILD/debian-13/usr:/usr" none /usr || { not_ok overlay "no overlay over /usr"; exit 1; }
D=$T/dir
mkdir "$D"
insulad_up '"cgroup": "off"'

# begin VM DIRECTORY: a guest that reads /s/in, writes /s/log, and has a file open that is not there any more. It goes on at /tmp/go.
begin() {
	rm -rf "$2"
	mkdir -p "$2/sub/deep"
	printf 'first\nsecond\n' >"$2/in"
	echo deep >"$2/sub/deep/f"
	echo gone >"$2/gone"
	expect "begin-$1" 0 '' "$CTL" run -d --name "$1" --mem 192M --share "$2:/s" --
	guest "$1" 'cat >/tmp/job <<"JOB"
exec 3</s/in 4>>/s/log 5</s/gone 6</s/sub/deep/f
rm /s/gone
read -r a <&3
echo "read $a" >&4
until [ -e /tmp/go ]; do sleep 0.1; done
read -r b <&3
read -r c <&6
read -r d <&5 || d=error
echo "read $b $c $d $(cat /s/new 2>/dev/null)" >&4
cat /s/in >/dev/null && echo "seen $(ls /s | xargs)" >&4
touch /tmp/done
JOB
	setsid sh /tmp/job >/tmp/job.out 2>&1 & until grep -q first /s/log 2>/dev/null; do sleep 0.1; done; echo begun' >"$T/out"
	also "begun-$1" begun
}
# go VM: the rest of that
go() { guest "$1" 'touch /tmp/go; for i in $(seq 300); do [ -e /tmp/done ] && break; sleep 0.1; done; cat /tmp/job.out'; }
# saves NAME VM PATH ARGUMENTS...: a snapshot is made
saves() { expect "$1" 0 '' timeout 120 "$CTL" snapshot "${@:4}" "$2" "$3"; }

# ---- the source goes on
begin v0 "$D"
saves live v0 "$T/snap"
same is-of-format-3 3 "$(member format <"$T/snap/machine.json")"
cp -a "$D" "$T/copy"
echo of-the-source >"$D/new"
go v0 >"$T/out"
same source-goes-on 'read first|read second deep gone of-the-source|seen in log new sub' "$(paste -sd'|' "$D/log")"
saves source-again v0 "$T/snap2"
"$CTL" rm -f v0 >/dev/null 2>&1

# ---- again and again, under a guest that writes without a pause
expect busy 0 '' "$CTL" run -d --name b --mem 192M --share "$D:/s" --
guest b 'cat >/tmp/job <<"JOB"
exec 4>/s/busy
n=0
while [ ! -e /tmp/enough ]; do n=$((n + 1)); echo $n >&4 || break; done
echo $n >/tmp/wrote
JOB
setsid sh /tmp/job >/tmp/job.out 2>&1 & until [ -s /s/busy ]; do sleep 0.1; done' >"$T/out"
failed=
for i in $(seq "$(short 3 8)"); do
	timeout 120 "$CTL" snapshot b "$T/busy" >"$T/out" 2>&1 || failed+="$i: $(tail -n 1 "$T/out") "
	rm -rf "$T/busy"
done
same busy-saved '' "$failed"
wrote=$(guest b 'touch /tmp/enough; until [ -e /tmp/wrote ]; do sleep 0.1; done; cat /tmp/job.out /tmp/wrote')
seq "$wrote" | cmp - "$D/busy" >"$T/out" 2>&1
same busy-wrote-all '' "$(cat "$T/out")"
"$CTL" rm -f b >/dev/null 2>&1
rm "$D/busy"

# ---- and somebody else goes on from there, in a copy of the directory
echo of-the-copy >"$T/copy/new"
expect restore 0 '' "$CTL" run -d --name v1 --restore "$T/snap" --share "$T/copy:/s" --
go v1 >"$T/out"
same restored-goes-on 'read first|read second deep error of-the-copy|seen in log new sub' "$(paste -sd'|' "$T/copy/log")"
same source-is-untouched 'read first|read second deep gone of-the-source|seen in log new sub' "$(paste -sd'|' "$D/log")"
guest v1 'echo made-later >/s/later; mkdir /s/sub/more; mv /s/in /s/sub/more/in; cat /s/sub/more/in' >"$T/out"
also restored-works second
same restored-writes 'made-later second' "$(cat "$T/copy/later") $(tail -n 1 "$T/copy/sub/more/in")"
# What it holds after that is saved again.
guest v1 'exec 3</s/later; ls -R /s >/dev/null; true' >"$T/out"
saves restored-is-saved v1 "$T/snap3" --stop
"$CTL" rm -f v1 >/dev/null 2>&1
expect restored-again 0 '' "$CTL" run -d --name v2 --restore "$T/snap3" --
same restored-again-reads 'made-later second' "$(guest v2 'echo $(cat /s/later) $(tail -n 1 /s/sub/more/in)')"
"$CTL" rm -f v2 >/dev/null 2>&1

# ---- a process of the restored VM dies: as ever, the guest mounts the share again (docs/architecture.md)
expect restore-3 0 '' "$CTL" run -d --name v3 --restore "$T/snap3" --
shoot v3 'insula-vhost fs0'
same restored-helper-dies made-later "$(guest v3 'until cat /s/later 2>/dev/null; do sleep 0.2; done')"
"$CTL" rm -f v3 >/dev/null 2>&1

# ---- clones
begin c0 "$D"
expect clone 0 '' "$CTL" clone -n 2 --name c c0
for v in c0 c-1 c-2; do
	"$CTL" ps | grep -q "$v" || continue
	go "$v" >>"$T/went"
done
{ cat "$T/went" "$D/log"; tail -n 20 "$T/log"; } >"$T/out" 2>&1
same clones-go-on 'read first 1|read second deep error 2|read second deep gone 1' \
	"$(sed 's/ *$//' "$D/log" | grep read | sort | uniq -c | awk '{ n = $1; $1 = ""; sub(/^ /, ""); print $0, n }' | paste -sd'|')"
# shellcheck disable=SC2046
"$CTL" rm -f $("$CTL" ps -q) >/dev/null 2>&1

# ---- killed, or standing still, in the middle
begin k "$D"
# in_the_middle NAME COMMAND...: virtiofsd stands still, so that insula-vhost waits for it; then the command
in_the_middle() {
	local name=$1 fs client rc=0
	shift
	fs=$(pgrep -x virtiofsd)
	kill -STOP "$fs"
	timeout 120 "$CTL" snapshot k "$T/half" >"$T/out" 2>&1 </dev/null &
	client=$!
	for _ in $(seq 100); do
		[ ! -d "$T/.half.part" ] || break
		sleep 0.05
	done
	sleep 1 # it is asked by now, or will be: both are the middle
	"$@"
	wait $client || rc=$?
	kill -CONT "$fs" 2>/dev/null
	if [ $rc != 0 ] && [ ! -e "$T/half" ]; then ok "$name"; else not_ok "$name" "status $rc, $(ls -d "$T/half" 2>&1)"; fi
}
goes_on() { # NAME: the VM does, with its share
	same "$1" "$1" "$(guest k "until echo $1 >/s/$1; do sleep 0.2; done 2>/dev/null; cat /s/$1")"
	if [ -e "$T/.half.part" ]; then not_ok "$1-part" "it is still there"; else ok "$1-part"; fi
}
in_the_middle virtiofsd-killed eval 'kill -9 $(pgrep -x virtiofsd)'
goes_on after-virtiofsd
in_the_middle insula-vhost-killed eval 'kill -9 $(process k "insula-vhost fs0")'
goes_on after-insula-vhost
in_the_middle virtiofsd-stands true
also standing-is-said 'fs0: '
goes_on after-standing
in_the_middle supervisor-killed eval 'kill -9 $("$CTL" info k | member pid)'
"$CTL" rm -f k >/dev/null 2>&1

# ---- a stored state that is not one
begin h "$D"
saves stored h "$T/snap-h" --stop
"$CTL" rm -f h >/dev/null 2>&1
# What virtiofsd gets is bytes of no meaning; all sums are right.
python3 - "$T/snap-h" <<'PY'
import hashlib, json, struct, sys
d = sys.argv[1]
b = bytearray(open(d + "/devices", "rb").read())
at = 0
def fnv(p):
    n = 2166136261
    for x in p:
        n = ((n ^ x) * 16777619) & 0xffffffff
    return n
while at < len(b):
    kind, version, index, size = struct.unpack_from("<IIII", b, at)
    whole = 24 + (size + 7) // 8 * 8
    if kind == 0x302:
        b[at + 24:at + 24 + size] = b"\xff" * size
        b[at + 16:at + 20] = bytes(4)
        b[at + 16:at + 20] = struct.pack("<I", fnv(b[at:at + whole]))
    at += whole
open(d + "/devices", "wb").write(b)
m = json.load(open(d + "/machine.json"))
m["devices_sha256"] = hashlib.sha256(b).hexdigest()
json.dump(m, open(d + "/machine.json", "w"))
PY
expect nonsense-is-refused 1 'it has not taken what the one of the snapshot held' "$CTL" run -d --name h2 --restore "$T/snap-h" --share "$D:/s" --

# ---- a virtiofsd that cannot take it
umount -l /usr
if [ ! -x /usr/libexec/virtiofsd ] && [ ! -x /usr/lib/virtiofsd ]; then
	expect old-cannot-take-it 1 'it cannot take what the one of the snapshot held; expected one that can' "$CTL" run -d --name o --restore "$T/snap3" --
fi
