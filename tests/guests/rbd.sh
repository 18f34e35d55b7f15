#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The module rbd with real VMs on this machine's /dev/kvm, in a network namespace: against a Ceph of one monitor and one OSD, which keeps its
# data in memory; qemu-storage-daemon killed under load, the OSD stopped, the monitor killed and started again; what is refused. BUILD
# names the build directory. One line per case: ok, not ok, skip. It needs 200 MB of packages and more than a minute, so CHECK_LONG=1 runs it.
# shellcheck disable=SC2317 # functions that are handed to wait_for or trap
set -u
SUITE=rbd MODULE=
if [ -z "${CHECK_LONG:-}" ]; then
	echo 'skip rbd/all - a long one; CHECK_LONG=1 runs it'
	exit 0
fi
if [ -z "${RBD_INSIDE-}" ]; then
	if ! unshare -n true 2>/dev/null; then
		echo "skip rbd/all - no network namespace: not root"
		exit 0
	fi
	RBD_INSIDE=1 exec unshare -n bash "$0"
fi
ip link set lo up
# shellcheck source=tests/guests/modulelib.bash
. "$(dirname "$0")/modulelib.bash"
# shellcheck source=tests/guests/networklib.bash
. "$HERE/networklib.bash"
for need in qemu-storage-daemon ceph-mon ceph-osd ceph rbd; do
	command -v $need >/dev/null || { not_ok all "$need is not installed (packages qemu-system-common, ceph-mon, ceph-osd, ceph-common)"; exit 1; }
done

# ---- the cluster

fsid=$(cat /proc/sys/kernel/random/uuid)
mkdir "$dir/mon" "$dir/osd" "$dir/run"
cat >"$dir/ceph.conf" <<END
[global]
fsid = $fsid
mon_host = [v2:127.0.0.1:3300,v1:127.0.0.1:6789]
mon_initial_members = a
public_network = 127.0.0.1/32
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
keyring = $dir/keyring
run_dir = $dir/run
admin_socket =
pid_file =
log_file =
log_to_stderr = true
err_to_stderr = true
ms_bind_ipv6 = false
osd_client_watch_timeout = 3
[mon]
mon_data = $dir/mon
mon_data_avail_crit = 1
keyring = $dir/mon/keyring
[osd]
osd_data = $dir/osd
osd_objectstore = memstore
memstore_device_bytes = 536870912
keyring = $dir/osd/keyring
osd_class_load_list = *
osd_class_default_list = *
END
# In words of seconds: a command whose cluster does not answer would wait for ever.
ceph() { timeout 60 ceph -c "$dir/ceph.conf" "$@"; }
rbd() { timeout 60 rbd -c "$dir/ceph.conf" "$@"; }
mon() { serve ceph-mon -c "$dir/ceph.conf" -f -i a && mon=$server && ceph -s >/dev/null; }
osd_up() { ceph osd stat -f json | jq -e '.num_up_osds == 1' >/dev/null; }
osd() { serve ceph-osd -c "$dir/ceph.conf" -f -i 0 && osd=$server && wait_for 30 osd_up; }
{
	ceph-authtool -C "$dir/mon.keyring" --gen-key -n mon. --cap mon 'allow *' &&
		ceph-authtool -C "$dir/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' &&
		ceph-authtool "$dir/mon.keyring" --import-keyring "$dir/keyring" &&
		monmaptool --create --fsid "$fsid" --addv a '[v2:127.0.0.1:3300,v1:127.0.0.1:6789]' "$dir/monmap" &&
		ceph-mon -c "$dir/ceph.conf" --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/mon.keyring" && mon &&
		uuid=$(cat /proc/sys/kernel/random/uuid) && ceph osd new "$uuid" &&
		ceph auth get-or-create osd.0 mon 'allow profile osd' osd 'allow *' -o "$dir/osd/keyring" &&
		ceph-osd -c "$dir/ceph.conf" -i 0 --mkfs --osd-uuid "$uuid" &&
		ceph osd crush add osd.0 1 root=default host=x && osd && ceph osd pool create p 8 8 &&
		rbd create --size 64M p/a && rbd create --size 64M --image-feature layering p/plain &&
		rbd namespace create p/n && rbd create --size 64M p/n/b &&
		ceph auth get-or-create client.vm mon 'profile rbd' osd 'profile rbd' -o "$dir/vm.keyring" &&
		ceph auth get-key client.vm -o "$dir/key"
} >"$dir/ceph.log" 2>&1
holds cluster $? "$(tail -n 3 "$dir/ceph.log" "$dir/servers" | cut -c1-200 | tr '\n' '|')"
ceph-authtool --gen-print-key >"$dir/wrong"
M=monitors=127.0.0.1
disk() { echo "rbd:$1,$M,user=vm,key=$dir/key"; }
free() { ! rbd lock ls "$1" 2>/dev/null | grep -q exclusive; }

# ---- what was said wrong

refused monitors 'options: monitors: missing' rbd:p/a
refused target "'aaa'; expected POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]" "rbd:aaa,$M"
refused target-part "'p//a'; expected POOL" "rbd:p//a,$M"
refused both 'options: keyring: expected without key only' "$(disk p/a),keyring=$dir/keyring"
refused snapshot 'a snapshot; expected ro' "$(disk p/a@s)"
refused osds "options: osds '0.0.0.0/0'; expected ADDRESS/BITS with 8 to 32 bits" "$(disk p/a),osds=0.0.0.0/0"
refused osd-ports "options: osd-ports 'x'; expected N or N-M" "$(disk p/a),osd-ports=x"
refused name 'options: monitors: host' "rbd:p/a,monitors=no-such-host.invalid"
refused nobody 'connection to 127.0.0.1: Connection refused' "$(disk p/a),monitor-port=3301"
refused letters "pool 'a\"b'; expected letters" "$(disk 'a"b/c')"
broken key 'error connecting: Permission denied' "rbd:p/a,$M,user=vm,key=$dir/wrong"
broken user 'error connecting' "rbd:p/a,$M,user=nobody,key=$dir/key"
broken image 'error reading header from none: No such file or directory' "$(disk p/none)"
broken pool 'No such file or directory' "$(disk none/a)"

# ---- disks

vm image blk --cpus 2 --disk "$(disk p/a)"
grep -q '^queues 2' "$dir/out"
holds image/queues $? "$(grep queues "$dir/out")"
truncate -s 64M "$dir/direct.raw"
vm direct blk --cpus 2 --disk "$dir/direct.raw"
rbd export p/a "$dir/out.raw" >>"$dir/ceph.log" 2>&1
cmp "$dir/out.raw" "$dir/direct.raw" >"$dir/img" 2>&1
holds 'image/what is in it' $? "$(head -n 1 "$dir/img")"
free p/a
holds 'image/no lock is left' $? "$(rbd lock ls p/a | tail -n 1)"
vm namespace blk --disk "$(disk p/n/b)"
vm name blkloop --append seconds=1 --disk "rbd:p/a,monitors=localhost,osds=127.0.0.0/8,user=vm,key=$dir/key"
vm keyring blkloop --append seconds=1 --disk "rbd:p/a,$M,user=vm,keyring=$dir/vm.keyring"
vm conf blkloop --append seconds=1 --disk "$(disk p/a),conf=$dir/ceph.conf"
vm pci pciloop --bus pci --append seconds=1 --disk "$(disk p/a)"
rbd snap create --no-progress p/a@s >>"$dir/ceph.log" 2>&1
vm snapshot blk --disk "$(disk p/a@s),ro"
grep -q read_only "$dir/out"
holds snapshot/ro $? "$(grep read "$dir/out" | head -n 2)"
"$RUN" --kernel "$GUESTS/blkloop.elf" --append seconds=20 --disk "$(disk p/a)" </dev/null >"$dir/out" 2>"$dir/err" &
run=$!
wait_for 10 looping && program
! tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qF "$(cat "$dir/key")"
holds 'jail/the key is in no argument' $? "$pid"
[ "$(tail -n +3 "/proc/$pid/net/dev" | grep -vc ' lo:\|^ *lo:')" = 0 ] && [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]
holds 'jail/no network' $? "$(cat "/proc/$pid/net/dev")"
{ kill -KILL "$run"; wait "$run"; } 2>/dev/null
run=''

# An OSD that nobody has named is not reached; the start has an end.
broken osd-elsewhere 'it has no answer from its server in time' "$(disk p/a),osds=127.0.0.2"
grep -q 'wants to connect to 127.0.0.1, port 68[0-9]*, which nobody has named: refused' "$dir/err"
holds 'broken/osd-elsewhere is said' $? "$(log)"

# ---- under load

once() { [ $((deaths++)) -lt "$1" ]; }
kill_once() { once 1 && deaths=1 && kill_program; }
osd_stops() {
	once 2 || return 1
	kill -STOP "$osd"
	nap 1
	kill -CONT "$osd"
}
mon_again() {
	once 1 || return 1
	{ kill -KILL "$mon"; wait "$mon"; } 2>/dev/null
	nap 0.3
	mon
}
deaths=0 old=
load 'killed: no write that was answered is lost' kill_once seconds=7 "$(disk p/a)"
ceph osd blocklist ls 2>/dev/null | grep -q '^127'
holds 'killed: the one that died is fenced' $? "$(ceph osd blocklist ls 2>&1 | head -n 2)"
deaths=0 old=
load 'killed/without a lock' kill_program seconds=3 "$(disk p/plain)"
deaths=0
load 'the OSD stands still' osd_stops seconds=3 "$(disk p/a)"
deaths=0
load 'the monitor comes back' mon_again seconds=3 "$(disk p/a)"
exit $failed
