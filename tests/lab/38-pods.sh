#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# podman 4.3 with insula-oci, beyond 36-podman: pods, networks, volumes, terminals, what stands around a container, and a privileged one that
# tries to leave. PODS is the parts to run: pods macvtap refused escape; 41-podman-life.sh has the others: volumes terminals life.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/podman.sh"
vms() { pgrep -c insula-vmm; }
podman_setup
podman_image bb sleep ps ip wget httpd nc true test mkdir mknod ln df ping tty stty insmod chroot hostname head awk umount kill find
none=(podman run --rm --network none)

part_pods() {
	local web
	mkdir "$T/www"
	echo page >"$T/www/page"
	expect denied-devices 126 'cgroupsPath: .*/dev/null: Operation not permitted; expected no group above it' \
		podman run --rm --pod new:denied --network none bb true
	podman pod rm -f denied >/dev/null
	expect pod-create 0 '' podman pod create --share-parent=false --name p -p 8080:80 -v "$T/www:/www"
	expect pod-first 0 '' podman run -d --pod p --name web bb httpd -f -p 80 -h /www
	expect pod-second 0 '^page' podman run --rm --pod p -v "$T/www:/ro:ro" bb \
		sh -c 'wget -q -O - http://127.0.0.1/page; hostname; ps; echo written >/www/file; echo x >/ro/x; true'
	also pod-hostname '^p$'
	also pod-volume-ro 'x: Read-only file system'
	if grep -q httpd "$T/out"; then not_ok pod-own-pids 'the processes of another container are seen'; else ok pod-own-pids; fi
	same pod-volume written "$(cat "$T/www/file")"
	same pod-one-vm 1 "$(vms)"
	expect pod-port 0 '^page' curl -sS -m 20 http://127.0.0.1:8080/page
	web=$(podman inspect --format '{{.NetworkSettings.IPAddress}}' "$(podman pod inspect p --format '{{.InfraContainerID}}')")
	expect pod-address 0 '^page' curl -sS -m 20 "http://$web/page"
	echo 'the host' | timeout 60 socat - TCP-LISTEN:9999,reuseaddr &
	expect other-vm 0 '^page' podman run --rm --cap-add net_raw bb \
		sh -c "wget -q -O - http://$web/page; nc -w 20 10.88.0.1 9999 </dev/null; ping -c 1 10.88.0.1"
	also to-the-host '^the host'
	also ping '1 packets received'
	expect pod-ps 0 ' p +Running ' podman pod ps
	expect pod-stats 0 ' web +[0-9.]+% +[0-9.]+[kM]?B' podman pod stats --no-stream p
	expect pod-exec 0 '^tcp.*:80 |httpd' podman exec web ps
	expect pod-stop 0 '' podman pod stop -t 20 p
	same pod-stopped 'Exited 0' "$(podman pod inspect p --format '{{.State}}') $(vms)"
	expect pod-start 0 '' podman pod start p
	expect pod-port-again 0 '^page' curl -sS -m 20 http://127.0.0.1:8080/page
	podman pod stop -t 20 p >/dev/null
	expect pod-rm 0 '' podman pod rm p
	podman pod create --share-parent=false --name q --share net,ipc,uts,pid --network none >/dev/null
	expect shared-pids 0 '^ +1 root +/catatonit' podman run --rm --pod q bb ps
	podman pod stop -t 20 q >/dev/null
	podman pod rm q >/dev/null
	podman_nothing_left pods
}

part_volumes() {
	mkdir "$T/v"
	echo old >"$T/v/old"
	echo one >"$T/one"
	expect volumes 0 '^old' "${none[@]}" -v "$T/v:/v" -v "$T/v:/ro:ro" -v "$T/one:/one" -v named:/named --tmpfs /small:size=1m \
		--mount "type=bind,src=$T/v,dst=/bind,ro" --mount type=tmpfs,dst=/scratch bb sh -c \
		'cat /v/old /one; echo new >/v/new; cat /ro/new /bind/new; echo x >/ro/x; echo x >/bind/x; echo kept >/named/file; echo t >/scratch/t && echo scratch
		dd if=/dev/zero of=/small/big bs=64k count=32 2>&1; ls -l /v /named'
	also one-file '^one'
	also volume-live '^new'
	also volume-ro '/ro/x: Read-only file system'
	also bind-ro '/bind/x: Read-only file system'
	also tmpfs '^scratch'
	also tmpfs-size 'No space left'
	same volume-written new "$(cat "$T/v/new")"
	same volume-ro-kept '' "$(find "$T/v" -name x)"
	expect named-volume 0 '^kept' "${none[@]}" -v named:/named:ro bb cat /named/file
	expect overlay-volume 0 '^old' "${none[@]}" -v "$T/v:/v:O" bb sh -c 'cat /v/old; echo above >/v/above'
	same overlay-volume-kept '' "$(find "$T/v" -name above)"
	podman create --name stopped --network none bb cat /tmp/file >/dev/null
	echo copied >"$T/file"
	expect cp-into-stopped 0 '' podman cp "$T/file" stopped:/tmp/file
	expect cp-is-there 0 '^copied' podman start -a stopped
	expect cp-from-stopped 0 'copied' podman cp stopped:/tmp/file -
	# podman makes and calls it in mount namespaces of their own; its root is nobody on the host, and / is not his to write.
	podman run -d --name mapped --network none --uidmap 0:10000:10000 -v mapped:/made --tmpfs /scratch bb sleep 1000 >/dev/null
	expect mapped-ids 0 '^ +0 +10000 +10000' podman exec mapped sh -c 'cat /proc/self/uid_map; touch /made/by; ls -ln /made'
	also mapped-volume ' 0 +0 .* by$'
	expect cp-into-memory 125 'ead-only file system' podman cp "$T/file" mapped:/scratch/file
	podman rm -f -t 0 mapped >/dev/null
	podman rm stopped >/dev/null
	podman volume rm named mapped >/dev/null
	podman_nothing_left volumes
}

part_terminals() {
	expect run-it 4 '/dev/console' script -qec 'podman run --rm -it --network none bb sh -c "tty; exit 4"' /dev/null
	podman run -dit --name t --network none --init bb sh -c 'while read -r l; do echo "got $l"; [ "$l" != end ] || exit 9; done' >/dev/null 2>&1
	expect exec-it 6 'a terminal' script -qec \
		'stty rows 31 cols 97; podman exec -it t sh -c "test -t 0 && echo a terminal; sleep 1; stty size; cat /proc/1/comm; exit 6"' /dev/null
	also exec-size '^31 97'
	also init '^(podman-init|catatonit)'
	IN=<(sleep 3; echo line; sleep 2; echo end; sleep 20) expect attach 0 'got line' script -qec 'podman attach t' /dev/null
	same attach-status 9 "$(podman wait t)"
	podman rm -f -t 0 t >/dev/null
	podman_nothing_left terminals
}

part_life() {
	podman run -d --name h --network none --health-cmd 'cat /tmp/healthy' --health-interval disable --restart on-failure:1 --memory 200m bb \
		sh -c 'echo begun; trap "exit 5" TERM; while :; do sleep 0.2; done' >/dev/null
	expect unhealthy 1 '' podman healthcheck run h
	podman exec h touch /tmp/healthy
	expect healthy 0 '' podman healthcheck run h
	expect top 0 '^root .*/insula-oci create ' podman top h
	expect top-by-ps 0 'sh -c echo begun' podman top h -ef
	expect stats 0 '^h [0-9.]+% [0-9.]+[kM]?B / 209.7MB' podman stats --no-stream --format '{{.Name}} {{.CPUPerc}} {{.MemUsage}}' h
	expect update 0 '' podman update --memory 100m --cpus 0.5 h
	expect updated 0 '^104857600' podman exec h sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max'
	also updated-cpu '^50000 100000'
	expect update-too-large 125 'expected at most' podman update --memory 4g h
	expect pause 0 '' podman pause h
	expect paused 0 '^paused' podman inspect h --format '{{.State.Status}}'
	expect exec-paused 255 'paused|running' podman exec h true
	expect unpause 0 '' podman unpause h
	expect unpaused 0 '' podman exec h true
	podman kill -s TERM h >/dev/null
	for _ in $(seq 100); do
		[ "$(podman logs h 2>/dev/null | grep -c begun)" != 2 ] || break
		sleep 0.3
	done
	same restarted '2 1' "$(podman logs h | grep -c begun) $(podman inspect h --format '{{.RestartCount}}')"
	expect rm-running 0 '' podman rm -f -t 0 h
	podman run -d --rm --name k --network none bb sleep 1000 >/dev/null
	expect kill-rm 0 '' podman kill k
	podman_nothing_left life
}

# The other way into a pod's network, for one container.
part_macvtap() {
	local n shown=''
	modprobe macvtap
	mkdir -p /etc/insula
	echo '{"network": "macvtap"}' >/etc/insula/oci.json
	podman run -d --name m -p 8081:80 -v "$T/www:/www" --cap-add net_raw bb httpd -f -p 80 -h /www >/dev/null
	for n in /run/netns/*; do
		shown+=$(nsenter "--net=$n" ip -d -o link)
	done
	expect macvtap-port 0 '^page' curl -sS -m 20 --retry 20 --retry-connrefused http://127.0.0.1:8081/page
	expect macvtap-ping 0 '1 packets received' podman exec m ping -c 1 10.88.0.1
	same macvtap-alone 'macvtap 1 tun 0' "macvtap $(grep -c 'macvtap mode passthru' <<<"$shown") tun $(grep -c 'tun type tap' <<<"$shown")"
	podman rm -f -t 0 m >/dev/null
	rm /etc/insula/oci.json
	podman_nothing_left macvtap
}

part_refused() {
	expect preserve-fds 126 'preserve-fds: 1; expected 0' "${none[@]}" --preserve-fds 1 bb true 3</dev/null
	expect host-network 126 "network: the host's; expected another one" podman run --rm --network host bb true
	podman_nothing_left refused
}

host() { # what a container of the host could have changed
	cat /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/swappiness /sys/kernel/mm/transparent_hugepage/enabled
	echo "$(grep -vc -e containers -e netns /proc/self/mounts) $(find /sys/fs/cgroup -maxdepth 1 | wc -l) $(grep -c '^dummy ' /proc/modules) $(ip -o link | grep -vc veth)"
	sha256sum </dev/ram0
}
part_escape() {
	local ko status=0
	ko=$(modinfo -n dummy)
	modprobe brd rd_nr=1 rd_size=2048
	mkfs.ext4 -q /dev/ram0
	echo secret >"$T/secret-of-the-host"
	cat >"$T/escape" <<'ESCAPE'
try() { local n=$1; shift; if "$@" >/tmp/said 2>&1; then echo "$n: done"; else echo "$n: no: $(head -n 1 /tmp/said)"; fi; }
# shellcheck disable=SC2329
put() { echo "$1" >"$2"; }
mkdir -p /tmp/disk /tmp/cg /tmp/share
try core_pattern put '|/tmp/evil' /proc/sys/kernel/core_pattern
try sysctl put 7 /proc/sys/vm/swappiness
try hostname hostname evil
try sysfs put never /sys/kernel/mm/transparent_hugepage/enabled
try module insmod /mod.ko
try mount-disk mount -t ext4 /dev/ram0 /tmp/disk
[ -e /dev/ram0 ] || mknod /dev/ram0 b 1 0
try write-disk dd if=/dev/zero of=/dev/ram0 bs=4096 count=1
try cgroup mount -t cgroup2 cgroup2 /tmp/cg
try cgroup-new mkdir /tmp/cg/evil
try link ip link add evil0 type dummy
try share mount -t virtiofs "$(awk '$3 == "virtiofs" { print $1; exit }' /proc/1/mounts)" /tmp/share
echo "share: $(find /tmp/share -name secret-of-the-host 2>/dev/null | head -n 1) end"
try machine chroot /proc/1/root /bin/busybox true
echo "machine: $(find /proc/1/root/ -maxdepth 3 -name secret-of-the-host 2>/dev/null | head -n 1) end"
echo "sees $(cat /proc/[0-9]*/comm | grep -c -e conmon -e podman -e insula-run) processes of the host"
echo tried
sleep 1 # what was said is on its way
put b /proc/sysrq-trigger
sleep 30
ESCAPE
	host >"$T/before"
	timeout 120 podman run --rm --privileged --pid host --network none -v "$T/escape:/escape:ro" -v "$ko:/mod.ko:ro" bb sh /escape \
		>"$T/out" 2>&1 </dev/null || status=$?
	host >"$T/after"
	also escape-core-pattern '^core_pattern: done'
	also escape-sysfs '^sysfs: done'
	also escape-module '^module: done'
	also escape-disk '^mount-disk: no'
	also escape-write-disk '^write-disk: no'
	also escape-share-seen '^share: done'
	also escape-share '^share:  end'
	also escape-machine '^machine:  end'
	also escape-processes '^sees 0 processes'
	also escape-tried '^tried'
	same escape-sysrq-ends-the-vm 137 $status
	same escape-host-untouched '' "$(diff "$T/before" "$T/after")"
	cp "$T/before" "$T/out"
	also escape-host-is-looked-at "^$(uname -n)\$"
	rmmod brd
	podman_nothing_left escape
}

for part in ${PODS:-pods macvtap refused escape}; do
	"part_$part"
done
podman_end
