#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# vsock with a real Linux guest: streams both ways, a thousand at once, clients that know Firecracker's convention, half-closes, and
# kill -9 of insula-vsock: its connections end, new ones work, and in the middle of a bulk transfer half of it never looks whole to the
# guest. All in one guest. VSOCK_KILLS: how often it is killed under bulk transfers in both directions (2).
. "$(dirname "$0")/lib.sh"
export XDG_CACHE_HOME=$T/cache
PEER=$BUILD/tests/vsockpeer
SOCK=$T/v.sock
KILLS=${VSOCK_KILLS:-2}
make_root "$T/root"
cp "$PEER" "$T/root/bin/"
for a in sleep kill; do ln -s busybox "$T/root/bin/$a"; done

# Ports of the guest: 52 echoes, 53 reads, 9x wait for one connection each, and so tell the script to go on.
# It is the root's own init and not a command: a command's streams are connections too, and end with insula-vsock.
cat >"$T/root/sbin/init" <<END
#!/bin/sh
export PATH=/bin
vsockpeer echo vsock:$ANY:52 &
vsockpeer sink vsock:$ANY:53 &
vsockpeer accept vsock:$ANY:90
vsockpeer load vsock:2:77 100 60000 5 && echo guest-begins
vsockpeer load vsock:2:78 1 10 5 || echo nobody-there
vsockpeer load vsock:2:79 1 10 5 || echo link-refused
vsockpeer load vsock:5:52 1 10 5 || echo other-cid-refused
vsockpeer rtt vsock:2:77 10000000 || echo guest-hears
vsockpeer accept vsock:$ANY:91
vsockpeer load vsock:2:77 20 60000 6 && echo guest-begins-again
vsockpeer source vsock:$ANY:54 $ENDLESS 11 &
vsockpeer source vsock:$ANY:55 $LARGE 12 >/dev/null &
$(bulk_script)
END
chmod 755 "$T/root/sbin/init"

# Its own lines apart: they would cut those of the guest in two.
"$RUN" --rootfs "$T/root" --vsock "path=$SOCK,cid=42" --metrics "$T/m" --timeout 500 >"$T/out" 2>"$T/log" </dev/null &
vm=$!

go_on() { (printf 'CONNECT %s\n' "$1"; sleep 0.2) | timeout 90 socat - "UNIX-CONNECT:$SOCK" >/dev/null 2>&1; }
wait_line() { # REGEX SECONDS
	for _ in $(seq $(($2 * 5))); do
		grep -qE -- "$1" "$T/out" && return
		kill -0 $vm 2>/dev/null || return
		sleep 0.2
	done
}
# check NAME REGEX COMMAND...: as expect, but $T/out is the guest's
check() {
	local name=$1 regex=$2 said
	shift 2
	said=$(timeout 60 "$@" 2>&1) && grep -qE -- "$regex" <<<"$said" && { ok "$name"; return; }
	echo "not ok $name - said: $said"
}

# The guest's port is there when it answers: until then clients wait for the driver, or are refused.
for _ in $(seq 60); do
	"$PEER" rtt "fc:$SOCK:52" 1 >/dev/null 2>&1 && break
	sleep 0.3
done
check round-trips '^[0-9]+$' "$PEER" rtt "fc:$SOCK:52" 100

# A client as Firecracker's users write it.
said=$( (printf 'CONNECT 52\n'; sleep 0.5; printf 'hello from the host'; sleep 0.5) | timeout 90 socat -t 5 - "UNIX-CONNECT:$SOCK")
if [[ $said =~ ^OK\ [0-9]+$'\n'hello\ from\ the\ host$ ]]; then ok socat; else echo "not ok socat - said: $said"; fi
# With the data right behind the line, and the end of it right behind the data.
said=$(printf 'CONNECT 52\nat once' | timeout 90 socat -t 5 - "UNIX-CONNECT:$SOCK")
if [[ $said =~ ^OK\ [0-9]+$'\n'at\ once$ ]]; then ok half-close; else echo "not ok half-close - said: $said"; fi

for bad in 'CONNECT 59' 'CONNECT x' 'HELLO' 'CONNECT 99999999999'; do
	said=$( (echo "$bad"; sleep 0.3) | timeout 90 socat -t 5 - "UNIX-CONNECT:$SOCK" 2>&1)
	if [[ $said == *OK* ]]; then echo "not ok refuses '$bad' - said: $said"; else ok "refuses '$bad'"; fi
done
# One that says nothing is let go.
began=$SECONDS
timeout 60 socat -u "UNIX-CONNECT:$SOCK" - >/dev/null 2>&1
if [ $((SECONDS - began)) -lt 12 ]; then ok silent-client; else echo "not ok silent-client - held for $((SECONDS - began)) s"; fi

check thousand '1000 connections' "$PEER" load "fc:$SOCK:52" 1000 20000 1
check large '8 connections' "$PEER" load "fc:$SOCK:52" 8 1500000 2

# The guest begins: to what is next to the socket, and to nothing else.
"$PEER" echo "unix:${SOCK}_77" &
echo77=$!
ln -s "${SOCK}_77" "${SOCK}_79"
sleep 0.3
go_on 90
wait_line other-cid-refused 40
also guest-begins '^guest-begins'
also nobody-there '^nobody-there'
also link-refused '^link-refused'
also other-cid-refused '^other-cid-refused'

# A connection from each side is open when the helper dies: both ends hear of it.
began=$SECONDS
(printf 'CONNECT 52\n'; sleep 2; kill -9 "$(pgrep -P $vm -x insula-vsock)") | timeout 120 socat -t 60 - "UNIX-CONNECT:$SOCK" >/dev/null 2>&1
if [ $((SECONDS - began)) -lt 50 ]; then ok host-hears-of-kill; else echo "not ok host-hears-of-kill - $((SECONDS - began)) s"; fi
wait_line guest-hears 20
also guest-hears-of-kill '^guest-hears'
for _ in $(seq 50); do
	"$PEER" rtt "fc:$SOCK:52" 1 >/dev/null 2>&1 && break
	sleep 0.2
done
check after-kill '200 connections' "$PEER" load "fc:$SOCK:52" 200 20000 4
go_on 91
wait_line guest-begins-again 30
also guest-begins-after-kill '^guest-begins-again'

# Bulk transfers that have no end, one to the guest and one to the host, until insula-vsock is killed under them. The reader in the guest
# must get an error. The reader on the host cannot be told (docs/protocol.md): it may see an end, but what it has got is right as far as
# it goes, and the guest that was sending gets an error.
"$PEER" source "unix:${SOCK}_80" $ENDLESS 13 >"$T/to-guest" 2>&1 &
echo80=$!
"$PEER" source "unix:${SOCK}_81" $LARGE 14 >/dev/null 2>&1 &
echo81=$!
lines() { grep -cE -- "$1" "$2" 2>/dev/null; }
until_lines() { # REGEX FILE COUNT
	for _ in $(seq 600); do
		[ "$(lines "$1" "$2")" -lt "$3" ] || return 0
		kill -0 $vm 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}
for ((i = 1; i <= KILLS; i++)); do
	timeout 120 "$PEER" fetch "fc:$SOCK:54" $ENDLESS 11 >"$T/to-host.$i" 2>&1 &
	fetch=$!
	until_lines '^fetch begins' "$T/to-host.$i" 1 && until_lines '^fetch begins' "$T/out" "$i" && until_lines '^source begins' "$T/to-guest" "$i" ||
		echo "not ok bulk-$i - the transfers do not begin: $(tail -n 1 "$T/to-host.$i") $(tail -n 1 "$T/out")"
	sleep 0.3
	kill -9 "$(pgrep -P $vm -x insula-vsock)"
	wait $fetch
	status=$?
	case $status in
	1 | 3) ok "bulk-to-host-$i" ;;
	*) echo "not ok bulk-to-host-$i - status $status: $(tail -n 1 "$T/to-host.$i")" ;;
	esac
	until_lines '^bulk-to-guest ' "$T/out" "$i"
done
grep -E '^fetch (error|cut)' "$T/out" "$T"/to-host.* | sed 's/^[^:]*\//# /'
if [ "$(lines '^bulk-to-guest 1' "$T/out")" = "$KILLS" ]; then
	ok bulk-to-guest
else
	echo "not ok bulk-to-guest - not an error each time: $(grep -E '^(fetch|bulk)' "$T/out" | tr '\n' '|')"
fi
wait_line bulk-to-guest-whole 60
also bulk-to-guest-whole '^bulk-to-guest-whole'
check bulk-to-host-whole '^fetch whole' "$PEER" fetch "fc:$SOCK:55" $LARGE 12
until_lines '^source failed' "$T/out" "$KILLS"
if [ "$(lines '^source failed' "$T/out")" -ge "$KILLS" ] && ! grep -q '^source given' "$T/out"; then
	ok bulk-to-host-sender
else
	echo "not ok bulk-to-host-sender - $(grep -aE 'source|fetch' "$T/out" | tr '\n' '|')"
fi
go_on 92
wait_line end-of-script 30
wait $vm
status=$?
kill $echo77 $echo80 $echo81 2>/dev/null
if [ $status -eq 0 ]; then ok status; else not_ok status "status $status, expected 0"; fi
if [ ! -e "$SOCK" ]; then ok socket-removed; else echo "not ok socket-removed - it is there"; fi
python3 - "$T/m" "$KILLS" <<'END'
import json, sys
d = [d for d in json.load(open(sys.argv[1]))["devices"] if d["name"] == "vsock"][0]
good = d["restarts"] == 1 + int(sys.argv[2]) and d["helper"]["connections"] >= 2 and d["helper"]["bad_packets"] == 0
print("ok metrics" if good else "not ok metrics - %s" % d)
END
