#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# vsock with vhost=on, one guest on MMIO and one on PCI: streams both ways between AF_VSOCK sockets, compared; no way to the other guest;
# insula-vsock killed under bulk transfers, of which no reader takes a part for the whole; the kernel's workers are in the VM's group, one for
# each, and none is left; what is refused.
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s XDG_CACHE_HOME=$T/cache
KILLS=$(short 1 2)
PEER=$BUILD/tests/vsockpeer
modprobe vhost_vsock && [ -c /dev/vhost-vsock ] || { not_ok modules "no vhost_vsock in this kernel"; exit 1; }
# Refusals: one line, status 2, nothing started (tests/unit/test_config.c has what does not need the device).
mv /dev/vhost-vsock "$T/node"
expect not-there 2 'vsock: vhost=on: /dev/vhost-vsock is not there; expected it: modprobe vhost_vsock' "$RUN" -n --vsock vhost=on,cid=42
mv "$T/node" /dev/vhost-vsock
expect good 0 '' "$RUN" -n --vsock vhost=on,cid=42
same none-at-first '' "$(kernel_workers)"
insulad_up
make_root "$T/streams"
cp "$PEER" "$T/streams/bin/"
# Ports of the guest: 52 echoes, 54 and 55 give bytes, 9x wait for one connection each, and so tell the script to go on.
cat >"$T/streams/sbin/init" <<END
#!/bin/sh
export PATH=/bin
vsockpeer echo vsock:$ANY:52 &
vsockpeer source vsock:$ANY:54 $ENDLESS 11 &
vsockpeer source vsock:$ANY:55 $LARGE 12 >/dev/null &
vsockpeer accept vsock:$ANY:90
vsockpeer load vsock:2:77 30 60000 5 && echo guest-begins
vsockpeer load vsock:2:78 1 10 5 || echo nobody-there
vsockpeer load vsock:43:52 1 10 5 || echo other-guest-refused
vsockpeer load vsock:42:52 1 10 5 || echo other-guest-refused
vsockpeer accept vsock:$ANY:91
$(bulk_script)
END
chmod 755 "$T/streams/sbin/init"
"$PEER" echo "vsock:$ANY:77" >/dev/null 2>&1 &
ends=$!
"$PEER" source "vsock:$ANY:80" $ENDLESS 13 >"$T/to-guest" 2>&1 &
ends="$ends $!"
"$PEER" source "vsock:$ANY:81" $LARGE 14 >/dev/null 2>&1 &
ends="$ends $!"
trap 'kill $ends; insulad_down; rm -rf "$T"' EXIT

# until_lines REGEX COUNT FILE|VM: in the file, or in what the VM says
lines() { if [ -f "$2" ]; then cat "$2"; else "$CTL" logs "$2" 2>&1; fi | grep -cE -- "$1"; }
until_lines() {
	for _ in $(seq 600); do
		[ "$(lines "$1" "$3")" -lt "$2" ] || return 0
		sleep 0.1
	done
	return 1
}
go_on() { timeout 60 "$PEER" rtt "vsock:$1" 1 >/dev/null 2>&1; }
# answers CID: until its port 52 is there
answers() {
	for _ in $(seq 300); do
		! "$PEER" rtt "vsock:$1:52" 1 >/dev/null 2>&1 || return 0
		sleep 0.2
	done
	not_ok "answers-$1" "$("$PEER" rtt "vsock:$1:52" 1 2>&1)"
}

expect starts 0 '' "$CTL" run -d --name w --mem 96M --rootfs "$T/streams" --vsock vhost=on,cid=42 --
expect starts-on-pci 0 '' "$CTL" run -d --name x --mem 96M --rootfs "$T/streams" --vsock vhost=on,cid=43,bus=pci --
answers 42
answers 43
expect cid-in-use 2 "cid '42': another machine of this host has it; expected one that none has" "$RUN" -n --vsock vhost=on,cid=42
for cid in 42 43; do
	expect "to-guest-$cid" 0 '30 connections' "$PEER" load "vsock:$cid:52" 30 60000 1
	go_on $cid:90
	until_lines '^other-guest-refused' 2 $([ $cid = 42 ] && echo w || echo x)
done
for v in w x; do
	"$CTL" logs $v >"$T/out" 2>&1
	also "guest-begins-$v" '^guest-begins'
	also "nobody-there-$v" '^nobody-there'
	same "other-guests-refused-$v" 2 "$(grep -c '^other-guest-refused' "$T/out")"
done
same a-worker-each 2 "$(kernel_workers | wc -l)"
g=$(group w) h=$(group x)
for w in $(kernel_workers); do cat "/proc/$w/cgroup"; done | sort >"$T/out"
same in-the-groups "$(printf '0::%s\n' "${g#/sys/fs/cgroup}" "${h#/sys/fs/cgroup}" | sort)" "$(cat "$T/out")"
expect no-agent 1 'vsock with vhost=on, where every program of the host could give an agent orders' "$CTL" exec w -- true
expect snapshot 1 "vsock: vhost=on: the kernel's part of its streams cannot be part of a snapshot" "$CTL" snapshot w "$T/snap"

# Bulk transfers without an end, to the guest and to the host, until insula-vsock is killed under them: each reader gets an error, and what it
# has got is right as far as it goes. Then new ones are whole.
go_on 42:91
for k in $(seq $KILLS); do
	timeout 120 "$PEER" fetch vsock:42:54 $ENDLESS 11 >"$T/to-host.$k" 2>&1 &
	fetch=$!
	until_lines '^fetch begins' 1 "$T/to-host.$k" && until_lines '^fetch begins' "$k" w && until_lines '^source begins' "$k" "$T/to-guest" ||
		not_ok "bulk-$k" "the transfers do not begin"
	shoot w 'insula-vsock vsock'
	wait $fetch
	same "bulk-to-host-$k" 1 $?
	until_lines '^bulk-to-guest ' "$k" w
done
until_lines '^bulk-to-guest-whole' 1 w
"$CTL" logs w >"$T/out" 2>&1
same bulk-to-guest $KILLS "$(grep -c '^bulk-to-guest 1' "$T/out")"
also bulk-to-guest-whole '^bulk-to-guest-whole'
same bulk-senders-hear $KILLS "$(grep -c '^source failed' "$T/out")"
same bulk-senders-of-the-host-hear $KILLS "$(lines '^source failed' "$T/to-guest")"
expect bulk-to-host-whole 0 '^fetch whole' "$PEER" fetch vsock:42:55 $LARGE 12
same still-a-worker-each 2 "$(kernel_workers | wc -l)"
go_on 42:92
until_lines '^end-of-script' 1 w || not_ok end-of-script "it does not come"
expect ends 0 '' timeout 60 "$CTL" wait w
"$CTL" kill x >/dev/null 2>&1
nothing_in_the_kernel "$g" "$h"
expect cid-is-free 0 '' "$RUN" -n --vsock vhost=on,cid=42
