#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Programs of the host that have a network, with real VMs on this machine's /dev/kvm, in a network namespace: the modules curl and ssh against
# nginx and OpenSSH's server; qemu-storage-daemon, its servers and their connections killed under load; what is refused; and a program that
# has been taken over, which tries to reach something else. rbd.sh has the module rbd. BUILD names the build directory. One line per case:
# ok, not ok, skip.
# shellcheck disable=SC2317 # functions that are handed to wait_for or trap
set -u
SUITE=network MODULE=
if [ -z "${NETWORK_INSIDE-}" ]; then
	if ! unshare -n true 2>/dev/null; then
		echo "skip network/all - no network namespace: not root"
		exit 0
	fi
	NETWORK_INSIDE=1 exec unshare -n bash "$0"
fi
ip link set lo up
# shellcheck source=tests/guests/modulelib.bash
. "$(dirname "$0")/modulelib.bash"
for need in qemu-storage-daemon qemu-img nginx openssl /usr/sbin/sshd ssh-keygen jq; do
	command -v $need >/dev/null || { not_ok all "$need is not installed (packages qemu-system-common, qemu-utils, nginx-light, openssl, openssh-server, jq)"; exit 1; }
done
log() { tail -n 3 "$dir/err" | tr '\n' '|'; }
listens_tcp() { ss -tlnH "sport = :$1" | grep -q .; }
# broken NAME TEXT DISK: status 125, and the program has the last word
broken() {
	local status
	timeout -s KILL 60 "$RUN" --kernel "$GUESTS/hello.elf" --disk "$3" </dev/null >"$dir/out" 2>"$dir/err"
	status=$?
	[ $status = 125 ] && grep -qF -- "$2" "$dir/err"
	holds "broken/$1" $? "status $status: $(log)"
}
# program: sets pid to that of qemu-storage-daemon
program() {
	local p
	pid=
	for p in $(children); do
		[ "$(tr '\0' '\n' <"/proc/$p/cmdline" | head -n 1)" != qemu-storage-daemon ] || pid=$p
	done 2>/dev/null
	[ -n "$pid" ]
}
old=
again() { program && [ "$pid" != "$old" ]; }
kill_program() {
	[ $((deaths++)) -lt 5 ] && wait_for 10 again || return 1
	old=$pid
	kill -KILL "$old" 2>/dev/null
}

# ---- a program that has been taken over

make -s -C "$HERE/../.." BUILD="$BUILD" DESTDIR="$dir/tree" PREFIX=/usr STRIP= install >"$dir/install" 2>&1 || not_ok install "$(tail -n 3 "$dir/install")"
M=$dir/tree/usr/libexec/insula/modules
mkdir "$dir/bin"
install -m 755 "$BUILD/tests/served_bad" "$dir/bin/bad"
cat >"$M/bad.json" <<END
{ "api": 1, "device": "disk", "about": "a bad one", "serves": "vhost-user", "program": "$dir/bin/bad", "reconnects": true,
  "target": { "type": "text", "help": "PORT" },
  "settings": { "to": { "type": "hosts", "default": "127.0.0.1" }, "good": { "type": "number", "max": 65535, "default": "81" },
    "none": { "type": "number", "max": 65535, "default": "82" } },
  "network": [{ "to": "to", "ports": "good" }, { "to": "to", "ports": "none" }],
  "arguments": ["\${good}", "\${none}", "\${target}"] }
END
# Whoever is connected to is named in a file.
cat >"$dir/listen.py" <<END
import select, socket, sys
s = [socket.create_server(("127.0.0.1", p)) for p in (81, 83)]
open(sys.argv[1] + "/listening", "w").close()
while True:
    for one in select.select(s, [], [])[0]:
        c = one.accept()[0]
        open(sys.argv[1] + "/came.%d" % one.getsockname()[1], "w").close()
END
serve python3 "$dir/listen.py" "$dir"
wait_for 10 test -e "$dir/listening"
tree_run=$dir/tree/usr/bin/insula-run
RUN=$tree_run broken 'bad/nothing else is reached' '; 0 of 1' bad:83
grep -q '; 0 of 1[0-9][0-9]$' "$dir/err" && [ -e "$dir/came.81" ] && [ ! -e "$dir/came.83" ]
holds 'bad/what it was given works, and it tried' $? "$(log)"
[ "$(grep -c 'wants to connect to 127.0.0.1, port 83, which nobody has named: refused' "$dir/err")" = 1 ]
holds 'bad/is said once' $? "$(log)"
gone

exit $failed
