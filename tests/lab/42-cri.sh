#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What Kubernetes asks of a runtime: containerd's CRI plugin, unchanged, with a RuntimeClass' handler that is insula-oci, driven by cri.py.
# In namespaces of its own: what containerd and CNI do to network, mounts and files ends with them.
# CRI_ROOT: a directory with another Debian, whose containerd, insula-oci's libraries and virtiofsd are used (docs/containers.md).
[ -n "${CRI_INSIDE:-}" ] || CRI_INSIDE=1 exec unshare --net --mount --propagation private -- bash "$0"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/podman.sh"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p /etc/containerd /var/lib/containerd /etc/cni/net.d
for d in /run /etc/containerd /var/lib/containerd /etc/cni/net.d; do
	mount -t tmpfs cri $d
done
oci_templates "--cards 1"
podman_setup
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1
cat >/etc/cni/net.d/10-pods.conflist <<'CNI'
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "pods0", "isGateway": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
 {"type": "loopback"}]}
CNI
cat >/etc/containerd/config.toml <<CONF
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:latest"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "insula"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.insula]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.insula.options]
      BinaryName = "$OCI"
CONF
# Its root by pivot_root: a chrooted process may not make a user namespace.
inside=()
if [ -n "${CRI_ROOT:-}" ]; then
	cat >"$T/enter" <<-'ENTER'
		set -e
		mount --bind "$1" "$1"
		cd "$1"
		[ -e etc/hosts ] || echo '127.0.0.1 localhost' >etc/hosts
		mkdir -p old usr/lib/cni etc/containerd etc/cni var/lib/containerd lib/modules ".$2" ".$3"
		for d in /proc /sys /dev /run /tmp /usr/lib/cni /etc/containerd /etc/cni /var/lib/containerd /lib/modules "$2" "$3"; do
			mount --rbind "$d" ".$d"
		done
		pivot_root . old
		cd /
		umount -l old
		shift 3
		exec "$@"
	ENTER
	inside=(unshare --mount --propagation private bash "$T/enter" "$CRI_ROOT" "$BUILD" "$T")
fi
"${inside[@]}" containerd >"$T/containerd.log" 2>&1 &
containerd=$!
podman_image bb sleep httpd wget nslookup ip hostname
tar -C "$T/bb.root" -c . | podman import --change 'CMD ["/bin/sleep", "1000000"]' - pause >/dev/null 2>&1
podman save -q --format oci-archive -o "$T/bb.tar" localhost/bb:latest
podman save -q --format oci-archive -o "$T/pause.tar" localhost/pause:latest
podman_end
for i in bb pause; do
	expect "import-$i" 0 "localhost/$i:latest" ctr -n k8s.io image import "$T/$i.tar"
done
if [ -n "${CRI_ROOT:-}" ]; then
	inside=(nsenter -t "$containerd" -m -w)
	expect other-version 0 "$(chroot "$CRI_ROOT" dpkg-query -W -f '${Version}' containerd | cut -d- -f1)" "${inside[@]}" ctr version
	expect other-ctr 6 '^from a VM of the other' "${inside[@]}" ctr -n k8s.io run --rm --runtime io.containerd.runc.v2 --runc-binary "$BUILD/bin/insula-oci" \
		localhost/bb:latest ctr sh -c 'echo from a VM of the other; exit 6'
fi
mkdir -p "$T/logs" "$T/volume/..1"
echo first >"$T/volume/..1/key"
ln -s ..1 "$T/volume/..data"
ln -s ..data/key "$T/volume/key"
PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 - "$T" <<'PY' || not_ok client "it ended with $?: $(grep -E 'level=(error|fatal)|failed to' "$T/containerd.log" | tail -n 3 | cut -c1-400)"
import os, sys, time
from cri import *

T = sys.argv[1]
c = Cri("/run/containerd/containerd.sock")


def check(name, truth, seen=""):
    print(("ok %s" if truth else "not ok %s - %r") % ((name,) if truth else (name, seen)), flush=True)


def soon(what, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return True
        time.sleep(0.2)
    return False


def programs():
    """Of each process"""
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield os.readlink("/proc/%s/exe" % p)
        except OSError:  # it has ended, or belongs to the kernel
            pass


version = []


def asked():
    global version
    try:
        version = [x[-1] for x in decode(c.call("Version", timeout=5)).values()]
    except grpc.RpcError as e:
        version = [e.details()]
    return b"containerd" in version


check("version", soon(asked), version)
pod_config = {1: {1: "pod", 2: "uid-1", 3: "default", 4: 0}, 2: "pod-host", 3: T + "/logs", 4: {1: ["10.77.0.1"], 2: ["cluster.local"]},
              6: {1: "app", 2: "test"}, 8: {1: "/kube/pod1"}}
pod = c.sandbox(pod_config, "insula")
address = c.address(pod)
open(T + "/virtiofsd", "w").write("".join(x for x in programs() if x.endswith("/virtiofsd")))
check("sandbox", address.startswith("10.77.0."), address)
vms = lambda: sum(x.endswith("/insula-vmm") for x in programs())


def container(name, *argv, **more):
    config = {1: {1: name}, 2: {1: "localhost/bb:latest"}, 3: list(argv), 6: {1: "KEY", 2: "value of " + name}, 11: name + ".log",
              7: [{1: "/volume", 2: T + "/volume", 3: 1}]}
    config.update(more.get("more", {}))
    made = c.create(pod, pod_config, config)
    c.call("StartContainer", {1: made})
    return made


web = container("web", "sh", "-c", "trap 'echo term; exit 3' TERM; echo served by $KEY >/tmp/index.html; httpd -p 80 -h /tmp; echo up; echo wrong >&2; while :; do sleep 0.1; done")
two = container("two", "cat", more={12: 1, 15: {1: {1: 100000, 2: 50000, 4: 64 << 20}, 2: {3: {2: 1}}}}) # a process namespace of its own
check("one-vm", vms() == 1, vms())
check("running", c.status(web)[0] == RUNNING and c.status(two)[0] == RUNNING, (c.status(web), c.status(two)))
for i in range(100):
    got = c.exec_sync(two, "wget", "-qO-", "http://127.0.0.1/")
    if not got[2]:
        break
    time.sleep(0.2)
check("localhost", got[0] == "served by value of web\n", got)
check("exec-status", c.exec_sync(two, "sh", "-c", "echo out; echo err >&2; exit 7") == ("out\n", "err\n", 7))
got = c.exec_sync(two, "sh", "-c", "hostname; cat /etc/resolv.conf /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max; ls /proc | grep -c '^[0-9]'; ip addr")[0]
check("host-name", got.startswith("pod-host\n"), got)
check("dns", "nameserver 10.77.0.1" in got and "cluster.local" in got, got)
check("limits", "\n%d\n50000 100000\n" % (64 << 20) in got, got)
check("address", address in got and "fd77::" in got, got)
check("processes-of-its-own", "httpd" not in c.exec_sync(two, "sh", "-c", "cat /proc/[0-9]*/cmdline")[0])
log = lambda name: open(T + "/logs/" + name + ".log").read()
check("logs", soon(lambda: " stdout F up" in log("web") and " stderr F wrong" in log("web"), 10), log("web"))

# A projected volume: the kubelet puts another link in place of the one that is there.
check("volume", c.exec_sync(two, "cat", "/volume/key")[0] == "first\n")
os.mkdir(T + "/volume/..2")
open(T + "/volume/..2/key", "w").write("second\n")
os.symlink("..2", T + "/volume/..new")
os.rename(T + "/volume/..new", T + "/volume/..data")
check("volume-changes", soon(lambda: c.exec_sync(two, "cat", "/volume/key")[0] == "second\n", 20), c.exec_sync(two, "cat", "/volume/key"))
check("volume-read-only", c.exec_sync(two, "touch", "/volume/x")[2] == 1)

# Streams.
s = c.stream("Exec", {1: web, 2: ["sh", "-c", "read x; echo got $x; echo $x >&2; exit 5"], 4: 1, 5: 1, 6: 1})
s.send_binary(bytes([STDIN]) + b"a word\n")
got = gather(s, lambda got: ERROR in got)
check("exec-stream", got.get(STDOUT) == b"got a word\n" and got.get(STDERR) == b"a word\n", got)
check("exec-stream-status", b'"5"' in got.get(ERROR, b""), got)
s = c.stream("Exec", {1: web, 2: ["sh", "-c", "test -t 0 && echo terminal"], 3: 1, 4: 1, 5: 1})
got = gather(s, lambda got: ERROR in got)
check("exec-terminal", got.get(STDOUT) == b"terminal\r\n", got)
s = c.stream("Attach", {1: two, 2: 1, 4: 1, 5: 1})
s.send_binary(bytes([STDIN]) + b"to the cat\n")
got = gather(s, lambda got: got.get(STDOUT, b"").endswith(b"\n"))
s.close()
check("attach", got.get(STDOUT) == b"to the cat\n", got)
s = c.stream("PortForward", {1: pod, 2: [80]})
got = gather(s, lambda got: len(got) == 2)
check("port-forward-begins", [port_of(x) for x in got.values()] == [80, 80], got)
s.send_binary(b"\0GET / HTTP/1.0\r\n\r\n")
got = gather(s, lambda got: b"served by value of web" in got.get(0, b"") or got.get(1))
s.close()
check("port-forward", b"served by value of web" in got.get(0, b""), got)
before = c.stats(two)
c.exec_sync(two, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
after = c.stats(two)
check("stats", after[0] > before[0] >= 0 and after[1] > 0, (before, after))

# A container of the pod ends, and another takes its place; the pod lives.
c.call("StopContainer", {1: web, 2: 20})
check("stop", c.status(web) == (EXITED, 3), c.status(web))
check("stop-log", soon(lambda: " stdout F term" in log("web"), 10), log("web"))
c.call("RemoveContainer", {1: web})
third = container("third", "sh", "-c", "cat /proc/[0-9]*/cmdline | grep -q 1000000 && exit 9") # it shares that of the pod
check("exit-status", soon(lambda: c.status(third) == (EXITED, 9)), c.status(third))
check("neighbour-lives", c.status(two)[0] == RUNNING)
missing = ""
try:
    container("missing", "no-such-program")
except grpc.RpcError as e:
    missing = e.details()
check("missing-program", "no-such-program" in missing and ("not found" in missing or "no such file" in missing), missing)
c.call("StopPodSandbox", {1: pod})
check("pod-stopped", c.status(two)[0] == EXITED, c.status(two))
c.call("RemovePodSandbox", {1: pod})
check("no-vm", soon(lambda: vms() == 0, 10), vms())
PY
if [ -n "${CRI_ROOT:-}" ]; then same other-virtiofsd /usr/libexec/virtiofsd "$(cat "$T/virtiofsd")"; fi
kill $containerd
wait $containerd 2>/dev/null
left="$(find /run/insula-oci /run/netns -mindepth 1 2>/dev/null | wc -l) $(grep -c insula /proc/self/mounts) $(ps -e -o comm= | grep -cE '^(insula-|containerd-shim)') \
$(find /sys/fs/cgroup/kube -mindepth 2 -type d 2>/dev/null | wc -l) $(ip -o link | grep -cE ' (ins|veth)')"
if [ "$left" = '0 0 0 0 0' ]; then ok nothing-left; else not_ok nothing-left "$left"; fi
from_templates
