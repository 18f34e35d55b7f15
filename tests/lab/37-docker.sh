#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# docker and containerd, unchanged, with insula-oci as their runtime. In namespaces of their own: what dockerd does to routes, packet
# filters, mounts and files ends with it.
[ -n "${DOCKER_INSIDE:-}" ] || DOCKER_INSIDE=1 exec unshare --net --mount --propagation private -- bash "$0"
. "$(dirname "$0")/lib.sh"
oci_templates "--cards 0" "--cards 1" "--memory 256M --cards 0" "--memory 256M"
for c in $(cat /sys/fs/cgroup/cgroup.controllers); do
	echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control
done
ip link set lo up
modprobe tun
mkdir -p /etc/docker /etc/containerd /etc/containers /var/lib/docker /var/lib/containerd
for d in /run /etc/docker /etc/containerd /etc/containers /var/lib/docker /var/lib/containerd; do
	mount -t tmpfs docker "$d"
done
echo "{\"runtimes\": {\"insula\": {\"path\": \"$OCI\"}}, \"default-runtime\": \"insula\", \"containerd\": \"/run/containerd/containerd.sock\"}" >/etc/docker/daemon.json
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >/etc/containerd/config.toml # no CNI, no CRI
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json

# soon COMMAND...: until it is true, for a minute.
soon() {
	for _ in $(seq 60); do
		! "$@" >/dev/null 2>&1 || return 0
		sleep 1
	done
	return 1
}
state() { docker inspect "$1" --format "{{.State.$2}}"; }
task() { ctr task ls | grep -qE "^$1 +[0-9]+ +$2"; }
left() { # NAME STATE-DIR CGROUP
	same "$1-nothing-left" '0 0 0 0 0' "$(find "$2" -mindepth 1 2>/dev/null | wc -l) $(grep -cE 'runtime-runc|containerd/runc' /proc/self/mounts) \
$(pgrep -c insula-) $(find "/sys/fs/cgroup/$3" -mindepth 1 -type d | wc -l) $(ip -o link | grep -cE ' (ins|veth)')"
}

containerd >"$T/containerd.log" 2>&1 &
containerd=$!
make_root "$T/root"
for a in sleep tty httpd wget nslookup sed tail; do
	ln -s busybox "$T/root/bin/$a"
done
echo root:x:0:0:root:/root:/bin/sh >"$T/root/etc/passwd"
tar -C "$T/root" -cf "$T/root.tar" .
soon test -S /run/containerd/containerd.sock || not_ok containerd "$(tail -n 5 "$T/containerd.log")"
dockerd >"$T/dockerd.log" 2>&1 &
dockerd=$!
{ soon test -S /run/docker.sock && docker version >/dev/null; } || not_ok dockerd "$(tail -n 5 "$T/dockerd.log")"
expect import 0 '^sha256' docker import "$T/root.tar" bb

# ---- docker ----
expect restricted 7 '^/dev/(console|pts)' docker run --rm -t --init --network none --user 1000:1000 --cap-drop all --pids-limit 50 --hostname name bb \
	sh -c 'tty; id; cat /etc/hostname /proc/self/status /sys/fs/cgroup/pids.max; exit 7'
also user 'uid=1000 gid=1000'
also host-name '^name'
also no-capabilities 'CapBnd:.0000000000000000'
also seccomp 'Seccomp:.2'
also processes '^50'
expect missing 127 'executable file not found' docker run --rm bb no-such-program

mkdir "$T/v"
echo outside >"$T/v/file"
# shellcheck disable=SC2016
expect detached 0 '' docker run -d --name box -p 8080:80 -v "$T/v:/v" --memory 256m --cpus 1 --read-only --tmpfs /tmp --restart on-failure:3 bb sh -c '
	trap "echo term; exit 3" TERM; trap "echo usr1" USR1; cat /v/file; touch /no
	echo served >/tmp/index.html; httpd -p 80 -h /tmp
	echo up; until [ -e /v/end ]; do sleep 1; done; rm /v/end; exit 4'
expect exec 5 '^268435456' docker exec box sh -c 'cat /sys/fs/cgroup/memory.max; echo inside >/v/new; exit 5'
same volume inside "$(cat "$T/v/new")"
same exec-input hello "$(echo hello | docker exec -i box cat)"
expect published-port 0 '^served' wget -qO- http://127.0.0.1:8080/
expect logs 0 '^up' docker logs box
also logs-volume '^outside'
also logs-read-only 'Read-only file system'
expect top 0 'insula-vmm' docker top box
expect stats 0 '/ 416MiB$' docker stats --no-stream --format '{{.MemUsage}}' box
expect pause 0 '' docker pause box
expect paused 1 'is paused' docker exec box true
expect unpause 0 '' docker unpause box
expect inspect 0 '^running insula [0-9]+ 0$' docker inspect box --format '{{.State.Status}} {{.HostConfig.Runtime}} {{.State.Pid}} {{.RestartCount}}'
touch "$T/v/end"
again() { [ "$(docker inspect box --format '{{.RestartCount}} {{.State.Running}}')" = '1 true' ]; }
if soon again; then ok restarted; else not_ok restarted "$(docker inspect box --format '{{json .State}} {{.RestartCount}}')"; fi
soon wget -qO- http://127.0.0.1:8080/ || not_ok published-again "$(docker logs box 2>&1)"
# From here on docker takes the container for one that was stopped by hand: no earlier.
expect signal 0 '' docker kill -s USR1 box
usr1() { docker logs box 2>&1 | grep -q ^usr1; }
if soon usr1; then ok signal-seen; else not_ok signal-seen "$(docker logs box 2>&1)"; fi
expect stop 0 '' docker stop -t 60 box
same stop-status 'exited 3' "$(state box Status) $(state box ExitCode)"
expect rm 0 '' docker rm box

# The classic builder runs its steps with the default runtime.
printf 'FROM bb\nRUN uname -n >/built && dd if=/dev/zero of=/bulk bs=1k count=300 && rm /etc/marker\nCMD cat /built; ls -l /bulk /etc/marker\n' >"$T/Dockerfile"
IN=$T/Dockerfile expect build 0 '^Successfully tagged made' env DOCKER_BUILDKIT=0 docker build -t made -
also build-in-vm 'Running in'
expect build-run 1 '^[0-9a-f]{12}$' docker run --rm --network none made
also build-file ' 307200 .*/bulk'
also build-removed '/etc/marker: No such file'

# compose: two services in a network and with a volume of their own; they find each other by docker's name server, which is at 127.0.0.11
mkdir "$T/two"
cat >"$T/two/docker-compose.yml" <<-'YML'
	version: "3"
	services:
	  web:
	    image: bb
	    command: sh -c 'mkdir /w; echo "from web" >/w/index.html; echo shared >/s/file; httpd -f -h /w'
	    volumes: ["s:/s"]
	    networks: [n]
	  ask:
	    image: bb
	    command: sh -c 'cat /etc/resolv.conf; until nslookup web >/n && a=$$(sed -n "s/^Address. //p" /n | tail -n 1) && wget -qO- http://$$a/; do sleep 1; done;
	      cat /s/file; exit 6'
	    depends_on: [web]
	    volumes: ["s:/s"]
	    networks: [n]
	volumes: {s: {}}
	networks: {n: {ipam: {config: [{subnet: 10.77.0.0/24}]}}}
YML
compose() { docker-compose -f "$T/two/docker-compose.yml" --no-ansi "$@"; }
export -f compose
export T
expect compose-up 6 '^ask_1.*from web' bash -c 'compose up --no-color --exit-code-from ask'
also compose-volume '^ask_1.*shared'
also compose-names '^ask_1.*nameserver 127.0.0.11'
expect compose-down 0 'Removing network' bash -c 'compose down -v'
left docker /run/docker/runtime-runc/moby docker

# ---- containerd ----
docker save -o "$T/docker.tar" bb
skopeo copy -q "docker-archive:$T/docker.tar" "oci-archive:$T/oci.tar:bb" >"$T/out" 2>&1 || not_ok skopeo "$?"
expect ctr-import 0 '' ctr image import --base-name local/bb "$T/oci.tar"
image=$(ctr image ls -q)
runc=(--runtime io.containerd.runc.v2 --runc-binary "$OCI")
cri=io.kubernetes.cri
# As the CRI plug-in calls the shim: a sandbox, and a container that joins it. Here the sandbox has a program, too.
expect ctr-run 0 '' ctr run -d --null-io "${runc[@]}" --memory-limit 268435456 --annotation $cri.container-type=sandbox --annotation $cri.sandbox-id=pod \
	"$image" pod sh -c 'mkdir /w; echo from the pod >/w/index.html; touch /up; exec httpd -f -h /w'
expect ctr-exec 5 '^there' ctr task exec --exec-id one pod sh -c 'until [ -e /up ]; do sleep 0.1; done; echo there; exit 5'
expect ctr-stats 0 'memory.usage_limit +436207616' ctr task metrics pod
pid=$(ctr task ls | awk '$1 == "pod" { print $2 }')
expect ctr-join 9 '^from the pod' ctr run --rm "${runc[@]}" --annotation $cri.container-type=container --annotation $cri.sandbox-id=pod \
	--with-ns "network:/proc/$pid/ns/net" --with-ns "ipc:/proc/$pid/ns/ipc" --with-ns "uts:/proc/$pid/ns/uts" "$image" app \
	sh -c 'wget -qO- http://127.0.0.1/; exit 9'
same ctr-one-vm 1 "$(pgrep -xc insula-vmm)"
expect ctr-kill 0 '' ctr task kill -s KILL pod
soon task pod STOPPED || not_ok ctr-stopped "$(ctr task ls)"
expect ctr-status 0 'non-zero exit code 137' ctr task delete pod
expect ctr-delete 0 '' ctr container delete pod
left containerd /run/containerd/runc/default default

kill $dockerd
wait $dockerd
kill $containerd
wait $containerd
rmdir /sys/fs/cgroup/docker /sys/fs/cgroup/default
from_templates
