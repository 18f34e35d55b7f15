#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insula-oci from outside, as runc's callers call it, with tests/oci/fakevm in the place of insula-run: neither KVM nor a guest is needed, but
# root is. tests/oci/life.sh BUILD
set -u
cd "$(dirname "$0")/../.." || exit 1
OCI=$(cd "$1" && pwd -P)/bin/insula-oci FAKE=$PWD/tests/oci/fakevm
if [ "$(id -u)" != 0 ]; then
	echo 'skip oci-life: all - needs root'
	exit 0
fi
# A mount namespace of its own: what is left behind is seen, and leaves with it.
[ -n "${OCI_LIFE:-}" ] || exec env OCI_LIFE=1 unshare -m --propagation private bash "$0" "$1"
T=$(mktemp -d /tmp/oci-life.XXXXXX)
trap 'rm -rf --one-file-system "$T"' EXIT
mount -t tmpfs run /run
export INSULA_OCI_CONFIG=
ROOT=$T/root B=$T/b
echo "{\"supervisor\": \"$FAKE\"}" >"$T/oci.json"
oci() { "$OCI" --config "$T/oci.json" --root "$ROOT" "$@"; }
ok() { echo "ok oci-life: $1"; }
not_ok() {
	echo "not ok oci-life: $1 - ${*:2}"
	failed=1
}
failed=0
same() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected '$2', got '$3'"; fi; }
# expect NAME STATUS REGEX COMMAND...
expect() {
	local name=$1 want=$2 regex=$3 got=0
	shift 3
	timeout 60 "$@" >"$T/raw" 2>&1 </dev/null || got=$?
	sed 's/\\"/"/g' "$T/raw" >"$T/out"
	if [ "$got" != "$want" ]; then
		not_ok "$name" "status $got, expected $want: $(head -c 300 "$T/out")"
	elif [ -n "$regex" ] && ! grep -qE -- "$regex" "$T/out"; then
		not_ok "$name" "no line matches $regex: $(head -c 300 "$T/out")"
	else
		ok "$name"
	fi
}
CALL=("$OCI" --config "$T/oci.json" --root "$ROOT")
# bundle DIR JQ-FILTER: a config.json made from `spec`
bundle() {
	mkdir -p "$1/rootfs/bin"
	install -m 755 /dev/null "$1/rootfs/bin/sh"
	ln -f "$1/rootfs/bin/sh" "$1/rootfs/bin/sleep"
	ln -f "$1/rootfs/bin/sh" "$1/rootfs/bin/true"
	rm -f "$1/config.json"
	"$OCI" spec -b "$1"
	jq '.process.terminal = false | .process.args = ["sh", "-c", "sleep 1000"] | del(.linux.seccomp)
		| .linux.cgroupsPath = null | '"$2" "$1/config.json" >"$1/new" && mv "$1/new" "$1/config.json"
}
# left NAME: nothing is
left() {
	same "$1-nothing-left" ' 0' "$(ls "$ROOT" 2>/dev/null) $(grep -c "$T" /proc/self/mounts)"
}
alive() { kill -0 "$1" 2>/dev/null && [ "$(sed 's/.*) //' "/proc/$1/stat" | cut -c1)" != Z ]; }
gone() { # NAME PID
	for _ in $(seq 50); do
		alive "$2" || { ok "$1"; return; }
		sleep 0.1
	done
	not_ok "$1" "process $2 lives"
}
none=(--cgroup-manager disabled)
CALL+=("${none[@]}")
oci() { "${CALL[@]}" "$@"; }

# ---- the command line
expect version 0 '^insula-oci version [0-9]' "$OCI" --version
expect version-spec 0 '^spec: 1\.2' "$OCI" --version
expect no-command 1 'no command' "$OCI"
expect unknown-command 1 'did you mean delete' "$OCI" delte
expect checkpoint 1 'checkpoint: refused: the container' "$OCI" checkpoint --image-path /x c
expect restore 1 'restore: refused: the container' "$OCI" restore c
expect unknown-command-logged 1 '' "$OCI" --log "$T/early" --log-format json delte
same unknown-command-in-the-log error "$(jq -r 'select(.msg | contains("did you mean")).level' "$T/early")"
expect unknown-flag 1 'unknown flag of kill' "$OCI" kill --al x
expect too-few 1 'expected start ID' "$OCI" start
expect bad-log-format 1 "'xml'; expected text or json" "$OCI" --log-format xml list
expect help 0 'usage: insula-oci' "$OCI" --help
expect help-command 0 '--console-socket' "$OCI" create --help
expect features 0 '"ociVersionMin": *"1.0.0"' "$OCI" features
expect config-bad 1 'oci.json' "$OCI" --config /nowhere/oci.json check

# ---- one container
bundle "$B" '.process.args = ["sh", "-c", "echo out; echo err >&2; read x; echo \"got $x\"; exit 42"]'
same run 'out got hi 42' "$(echo hi | oci run -b "$B" c 2>/dev/null | tr '\n' ' ')$(echo hi | oci run -b "$B" c >/dev/null 2>&1; echo $?)"
left run

bundle "$B" '.process.args = ["sh", "-c", "trap \"echo term; exit 7\" TERM; echo up; while :; do sleep 0.1; done"] | .annotations = {"a.b": "c"} |
	.mounts += [{"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"}]'
mkdir "$B/rootfs/scratch"
oci create -b "$B" --pid-file "$T/pid" c >"$T/streams" 2>&1 </dev/null
same create 0 $?
pid=$(cat "$T/pid")
if alive "$pid"; then ok create-pid; else not_ok create-pid "no process $pid"; fi
same created "created $pid c" "$(oci state c | jq -r '"\(.status) \(.pid) \(.annotations["a.b"])"')"
same created-runs-nothing '' "$(cat "$T/streams")"
same own-network no "$([ "$(readlink "/proc/$pid/ns/net")" = "$(readlink /proc/self/ns/net)" ] && echo yes || echo no)"
same root-of-the-proxy bin "$(ls -d "/proc/$pid/root/bin" | sed 's/.*root.//')"
expect memory-of-the-guest 1 "x': Read-only file system" touch "/proc/$pid/root/scratch/x"
same proc-of-the-proxy "$pid stat Name: insula-oci" "$(ls "/proc/$pid/root/proc" | tr '\n' ' ')$(grep -a Name "/proc/$pid/root/proc/$pid/status" | tr '\t' ' ')"
same proxy-has-no-rights 0000000000000000 "$(awk '/CapEff/ {print $2}' "/proc/$pid/status")"
# A configuration of some MiB is dropped by what stays as long as its container. AddressSanitizer keeps what is freed.
bundle "$T/large" '.linux.seccomp = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
	"syscalls": [range(3000) | {"names": ["read", "write", "open"], "action": "SCMP_ACT_ALLOW"}]}'
oci create -b "$T/large" --pid-file "$T/large.pid" large >/dev/null 2>&1 </dev/null
anon=$(awk '/^RssAnon/ { print $2 }' "/proc/$(cat "$T/large.pid")/status")
if grep -qa __asan_init "$OCI" || [ "$anon" -lt 1024 ]; then ok memory-of-the-proxy; else not_ok memory-of-the-proxy "$anon KiB"; fi
oci delete -f large
expect second-create 1 'container with id "c" already exists' "${CALL[@]}" create -b "$B" c
expect delete-running 1 'not stopped: created' "${CALL[@]}" delete c
expect exec-before-start 1 'not started' "${CALL[@]}" exec c true
expect start 0 '' "${CALL[@]}" start c
same running running "$(oci state c | jq -r .status)"
expect start-again 1 'cannot start an already running container' "${CALL[@]}" start c
expect list 0 "^c +$pid +running" "${CALL[@]}" list
same list-json "c running" "$(oci list -f json | jq -r '.[0] | "\(.id) \(.status)"')"
same list-quiet c "$(oci list -q)"
same ps "[$pid]" "$(oci ps --format json c)"
expect ps-table 0 "$pid" "${CALL[@]}" ps c

# ---- exec
same exec $'out\n5' "$(oci exec c sh -c 'echo out; exit 5'; echo $?)"
expect exec-status 5 '' "${CALL[@]}" exec c sh -c 'exit 5'
expect exec-env 0 '^v$' "${CALL[@]}" exec -e V=v c sh -c 'echo $V'
expect exec-cwd 0 '^/tmp$' "${CALL[@]}" exec --cwd /tmp c pwd
expect exec-missing 127 'no-such-program: No such file' "${CALL[@]}" exec c no-such-program
"${CALL[@]}" exec c sleep 1 </dev/null &
epid=$!
sleep 0.6
same exec-has-no-rights 0000000000000000 "$(awk '/CapEff/ {print $2}' "/proc/$epid/status")"
wait $epid
expect exec-no-command 1 'no command' "${CALL[@]}" exec c
same exec-input hello "$(echo hello | oci exec c cat)"
jq -n '{args: ["sh", "-c", "sleep 0.5; exit 9"], cwd: "/", env: [], user: {uid: 0, gid: 0}}' >"$T/process"
python3 - "$T" "${CALL[@]}" <<'PY'
import ctypes, os, subprocess, sys
t, call = sys.argv[1], sys.argv[2:]
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER, as conmon and containerd's shim
rc = subprocess.run(call + ["exec", "--process", t + "/process", "--detach", "--pid-file", t + "/epid", "c"], check=False).returncode
pid = int(open(t + "/epid", encoding="ascii").read())
print("ok oci-life: exec-detached" if rc == 0 and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9 else "not ok oci-life: exec-detached - status")
PY
expect exec-no-socket 1 'console-socket: .*none' "${CALL[@]}" exec --detach --tty --console-socket "$T/none" c sleep 1
expect exec-no-pid-file 1 'pid-file' "${CALL[@]}" exec --pid-file "$T/none/pid" c true
same exec-leaves-no-records 'config m rootfs status' "$(cd "$ROOT/c/share/c" && echo *)"

# ---- made in another mount namespace, as podman does with --uidmap
bundle "$T/u" '.linux.namespaces += [{"type": "user"}] | .linux.uidMappings = [{"containerID": 0, "hostID": 100000, "size": 65536}] |
	.linux.gidMappings = [{"containerID": 0, "hostID": 100001, "size": 65536}] | .process.args = ["sleep", "1000"] |
	.mounts += [{"destination": "/made/here", "type": "tmpfs", "source": "tmpfs"}]'
expect apart 0 '' unshare -m --propagation private "${CALL[@]}" create -b "$T/u" u
same apart-mount-point '100000 100001' "$(stat -c '%u %g' "$T/u/rootfs/made/here")"
expect apart-start 0 '' "${CALL[@]}" start u
expect apart-exec 5 '^out$' "${CALL[@]}" exec u sh -c 'echo out; exit 5'
expect apart-update 0 '' "${CALL[@]}" update --memory 67108864 u
bundle "$T/v" '.annotations = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "u"} | .linux.namespaces = [{"type": "mount"}]'
expect apart-member 1 'share: nothing is mounted there; expected the mount namespace that its sandbox' "${CALL[@]}" create -b "$T/v" v
expect apart-delete 0 '' "${CALL[@]}" delete --force u

# ---- pause, update, events, signals
expect pause 0 '' "${CALL[@]}" pause c
same paused paused "$(oci state c | jq -r .status)"
expect exec-paused 1 'cannot exec in a paused container' "${CALL[@]}" exec c true
expect pause-again 1 'it is paused, not running' "${CALL[@]}" pause c
expect resume 0 '' "${CALL[@]}" resume c
expect update 0 '' "${CALL[@]}" update --memory 67108864 c
same update-stdin 0 "$(echo '{"cpu": {"quota": 50000, "period": 100000}}' | oci update --resources=- c; echo $?)"
expect update-beyond-the-vm 1 'memory.limit: 8589934592; expected at most [0-9]+: the VM was started with' "${CALL[@]}" update --memory 8589934592 c
same update-beyond-changes-nothing 0 "$(oci update --memory 67108864 c; echo $?)"
expect update-nothing 1 'nothing to change' "${CALL[@]}" update c
expect update-junk 1 "'x'; expected a number" "${CALL[@]}" update --memory x c
same events stats "$(oci events --stats c | jq -r .type)"
expect events-interval 1 "'-1'; expected seconds" "${CALL[@]}" events --interval=-1 c
expect kill-junk 1 "signal: 'NOPE'" "${CALL[@]}" kill c NOPE
expect kill 0 '' "${CALL[@]}" kill c TERM
gone kill-ends "$pid"
same kill-was-passed-on 'up term' "$(grep -v Terminated "$T/streams" | tr '\n' ' ' | sed 's/ $//')"
same stopped "stopped 0" "$(oci state c | jq -r '"\(.status) \(.pid)"')"
expect kill-stopped 1 'container not running' "${CALL[@]}" kill c 9
expect exec-stopped 1 'container not running' "${CALL[@]}" exec c true
expect start-stopped 1 'cannot start a container that has stopped' "${CALL[@]}" start c
expect delete 0 '' "${CALL[@]}" delete c
left delete
expect state-none 1 'container "c" does not exist' "${CALL[@]}" state c
expect delete-none 1 'does not exist' "${CALL[@]}" delete c
expect delete-force-none 0 '' "${CALL[@]}" delete --force c

# ---- ends
oci_start() { oci create -b "$B" --pid-file "$T/pid" "$1" >"$T/streams" 2>&1 </dev/null && oci start "$1" && pid=$(cat "$T/pid"); }
oci_start k
expect kill-9 0 '' "${CALL[@]}" kill k 9
gone kill-9-ends "$pid"
expect delete-killed 0 '' "${CALL[@]}" delete k
oci_start k
supervisor=$(jq .vm.pid "$ROOT/k/state.json")
kill -9 "$pid"
gone proxy-killed-vm-ends "$supervisor"
gone proxy-killed-ends "$pid"
expect delete-proxy-killed 0 '' "${CALL[@]}" delete k
oci_start k
kill -9 "$(jq .vm.pid "$ROOT/k/state.json")"
gone vm-killed-proxy-ends "$pid"
expect delete-vm-killed 0 '' "${CALL[@]}" delete k
oci_start k
expect delete-force-running 0 '' "${CALL[@]}" delete --force k
gone delete-force-ends "$pid"
oci create -b "$B" --pid-file "$T/pid" k >/dev/null 2>&1 </dev/null
kill -TERM "$(cat "$T/pid")"
gone signal-before-start "$(cat "$T/pid")"
expect delete-never-started 0 '' "${CALL[@]}" delete k
left ends
# The command is killed in the middle of create: the proxy undoes itself, and delete --force takes the rest.
bundle "$T/slow" '.hooks.prestart = [{"path": "/bin/sleep", "args": ["sleep", "30"]}]'
(timeout -s KILL 1 "${CALL[@]}" create -b "$T/slow" slow >/dev/null </dev/null) 2>/dev/null
sleep 0.3
expect delete-half-made 0 '' "${CALL[@]}" delete --force slow
left half-made

# ---- a terminal
bundle "$T/tty" '.process.terminal = true | .process.args = ["sh", "-c", "echo tty $FAKE_TTY; stty size; read x; exit 3"] | .process.consoleSize = {"height": 33, "width": 99}'
cat >"$T/console.py" <<'PY'
import array, os, socket, subprocess, sys, time
path, call = sys.argv[1], sys.argv[2:]
s = socket.socket(socket.AF_UNIX)
s.bind(path)
s.listen()
p = subprocess.Popen(call, stdin=subprocess.DEVNULL)
c = s.accept()[0]
_, anc, _, _ = c.recvmsg(100, socket.CMSG_SPACE(4))
master = array.array("i", anc[0][2])[0]
print("create", p.wait(), flush=True)
start = [a for a in call[:call.index("create")]] + ["start", call[-1]]
print("start", subprocess.run(start).returncode, flush=True)
got = b""
while b"33 99" not in got:
    got += os.read(master, 1000)
os.write(master, b"x\n")
print("tty 1" in got.decode(), "size")
PY
same console 'create 0 start 0 True size' "$(timeout 30 python3 "$T/console.py" "$T/console" "${CALL[@]}" create -b "$T/tty" --console-socket "$T/console" t 2>&1 | tr '\n' ' ' | sed 's/ $//')"
oci delete --force t
expect terminal-without-socket 1 'expected --console-socket' "${CALL[@]}" create -b "$T/tty" t
expect socket-without-terminal 1 'expected process.terminal' "${CALL[@]}" create -b "$B" --console-socket "$T/console" t
left terminal

expect run-unheard 1 'signalfd: Too many open files' strace -qq -o /dev/null -e inject=signalfd4:error=EMFILE:when=1 "${CALL[@]}" run -b "$B" unheard
left run-unheard

# ---- hooks
cat >"$T/hook" <<'HOOK'
#!/bin/sh
state=$(cat)
echo "$1 $(echo "$state" | jq -r '"\(.status) \(.pid > 0) \(.id)"') $A" >>"$2"
HOOK
chmod +x "$T/hook"
hooks=$(for h in prestart createRuntime createContainer poststart poststop; do
	printf '"%s": [{"path": "%s", "args": ["hook", "%s", "%s"], "env": ["A=%s", "PATH=/usr/bin:/bin"]}],' $h "$T/hook" $h "$T/said" $h
done)
bundle "$T/h" '.process.args = ["true"] | .hooks = {'"${hooks%,}"'}'
oci run -b "$T/h" h >/dev/null 2>&1 </dev/null
same hooks 'prestart creating true h prestart;createRuntime creating true h createRuntime;createContainer creating true h createContainer;poststart running true h poststart;poststop stopped false h poststop;' "$(tr '\n' ';' <"$T/said")"
bundle "$T/h" '.hooks.startContainer = [{"path": "/h"}]'
oci create -b "$T/h" h </dev/null >/dev/null
same hook-of-the-guest 'h created' "$(tr '\0' '\n' <"$ROOT/h/share/h/config" | sed -n 's/^hook.input=//p' | jq -r '"\(.id) \(.status)"')"
oci delete --force h
hook() { bundle "$T/h" '.hooks.'"$1"' = [{"path": "/bin/sh", "args": ["sh", "-c", "'"$2"'"], "timeout": 1}]'; }
hook createRuntime 'echo bad weather >&2; exit 3'
expect hook-fails 1 'hooks.createRuntime\[0\]: /bin/sh ended with status 3: bad weather' "${CALL[@]}" create -b "$T/h" h
left hook-fails
# Nobody could hear of its end: it is not waited for.
hook prestart 'sleep 100'
expect hook-unseen 1 'a hook.s process: Too many open files' strace -qq -o /dev/null -e inject=pidfd_open:error=EMFILE:when=1 "${CALL[@]}" create -b "$T/h" h
left hook-unseen
expect hook-hangs 1 'did not end within its timeout, 1 s' "${CALL[@]}" create -b "$T/h" h
left hook-hangs

# ---- bad input
expect no-bundle 1 'bundle: ' "${CALL[@]}" create -b /nowhere x
mkdir "$T/empty"
expect no-config 1 'config.json: No such file' "${CALL[@]}" create -b "$T/empty" x
expect id-slash 1 "invalid container id 'a/b'" "${CALL[@]}" create -b "$B" a/b
expect id-dots 1 "invalid container id '..'" "${CALL[@]}" create -b "$B" ..
left bad-id
expect preserve-fds 1 'preserve-fds: 3; expected 0' "${CALL[@]}" create -b "$B" --preserve-fds 3 x
bad() { # NAME FILTER REGEX
	bundle "$T/bad" "$2"
	expect "$1" 1 "$3" "${CALL[@]}" create -b "$T/bad" bad
	same "$1-one-line" 1 "$(wc -l <"$T/out")"
	left "$1"
}
bad oci-version '.ociVersion = "2.0.0"' "ociVersion: '2.0.0'; expected"
bad oci-version-type '.ociVersion = 1' 'ociVersion'
bad no-program '.process.args = ["no-such-program"]' 'exec: "no-such-program": executable file not found in .PATH'
bad no-args '.process.args = []' 'process.args: missing'
bad cwd-relative '.process.cwd = "a"' "process.cwd: 'a'; expected an absolute path"
bad root-gone '.root.path = "gone"' 'root.path: gone: No such file'
bad annotation-type '.annotations = {"a": 1}' 'annotations.a: 1; expected a string'
bad container-type '.annotations = {"io.kubernetes.cri.container-type": "pod"}' "'pod'; expected sandbox or container"
bad sandbox-none '.annotations = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s"}' 'sandbox "s" does not exist'
bad hook-relative '.hooks.prestart = [{"path": "x"}]' 'hooks.prestart\[0\].path: "x"; expected an absolute path'
bad mount-gone '.mounts += [{"destination": "/x", "type": "bind", "source": "/nowhere/at/all", "options": ["bind"]}]' 'nowhere/at/all'
bad netns-gone '.linux.namespaces = [{"type": "network", "path": "/run/netns/gone"}]' 'path: /run/netns/gone: No such file'
bad host-network '.linux.namespaces = [{"type": "mount"}]' "network: the host's; expected another one"
bad host-network-by-path '.linux.namespaces = [{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/net"}]' "network: the host's; expected another one"
bad vfio-none '.linux.devices = [{"path": "/dev/vfio/999999", "type": "c", "major": 4000, "minor": 9}]' \
	'linux.devices\[0\]: /dev/vfio/999999: the host has no IOMMU group 999999'
bad vfio-annotation '.annotations = {"io.insula.vm.vfio": "0000:00:00.0"}' 'expected none, for vfio_annotation is false in the configuration'
bad memory-small '.linux.resources.memory.limit = 1000' 'memory.limit: 1000; expected at least [0-9]+, so that the VM has its minimum'
bad annotation-memory '.annotations = {"io.insula.vm.memory": "lots"}' "annotations.io.insula.vm.memory: 'lots'; expected a size such as 512M"
bad annotation-cpus '.annotations = {"io.insula.vm.cpus": "-1"}' "annotations.io.insula.vm.cpus: '-1'; expected a number from 1 to"
# elsewhere NAME REGEX SCRIPT COMMAND...: refused in a mount namespace where SCRIPT has been run
elsewhere() {
	expect "$1" 1 "$2" unshare -m --propagation private sh -c "$3"' && exec "$@"' - "${@:4}" create -b "$B" x
	same "$1-one-line" 1 "$(wc -l <"$T/out")"
	left "$1"
}
elsewhere no-kvm '/dev/kvm: .*; expected a Linux host with KVM' 'mount -t tmpfs dev /dev && mknod -m 666 /dev/null c 1 3' "${CALL[@]}"
elsewhere cgroup-v1 '/sys/fs/cgroup: version 1, or both versions; expected control groups of version 2 alone' 'mount -t tmpfs cgroup /sys/fs/cgroup' \
	"$OCI" --config "$T/oci.json" --root "$ROOT"
expect log-json 1 '' "${CALL[@]}" --log "$T/log" --log-format json create -b "$T/empty" x
same log-json-line 'error true' "$(tail -1 "$T/log" | jq -r '"\(.level) \(.msg | contains("config.json"))"')"

# ---- a VM that is none
fault() { # NAME WORDS REGEX [START-REGEX]
	bundle "$T/f" '.process.args = ["sleep", "1000"]'
	echo "$2" >/run/fakevm
	expect "$1" 1 "$3" "${CALL[@]}" "$4" -b "$T/f" f
	rm -f /run/fakevm
	oci delete --force f
	left "$1"
}
fault vm-fails no-start 'it is not the weather for it' create
fault sandbox-fails sandbox "the VM's set-up: no such thing" run
fault status-is-a-link lie 'status' run
unkilled() { # WORD REGEX: the guest does not do it, or does not say so; '': not a word about that
	echo "$1" >/run/fakevm
	oci_start "$1"
	expect "kill-9-$1" 0 "$2" "${CALL[@]}" kill "$1" 9
	[ -n "$2" ] || same "kill-9-$1-words" '' "$(cat "$T/out")"
	gone "kill-9-$1-ends" "$pid"
	rm -f /run/fakevm
	expect "delete-$1" 0 '' "${CALL[@]}" delete "$1"
}
unkilled deaf 'does not answer'
unkilled flood 'does not answer'
unkilled feign 'the guest has not killed it'
unkilled cut ''
unkilled vanish ''
# A supervisor that stays: its proxy ends it.
bundle "$T/f" '.process.args = ["sh", "-c", "exit 6"]'
echo stay >/run/fakevm
expect vm-that-stays 6 '' "${CALL[@]}" run -b "$T/f" f
rm -f /run/fakevm
same vm-that-stays-ends 0 "$(pgrep -cf 'fakevm --control')"
left a-bad-vm

# ---- the host's network is nobody's pod
echo "{\"supervisor\": \"$FAKE\", \"host_network\": \"user\", \"share_cache\": \"none\"}" >"$T/user.json"
for path in /proc/self/ns/net "/proc/$$/ns/net"; do
	bundle "$T/n" '.process.args = ["sleep", "1000"] | .linux.namespaces = [{"type": "network", "path": "'$path'"}, {"type": "mount"}]'
	oci --config "$T/user.json" create -b "$T/n" n >/dev/null 2>&1 </dev/null
	same "host-network-by-path-${path//[0-9]/}" '[{"user":true}] {} ' "$(jq -c .config.nets "$ROOT/n/vm/setup") $(jq -c .net "$ROOT/n/state.json") $(jq -r .netns "$ROOT/n/state.json")"
	same "share-cache-${path//[0-9]/}" "$ROOT/n/share:/run/insula/share,cache=none" "$(jq -r '.config.shares[0]' "$ROOT/n/vm/setup")"
	oci delete --force n
done
# delete undoes nothing in a namespace that is not the one it was done in. In a "host" of the test's own, with an interface that looks like ours.
cat >"$T/leave" <<'LEAVE'
state=$1/n/state.json ns=$2 filter=$3
shift 3
ip tuntap add ins7 mode tap || exit 1
[ -z "$ns" ] || nsenter --net="$ns" ip tuntap add ins7 mode tap || exit 1
id=$(stat -L -c '.netns_dev = %d | .netns_ino = %i' "${ns:-/proc/self/ns/net}")
jq '.net = {"ins7": "lo"} | .netns = "'"$ns"'" | '"$id | $filter" "$state" >"$state.2" && mv "$state.2" "$state"
"$@" delete --force n || exit 1
ip link show ins7 >/dev/null 2>&1 && echo host
[ -z "$ns" ] || ! nsenter --net="$ns" ip link show ins7 >/dev/null 2>&1 || echo pod
LEAVE
leave() { # NAME EXPECTED NS FILTER
	bundle "$T/n" '.process.args = ["sleep", "1000"]'
	oci create -b "$T/n" n >/dev/null 2>&1 </dev/null
	if [ -n "$3" ]; then touch "$T/ns" && unshare --net="$T/ns" true; fi
	same "$1" "$2" "$(unshare -n bash "$T/leave" "$ROOT" "$3" "$4" "${CALL[@]}" 2>&1 | tr '\n' ' ' | sed 's/ $//')"
	if [ -n "$3" ]; then umount "$T/ns"; fi
}
leave leave-its-namespace host "$T/ns" .
leave leave-no-namespace host '' .
leave leave-another-namespace 'host pod' "$T/ns" '.netns_ino = 1'
leave leave-the-hosts host '' '.netns = "/proc/self/ns/net"'
left network

# ---- a pod
bundle "$T/s" '.annotations = {"io.kubernetes.cri.container-type": "sandbox"}'
oci create -b "$T/s" --pid-file "$T/pid" s >/dev/null 2>&1 </dev/null && oci start s
sandbox=$(cat "$T/pid")
member='.annotations = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s"} | .process.args = ["sh", "-c", "exit 11"]
	| .linux.namespaces = [{"type": "network", "path": "/proc/'$sandbox'/ns/net"}, {"type": "ipc", "path": "/proc/'$sandbox'/ns/ipc"}, {"type": "mount"}]'
bundle "$T/m" "$member"
expect member 11 '' "${CALL[@]}" run -b "$T/m" m
bundle "$T/x" "$member"' | .linux.namespaces[0].path = "/proc/self/ns/net"'
expect member-of-the-hosts-network 1 'expected the namespace of sandbox "s"' "${CALL[@]}" create -b "$T/x" x
bundle "$T/x" "$member"' | .linux.namespaces[1].path = "/proc/self/ns/ipc"'
expect member-of-the-hosts-ipc 1 'ns/ipc; expected a namespace of a container of this VM' "${CALL[@]}" create -b "$T/x" x
bundle "$T/x" '.process.args = ["sh", "-c", "exit 12"] | .annotations = {"io.container.manager": "libpod",
	"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "a-pod-without-infra"}'
expect pod-without-infra 12 '' "${CALL[@]}" run -b "$T/x" x
# What a guest can write is put there when the hooks of root are done.
bundle "$T/x" "$member"' | .process.args = ["true"] | .hooks.createRuntime = [{"path": "/bin/sh", "args": ["sh", "-c", "ls '"$ROOT"'/s/share >'"$T"'/hooked"]}]'
expect member-hook 0 '' "${CALL[@]}" run -b "$T/x" x
same member-hook-before-share sandbox "$(tr '\n' ' ' <"$T/hooked" | sed 's/ $//;s/^s //')"
bundle "$T/p" '.process.args = ["sleep", "1000"] | .linux.namespaces = [{"type": "ipc", "path": "/proc/'"$sandbox"'/ns/ipc"}, {"type": "mount"}]'
oci create -b "$T/p" --pid-file "$T/mpid" p >/dev/null 2>&1 </dev/null && oci start p
same by-namespace 's 0' "$(jq -r '"\(.sandbox) \(.vm.pid)"' "$ROOT/p/state.json")"
same one-vm 1 "$(pgrep -cf "fakevm --control" )"
expect kill-sandbox 0 '' "${CALL[@]}" kill s 9
gone sandbox-ends "$sandbox"
gone member-ends-with-it "$(cat "$T/mpid")"
expect delete-member 0 '' "${CALL[@]}" delete p
expect delete-sandbox 0 '' "${CALL[@]}" delete s
left pod
exit $failed
