#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Network cards with real guests: TAP with iperf3 both ways at once, a server of the host, kill -9 of insula-net under load; passt with DHCP,
# a download, names, and a forwarded port; what is left afterwards.
. "$(dirname "$0")/lib.sh"
export XDG_CACHE_HOME=$T/cache LIMIT=${LIMIT:-150}
for p in passt ip; do
	command -v $p >/dev/null || { not_ok $p "not installed"; exit 1; }
done
modprobe dummy 2>/dev/null

make_root "$T/root"
root_program "$T/root" iperf3 curl
for a in ip ping wget httpd nslookup sleep grep cut md5sum head kill seq sed; do
	[ -e "$T/root/bin/$a" ] || ln -s busybox "$T/root/bin/$a"
done

ip link set lo up
host_tap
# The host's way out, for passt: an address, and a second one that the guest has not been given.
ip link show dummy0 >/dev/null 2>&1 || ip link add dummy0 type dummy
ip addr add 198.51.100.1/24 dev dummy0
ip addr add 198.51.100.9/24 dev dummy0
ip link set dummy0 up
ip route add default via 198.51.100.254 dev dummy0

# Servers of the host.
mkdir "$T/www"
head -c 3000000 /dev/urandom >"$T/www/data"
echo "hello from the host" >"$T/www/hello"
sum=$(md5sum <"$T/www/data" | cut -d' ' -f1)
python3 -m http.server --directory "$T/www" 8000 >/dev/null 2>&1 &
servers=$!
iperf3 -s >/dev/null 2>&1 &
servers="$servers $!"
cat >"$T/dns.py" <<'PY'
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("198.51.100.9", 53))
open(__file__ + ".ready", "w").close()
while True:  # every question about an IPv4 address has one answer
    q, who = s.recvfrom(512)
    end = q.index(0, 12) + 5
    a = q[end - 4:end - 2] == b"\0\1"
    s.sendto(q[:2] + b"\x81\x80\0\1" + (b"\0\1" if a else b"\0\0") + b"\0\0\0\0" + q[12:end] +
             (b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc6\x33\x64\x09" if a else b""), who)
PY
python3 "$T/dns.py" &
servers="$servers $!"
trap 'kill $servers 2>/dev/null; rm -rf "$T"' EXIT
# Here a guest can be up before an interpreter is.
listening() { [ -e "$T/dns.py.ready" ] && [ "$(ss -Hltn '( sport = :8000 or sport = :5201 )' | grep -c .)" -ge 2 ]; }
for _ in $(seq 300); do
	! listening || break
	sleep 0.2
done
listening && ok servers || not_ok servers "not listening after 60 s"
tap=tap=tap0,ip=192.0.2.2/24,gw=192.0.2.1,dns=192.0.2.1
number() { python3 -c 'import json,sys; d = json.load(open(sys.argv[1]))["devices"]
e = [x for x in d if x["name"] == "eth0"][0]
for k in sys.argv[2].split("."): e = e[k]
print(e)' "$T/m" "$1"; }

# ---- TAP

expect tap 0 '^hello from the host' "$RUN" --rootfs "$T/root" --net $tap --metrics "$T/m" -- sh -c '
	ip addr show eth0 | grep -o "inet [0-9./]*"; cat /etc/resolv.conf
	ping -c 2 -W 5 192.0.2.1 && curl -s -m 20 http://192.0.2.1:8000/hello && curl -s -m 60 http://192.0.2.1:8000/data | md5sum'
also tap-address 'inet 192.0.2.2/24'
also tap-names 'nameserver 192.0.2.1'
also tap-ping ' 2 packets received'
also tap-download "$sum"

# Its metadata: a kernel that leaves checksums and long segments to the card.
python3 -c 'import json, sys
json.dump({"latest": {"meta-data": {"instance-id": "i-1", "tags": {"a": "b"}}, "user-data": "x" * 40000}}, open(sys.argv[1], "w"))' "$T/tree"
expect metadata 0 '^token 40$' "$RUN" --rootfs "$T/root" --net $tap --metadata "$T/tree" -- sh -c '
	u=http://169.254.169.254/latest
	t=$(curl -s -m 20 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" $u/api/token)
	echo token ${#t}
	wget -q -O - --header "X-aws-ec2-metadata-token: $t" $u/meta-data/ && echo
	curl -s -m 20 -H "X-metadata-token: $t" $u/user-data | wc -c
	curl -s -m 20 -o /dev/null -w "%{http_code}\n" -H "X-metadata-token: $t" -X PUT -T "$(command -v curl)" $u/api/token
	wget -q -O - http://192.0.2.1:8000/hello'
also metadata-list '^tags/$'
also metadata-large '^40000$'
also metadata-refuses '^413$'
also metadata-beside-the-network '^hello from the host'

# In steady state: frames, and no exit to user space.
n=$(($(number helper.rx_packets) + $(number helper.tx_packets)))
x=$(($(number exits.shadow_reads) + $(number exits.posted) + $(number exits.calls) + $(number exits.doorbells)))
echo "# $n frames and $x user-space exits of the card in the life of the machine"
[ $n -gt 100 ] && [ $x -lt 60 ] && ok tap-no-exit-per-frame || not_ok tap-no-exit-per-frame "$n frames, $x exits"

# Both ways at once, and the process of the card is killed twice in the middle. Meanwhile three downloads, none of which may be another
# file afterwards.
"$RUN" --rootfs "$T/root" --net $tap --metrics "$T/m" --timeout 120 -- sh -c '
	echo begin
	for i in 1 2 3; do curl -s -m 90 http://192.0.2.1:8000/data | md5sum; done >/tmp/sums &
	iperf3 -c 192.0.2.1 -t 8 --bidir --forceflush --connect-timeout 5000 && curl -s -m 20 http://192.0.2.1:8000/hello
	status=$?
	wait
	sed "s/^/download /" /tmp/sums
	exit $status' >"$T/out" 2>&1 </dev/null &
pid=$!
for _ in $(seq 150); do
	! grep -q 'connected to' "$T/out" || break
	sleep 0.2
done
kills=0
for _ in 1 2; do
	sleep 2.5
	h=$(pgrep -P $pid -x insula-net) && kill -9 "$h" && kills=$((kills + 1))
done
wait $pid
status=$?
[ $status = 0 ] && grep -q '^hello from the host' "$T/out" && ok tap-killed || not_ok tap-killed "status $status"
grep -E 'sender|receiver' "$T/out" | sed 's/^/# /'
[ $kills -gt 0 ] && [ "$(number restarts)" = $kills ] && ok tap-restarted || not_ok tap-restarted "$kills kills, $(number restarts) restarts"
[ "$(grep -c "^download $sum" "$T/out")" = 3 ] && ok tap-killed-downloads || not_ok tap-killed-downloads "$(grep '^download' "$T/out" | tr '\n' '|') expected 3 of $sum"
r=$(grep -cE '\[(TX|RX)-C\].*receiver' "$T/out")
[ "$r" = 2 ] && ! grep -E 'receiver' "$T/out" | grep -qE ' 0\.00 Bytes' && ok tap-both-ways || not_ok tap-both-ways "$r results"

# Two pairs of queues; and a limit that holds: 3 MB at 1 MB a second take 3 seconds, less what is saved up.
ip tuntap add tapm mode tap multi_queue
ip addr add 192.0.3.1/24 dev tapm
ip link set tapm up
expect tap-queues 0 '^queues 2' "$RUN" --cpus 2 --rootfs "$T/root" --net tap=tapm,queues=2,ip=192.0.3.2/24,rate=1000000 -- sh -c '
	echo queues $(ls -d /sys/class/net/eth0/queues/rx-* | grep -c .); curl -s -m 20 http://192.0.3.1:8000/hello
	a=$(cut -d. -f1 /proc/uptime); curl -s -m 60 http://192.0.3.1:8000/data | md5sum; b=$(cut -d. -f1 /proc/uptime); echo took $((b - a))'
also tap-queues-work '^hello from the host'
also tap-rate '^took ([2-9]|[1-9][0-9])$'

# ---- passt

expect user 0 '^hello from the host' "$RUN" --rootfs "$T/root" --net user,dns=198.51.100.9 -- sh -c '
	ip addr show eth0 | grep -o "inet [0-9./]*"; nslookup some.name.example; curl -s -m 20 http://some.name.example:8000/hello
	curl -s -m 60 http://198.51.100.9:8000/data | md5sum
	curl -s -m 4 http://198.51.100.254:8000/hello >/dev/null || echo the host is not behind the gateway; exit 0'
also user-not-the-host '^the host is not behind the gateway'
also user-dhcp 'inet 198.51.100.1/24'
also user-names '198\.51\.100\.9'
also user-download "$sum"

"$RUN" --rootfs "$T/root" --net user,fwd=tcp:8080:80 --timeout 120 -- sh -c '
	mkdir /tmp/w; echo hello from the guest >/tmp/w/index.html; httpd -p 80 -h /tmp/w; echo ready; sleep 100' >"$T/out" 2>&1 </dev/null &
pid=$!
for _ in $(seq 150); do
	! grep -q '^ready' "$T/out" || break
	sleep 0.2
done
fetch() { curl -s -m 10 --retry 5 --retry-all-errors --retry-delay 1 http://127.0.0.1:8080/; }
got=$(fetch)
[ "$got" = 'hello from the guest' ] && ok user-forward || not_ok user-forward "'$got'"
kill -9 "$(pgrep -P $pid -x insula-net)"
sleep 1
got=$(fetch)
[ "$got" = 'hello from the guest' ] && ok user-killed || not_ok user-killed "'$got'"
pkill -9 -P $pid -f passt
sleep 1
got=$(fetch)
[ "$got" = 'hello from the guest' ] && ok user-passt-killed || not_ok user-passt-killed "'$got'"
kill -9 $pid
wait $pid 2>/dev/null
for _ in $(seq 30); do
	left=$(pgrep -x passt; pgrep -x passt.avx2; pgrep -x insula-net)
	[ -n "$left" ] || break
	sleep 0.1
done
[ -z "$left" ] && ok user-nothing-left || not_ok user-nothing-left "processes $left"

# A host without an uplink: forwarded ports work, and the guest reaches nothing else.
ip netns add offline
ip netns exec offline ip link set lo up
ip netns exec offline "$RUN" --rootfs "$T/root" --net user,fwd=tcp:8080:80 --timeout 120 -- sh -c '
	ip addr show eth0 | grep -o "inet [0-9./]*"; curl -s -m 4 http://198.51.100.9:8000/hello || echo nothing else
	mkdir /tmp/w; echo hello from the guest >/tmp/w/index.html; httpd -p 80 -h /tmp/w; echo ready; sleep 100' >"$T/out" 2>&1 </dev/null &
pid=$!
for _ in $(seq 150); do
	! grep -q '^ready' "$T/out" || break
	sleep 0.2
done
got=$(ip netns exec offline curl -s -m 10 --retry 5 --retry-all-errors --retry-delay 1 http://127.0.0.1:8080/)
[ "$got" = 'hello from the guest' ] && ok offline-forward || not_ok offline-forward "'$got'; $(tail -n 3 "$T/out")"
also offline-dhcp 'inet 10.0.2.15/24'
also offline-nothing-else '^nothing else'
kill -9 $pid
wait $pid 2>/dev/null
ip netns del offline

# ---- a switch that goes away and comes back: the guest's link goes down, its commands are answered meanwhile

switch() {
	rm -f "$T/switch"
	python3 "$(dirname "$0")/../guests/netpeer.py" "$T/switch" >/dev/null 2>&1 &
	switch=$!
	for _ in $(seq 300); do
		[ ! -S "$T/switch" ] || break
		sleep 0.1
	done
}
seen() { # LINE: the guest has printed it
	for _ in $(seq 300); do
		! grep -q "^$1" "$T/out" || return 0
		sleep 0.1
	done
	return 1
}
switch
"$RUN" --rootfs "$T/root" --net "socket=$T/switch,ip=192.0.4.2/24" --timeout 120 -- sh -c '
	carrier() { while [ "$(cat /sys/class/net/eth0/carrier)" != $1 ]; do sleep 0.1; done; }
	carrier 1; echo up first; carrier 0; echo down
	ip link set eth0 promisc on && ip link set eth0 promisc off && echo commands are answered
	ping -c 1 -W 1 192.0.4.1 >/dev/null; echo sent; carrier 1; echo up again' >"$T/out" 2>&1 </dev/null &
pid=$!
seen 'up first' && ok switch-up || not_ok switch-up "$(tail -n 3 "$T/out")"
kill -9 $switch
seen 'down' && ok switch-down || not_ok switch-down "$(tail -n 3 "$T/out")"
seen 'sent' && switch
wait $pid && also switch-commands '^commands are answered' && also switch-again '^up again' || not_ok switch-end "$(tail -n 5 "$T/out")"
kill $switch

# ---- refusals: one line, status 2, nothing started

refuse() { expect "refused-$1" 2 "$2" "$RUN" -n --net "$3"; }
refuse no-tap 'tap nope: no such interface; make one with: ip tuntap add nope mode tap$' tap=nope
refuse not-a-tap 'tap dummy0: not a TAP interface' tap=dummy0
refuse one-queue 'tap tap0: it has one queue; expected one made with' tap=tap0,queues=2
refuse fd 'fd 3: not a TAP' fd=3
refuse socket "socket $T/none: No such file" "socket=$T/none"
refuse not-a-socket 'not a socket' "socket=$T/dns.py"
chmod 666 /dev/net/tun # as it usually is
ip tuntap add tapr mode tap user root
for_user
expect refused-no-permission 2 'tap tapr: no permission; expected root' "${AS_USER[@]}" "$RUN" -n --net tap=tapr
expect refused-no-passt 2 'needs the program passt .Debian: apt-get install passt' env PATH=/nonexistent "$RUN" -n --net user
expect refused-port-busy 125 'passt exited with status 1.*/8000:80' "$RUN" --net user,fwd=tcp:8000:80 -- sleep 30

# ---- a bridge of Open vSwitch, by each datapath: that of ovs-vswitchd reads frames without what a TAP says of their checksums

ovs_up
servers="$servers $ovs"
for datapath in netdev system; do
	timeout 60 ovs-vsctl add-br br0 -- set bridge br0 datapath_type=$datapath
	ip addr add 192.0.6.1/24 dev br0
	ip link set br0 up
	expect ovs-$datapath 0 "$sum" "$RUN" --rootfs "$T/root" --net ovs=br0,ip=192.0.6.2/24 -- sh -c 'curl -s -m 60 http://192.0.6.1:8000/data | md5sum'
	timeout 60 ovs-vsctl del-br br0
done
