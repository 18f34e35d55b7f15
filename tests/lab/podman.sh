# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
# podman in the lab, on storage of its own in memory, with insula-oci as its runtime "insula"; for scripts that have read lib.sh.
#   podman_setup [RUNTIME]           the default runtime: insula
#   podman_image NAME [APPLET...]    an image of busybox with make_root's applets and these; its root stays in $T/NAME.root
#   podman_left                      what is still there of containers: files, mounts, processes, network namespaces and interfaces, groups, files in
#                                    memory, and namespaces of any kind that were not there at podman_setup
#   podman_nothing_left NAME         a case: none of that is there, after a while: conmon cleans up when podman has ended
#   podman_end                       images and storage go

podman_setup() {
	local c
	modprobe tun
	podman_namespaces=$(namespaces)
	for c in $(cat /sys/fs/cgroup/cgroup.controllers); do
		echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control
	done
	mkdir -p /var/lib/containers /etc/containers
	mount -t tmpfs containers /var/lib/containers
	echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
	cat >/etc/containers/storage.conf <<-CONF
		[storage]
		driver = "overlay"
		runroot = "/run/containers/storage"
		graphroot = "/var/lib/containers/storage"
	CONF
	cat >/etc/containers/containers.conf <<-CONF
		[network]
		network_backend = "netavark"
		[engine]
		cgroup_manager = "cgroupfs"
		events_logger = "file"
		runtime = "${1:-insula}"
		[engine.runtimes]
		insula = ["$BUILD/bin/insula-oci"]
	CONF
}

podman_image() {
	local name=$1 a
	shift
	make_root "$T/$name.root"
	for a in "$@"; do
		ln -s busybox "$T/$name.root/bin/$a"
	done
	echo root:x:0:0:root:/root:/bin/sh >"$T/$name.root/etc/passwd"
	tar -C "$T/$name.root" -c . | podman import - "$name" >/dev/null 2>&1
}

# namespaces: how many the processes of this machine are in
namespaces() { find /proc/[0-9]*/ns -type l -printf '%l\n' 2>/dev/null | sort -u | wc -l; }

podman_left() {
	local p m=0
	for p in /proc/[0-9]*/fd; do
		m=$((m + $(find "$p" -lname '/memfd:insula*' 2>/dev/null | wc -l)))
	done
	echo "files $(find /run/insula-oci -mindepth 1 2>/dev/null | wc -l)" \
		"mounts $(grep -c insula /proc/self/mounts)" \
		"processes $(ps -e -o comm= | grep -cE '^(insula-|virtiofsd|conmon)')" \
		"networks $(find /run/netns -mindepth 1 2>/dev/null | wc -l)" \
		"links $(ip -o link | grep -cE ': (ins|veth)')" \
		"namespaces $(($(namespaces) - podman_namespaces))" \
		"groups $(find /sys/fs/cgroup -type d -name 'libpod-*' | wc -l)" \
		"memory $m"
}

podman_nothing_left() {
	local want='files 0 mounts 0 processes 0 networks 0 links 0 namespaces 0 groups 0 memory 0' got
	for _ in $(seq 100); do
		got=$(podman_left)
		[ "$got" != "$want" ] || break
		sleep 0.3
	done
	same "$1-nothing-left" "$want" "$got"
}

podman_end() {
	podman rmi -a -f >/dev/null 2>&1 || :
	umount -l /var/lib/containers
}
