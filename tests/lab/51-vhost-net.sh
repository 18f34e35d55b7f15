#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Cards with vhost=on, one on MMIO and one on PCI, with several pairs of queues: data both ways, compared; insula-net killed under load; the
# kernel's workers are in the VM's group, one for each pair, and none is left; what is refused.
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s XDG_CACHE_HOME=$T/cache
KILLS=2
# A busy machine moves a megabyte in a minute.
guest() { timeout 240 "$CTL" exec "$1" -- sh -c "$2" </dev/null 2>&1; }
modprobe -a tun vhost_net && [ -c /dev/vhost-net ] || { not_ok modules "no vhost_net in this kernel"; exit 1; }

make_root "$T/root"
for a in cut dmesg grep head httpd ip md5sum mv ping seq setsid sleep sort uniq wc wget; do
	ln -sf busybox "$T/root/bin/$a"
done
cat >"$T/root/bin/load" <<'JOB'
#!/bin/sh
# One sum for each download, until the host has had enough.
: >/tmp/sums
while [ ! -e /tmp/enough ]; do wget -q -O - http://192.0.2.1:8000/data | md5sum >>/tmp/sums; done
touch /tmp/over
JOB
# downloaded N: wait until there are so many
cat >"$T/root/bin/downloaded" <<'JOB'
#!/bin/sh
for i in $(seq 2000); do
	[ "$(grep -c . /tmp/sums)" -lt $1 ] || break
	sleep 0.1
done
grep -c . /tmp/sums
JOB
chmod +x "$T/root/bin/load" "$T/root/bin/downloaded"
mkdir "$T/root/www" "$T/www"
head -c 1500000 /dev/urandom >"$T/www/data"
head -c 1500000 /dev/urandom >"$T/root/www/data"
head -c 3000 /dev/urandom >"$T/root/www/small"
small=$(md5sum <"$T/root/www/small") down=$(md5sum <"$T/www/data") up=$(md5sum <"$T/root/www/data")
ip link set lo up
for i in 0 1; do
	ip link del "tap$i" 2>/dev/null # an earlier suite in this machine may have left one
	ip tuntap add "tap$i" mode tap multi_queue
	ip addr add "192.0.$((2 + i)).1/24" dev "tap$i"
	ip link set "tap$i" up
done
python3 -m http.server --directory "$T/www" 8000 >/dev/null 2>&1 &
server=$!
trap 'kill $server; insulad_down; rm -rf "$T"' EXIT

# ---- refusals: one line, status 2, nothing started (tests/unit/test_netconf.c has what does not need the device)

refuse() { expect "refused-$1" 2 "$2" "$RUN" -n --net "$3" "${@:4}"; }
echo '{}' >"$T/tree"
refuse metadata 'card has vhost=on; expected metadata on another card' tap=tap0,vhost=on --metadata "$T/tree"
chown 1000 /dev/vhost-net
chmod 600 /dev/vhost-net
expect refused-no-permission 2 'vhost=on: no permission; expected root, or a user who may read and write /dev/vhost-net' \
	setpriv --bounding-set -dac_override,-dac_read_search "$RUN" -n --net tap=tap0,vhost=on
chown 0 /dev/vhost-net
mv /dev/vhost-net "$T/node"
refuse not-there '/dev/vhost-net is not there; expected it: modprobe vhost_net' tap=tap0,vhost=on
mv "$T/node" /dev/vhost-net

# ---- frames

same none-at-first 0 "$(kernel_workers | wc -l)"
for _ in $(seq 300); do
	! curl -s -m 5 -o /dev/null http://127.0.0.1:8000/ || break
	sleep 0.2
done
insulad_up
card=vhost=on,ip=192.0
# The guest has two processors and uses as many pairs: one of the second card's three queues gets nothing.
expect starts 0 '' "$CTL" run -d --name v --mem 160M --cpus 2 --rootfs "$T/root" --net "tap=tap0,queues=2,$card.2.2/24" --net "tap=tap1,queues=3,$card.3.2/24,bus=pci" --
guest v 'ping -c 2 -W 10 192.0.2.1; ping -c 2 -W 10 192.0.3.1; httpd -p 80 -h /www; grep virtio /proc/interrupts' >"$T/out"
same ping 2 "$(grep -c ' 2 packets received' "$T/out")"
also vectors 'PCI-MSI.*virtio[0-9]+-input.1'
# The first frame of each may come by any queue of the TAP; those of connections that the guest has begun come where it has sent.
for _ in $(seq 24); do curl -s -m 60 http://192.0.3.2/small | md5sum; done >"$T/out"
same many-connections 24 "$(grep -cx "$small" "$T/out")"
same the-queue-that-is-not-used '0 0' "$(guest v 'grep input.2 /proc/interrupts' | awk '{print $2, $3}')"
guest v 'for i in 2 3; do wget -q -O - http://192.0.$i.1:8000/data | md5sum; done' >"$T/out"
same downloads 2 "$(grep -cx "$down" "$T/out")"
same upload "$up" "$(curl -s -m 240 http://192.0.2.2/data | md5sum)"
same upload-by-pci "$up" "$(curl -s -m 240 http://192.0.3.2/data | md5sum)"
# It was the kernel: insula-net has seen no frame.
"$CTL" metrics v >"$T/out" 2>&1
frames() { python3 -c 'import json, sys
d = [x["helper"] for x in json.load(open(sys.argv[1]))["devices"] if x["name"].startswith("eth")]
print(len(d), sum(h["rx_packets"] + h["tx_packets"] for h in d))' "$T/out" 2>&1; }
same not-by-insula-net '2 0' "$(frames)"
same a-worker-each 5 "$(kernel_workers | wc -l)"
g=$(group v)
for w in $(kernel_workers); do cat "/proc/$w/cgroup"; done | sort -u >"$T/out"
same in-the-group "0::${g#/sys/fs/cgroup}" "$(cat "$T/out")"

# ---- insula-net dies under load

n=0
guest v 'setsid load >/dev/null 2>&1 &' >/dev/null
for k in $(seq $KILLS); do
	shoot v 'insula-net eth0'
	before=$n
	# What was counted before the kill, the one that was under way, and one more.
	n=$(guest v "downloaded $((before + 3))")
	[ "${n:-0}" -ge $((before + 3)) ] && ok "goes-on-$k" || not_ok "goes-on-$k" "$before downloads, then '$n'"
done
shoot v 'insula-net eth1'
same upload-by-pci-goes-on "$up" "$(curl -s -m 240 --retry 5 --retry-all-errors http://192.0.3.2/data | md5sum)"
same still-a-worker-each 5 "$(kernel_workers | wc -l)"
guest v 'touch /tmp/enough; for i in $(seq 300); do [ -e /tmp/over ] && break; sleep 0.1; done; sort /tmp/sums | uniq; dmesg' >"$T/out"
same all-downloads "$down" "$(grep -E '^[0-9a-f]{32} ' "$T/out")"
nothing_locked_up

# ---- what does not go with it

expect snapshot 1 'eth0: vhost=on: what the kernel does with its rings cannot be part of a snapshot' "$CTL" snapshot v "$T/snap"
expect policy 2 "'eth0'; expected a network card without vhost=on" "$CTL" policy v eth0 deny
expect limit 2 "'eth0'; expected a network card without vhost=on" "$CTL" limit v eth0 rate=1M
same upload-after-all "$up" "$(curl -s -m 240 http://192.0.2.2/data | md5sum)"

# ---- nothing is left

"$CTL" kill v >/dev/null 2>&1
nothing_in_the_kernel "$g"
