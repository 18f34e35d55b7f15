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
	if ! unshare -n -m true 2>/dev/null; then
		echo "skip network/all - no network namespace: not root"
		exit 0
	fi
	NETWORK_INSIDE=1 exec unshare -n -m bash "$0"
fi
ip link set lo up
# shellcheck source=tests/guests/modulelib.bash
. "$(dirname "$0")/modulelib.bash"
for need in qemu-storage-daemon qemu-img nginx openssl /usr/sbin/sshd ssh-keygen jq; do
	command -v $need >/dev/null || { not_ok all "$need is not installed (packages qemu-system-common, qemu-utils, nginx-light, openssl, openssh-server, jq)"; exit 1; }
done
# shellcheck source=tests/guests/networklib.bash
. "$HERE/networklib.bash"

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
# It ends; insula-vhost misses it. Whichever is noticed first, its own last line is the end of the message.
RUN=$tree_run broken 'bad/nothing else is reached' ' 0 of 1' bad:83
grep -qE '[:;] 0 of 1[0-9][0-9]$' "$dir/err" && ! grep -q 'no connection' "$dir/err" && [ -e "$dir/came.81" ] && [ ! -e "$dir/came.83" ]
holds 'bad/what it was given works, and it tried' $? "$(log)"
[ "$(grep -c 'wants to connect to 127.0.0.1, port 83, which nobody has named: refused' "$dir/err")" = 1 ]
holds 'bad/is said once' $? "$(log)"
gone

# ---- curl

mkdir "$dir/www" "$dir/www/in"
# The payload that looks for zeros takes ten seconds for a MiB.
truncate -s 64K "$dir/www/zero.raw"
truncate -s 384K "$dir/www/slow.raw"
cp "$dir/www/zero.raw" "$dir/www/data.raw"
printf x | dd of="$dir/www/data.raw" conv=notrunc bs=1 seek=513 status=none
qemu-img convert -f raw -O qcow2 "$dir/www/data.raw" "$dir/www/data.qcow2"
qemu-img create -q -u -f qcow2 -b http://127.0.0.1:83/x -F raw "$dir/www/backing.qcow2" 64K
qemu-img create -q -f qcow2 -o "data_file=$dir/data,data_file_raw=on" "$dir/local.qcow2" 1M
cp "$dir/local.qcow2" "$dir/www/local.qcow2"
cp "$dir/www/data.raw" "$dir/www/in/data.raw"
printf 'me:%s\n' "$(openssl passwd -1 'a secret')" >"$dir/passwd"
printf 'a secret' >"$dir/pw"
printf 'another' >"$dir/pw-wrong"
certificate() { # NAME SUBJECT
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$2" -addext "subjectAltName=DNS:$2" \
		-keyout "$dir/$1.key" -out "$dir/$1.pem" 2>>"$dir/servers"
}
certificate server localhost
certificate other localhost
cat >"$dir/nginx.conf" <<END
user root; pid $dir/nginx.pid; error_log $dir/nginx.log; daemon off; worker_processes 1; events {}
http {
	access_log off; root $dir/www; keepalive_requests 20;
	client_body_temp_path $dir/t1; proxy_temp_path $dir/t2; fastcgi_temp_path $dir/t3; uwsgi_temp_path $dir/t4; scgi_temp_path $dir/t5;
	server {
		listen 127.0.0.1:80; listen 127.0.0.1:443 ssl; ssl_certificate $dir/server.pem; ssl_certificate_key $dir/server.key;
		location /in/ { auth_basic x; auth_basic_user_file $dir/passwd; }
		location /slow/ { alias $dir/www/; limit_rate 128k; }
		location /away { return 302 http://127.0.0.1:83/zero.raw; }
		location /here { return 302 /zero.raw; }
	}
}
END
web() { serve nginx -p "$dir" -c "$dir/nginx.conf" && wait_for 10 listens_tcp 80; }
web_gone() { # its worker too
	local w
	w=$(cat "/proc/$server/task/$server/children")
	kill -KILL "$server" $w 2>/dev/null
	{ wait "$server"; } 2>/dev/null
}
refused curl/write 'expected ro: what a web server has can only be read' curl:http://127.0.0.1/zero.raw,format=raw
refused curl/format 'options: format: missing' curl:http://127.0.0.1/zero.raw,ro
refused curl/scheme "scheme 'ftp'; expected one of: https://, http://" curl:ftp://127.0.0.1/zero.raw,format=raw,ro
refused curl/ca 'options: ca: missing' curl:https://localhost/zero.raw,format=raw,ro
refused curl/ca-of-http 'options: ca: expected with https:// only' "curl:http://localhost/zero.raw,format=raw,ro,ca=$dir/server.pem"
refused curl/password 'options: password: missing' curl:http://me@localhost/in/data.raw,format=raw,ro
refused curl/password-in-it 'user: a password' curl:http://me:secret@localhost/in/data.raw,format=raw,ro
refused curl/nobody 'connection to 127.0.0.1: Connection refused' curl:http://127.0.0.1/zero.raw,format=raw,ro
refused curl/name 'no address for that name' curl:http://no-such-host.invalid/zero.raw,format=raw,ro
refused curl/query 'disk curl:http://127.0.0.1/zero.raw?...: connection to' 'curl:http://127.0.0.1/zero.raw?token=hush,format=raw,ro'
refused curl/query-and-user 'disk curl:http://me@127.0.0.1/zero.raw?...: options: password' 'curl:http://me@127.0.0.1/zero.raw?token=hush,format=raw,ro'
web
# nonzero NAME DISK: the byte that is not zero is read
nonzero() {
	timeout -s KILL 60 "$RUN" --kernel "$GUESTS/blkzero.elf" --disk "$2" </dev/null >"$dir/out" 2>"$dir/err"
	grep -q 'not ok zeros - sector 0, byte 513: 0x78' "$dir/out"
	holds "$1" $? "$(tail -n 1 "$dir/out") $(log)"
}
vm curl/http blkzero --disk curl:http://127.0.0.1/zero.raw,format=raw,ro
nonzero curl/http/data curl:http://localhost/data.raw,format=raw,ro
# libcurl knows localhost; other names it looks up in a thread, which it waits for with a pair of sockets.
{ cat /etc/hosts; echo 127.0.0.1 storage; } >"$dir/hosts"
mount --bind "$dir/hosts" /etc/hosts || not_ok curl/hosts 'mount'
vm curl/name blkzero --disk curl:http://storage/zero.raw,format=raw,ro
nonzero curl/http/qcow2 curl:http://localhost/data.qcow2,format=qcow2,ro
# What a query says is for the server alone.
vm curl/query blkzero -v --disk 'curl:http://127.0.0.1/zero.raw?token=hush,format=raw,ro'
grep -qF 'curl: curl:http://127.0.0.1/zero.raw?...' "$dir/err" && ! grep -q hush "$dir/err"
holds 'curl/query: is not logged' $? "$(grep -m 1 hush "$dir/err")"
vm curl/https blkzero --disk "curl:https://localhost/zero.raw,format=raw,ro,ca=$dir/server.pem"
nonzero curl/https/data "curl:https://localhost/data.raw,format=raw,ro,ca=$dir/server.pem"
broken curl/ca 'verification failed' "curl:https://localhost/zero.raw,format=raw,ro,ca=$dir/other.pem"
broken curl/name 'does not match' "curl:https://127.0.0.1/zero.raw,format=raw,ro,ca=$dir/server.pem"
broken curl/none '404' curl:http://127.0.0.1/none,format=raw,ro
nonzero curl/password "curl:http://me@localhost/in/data.raw,format=raw,ro,password=$dir/pw"
broken curl/password '401' "curl:http://me@localhost/in/data.raw,format=raw,ro,password=$dir/pw-wrong"
vm curl/redirected blkzero --disk curl:http://127.0.0.1/here,format=raw,ro
broken curl/redirected 'connection to 127.0.0.1, port 83: Permission denied' curl:http://127.0.0.1/away,format=raw,ro
vm curl/backing blkzero --disk curl:http://127.0.0.1/backing.qcow2,format=qcow2,ro
broken curl/data-file 'No such file or directory' curl:http://127.0.0.1/local.qcow2,format=qcow2,ro

# slow NAME KILLER: what takes some seconds; in them KILLER is called, twice
slow() {
	local status
	: >"$dir/out"
	"$RUN" --kernel "$GUESTS/blkzero.elf" --disk curl:http://localhost/slow/slow.raw,format=raw,ro </dev/null >"$dir/out" 2>"$dir/err" &
	run=$!
	old='' deaths=0
	nap 0.7; $2 || not_ok "$1/killed" "$(log)"
	nap 0.7; $2 || not_ok "$1/killed" "$(log)"
	wait "$run"
	status=$?
	run=''
	[ $status = 0 ] && grep -q '^ok zeros' "$dir/out"
	holds "$1" $? "status $status: $(tail -n 1 "$dir/out") $(log)"
}
web_again() { web_gone; nap 0.3; web; }
slow 'curl/killed: requests wait' kill_program
slow 'curl/server comes back: requests wait' web_again
# A server that says nothing.
: >"$dir/out"
"$RUN" -v --kernel "$GUESTS/blkzero.elf" --disk curl:http://localhost/slow/slow.raw,format=raw,ro,timeout=1 </dev/null >"$dir/out" 2>"$dir/err" &
run=$!
wait_for 10 grep -q 'running after' "$dir/err"
worker=$(cat "/proc/$server/task/$server/children")
kill -STOP $worker
wait "$run"
run=''
grep -q '^not ok reads' "$dir/out"
holds 'curl/timeout: the request fails' $? "$(tail -n 1 "$dir/out") $(log)"
kill -CONT $worker
web_gone

# ---- ssh

mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f "$dir/host"
ssh-keygen -q -t ecdsa -N '' -f "$dir/user"
ssh-keygen -q -t ed25519 -N '' -f "$dir/stranger"
cp "$dir/user.pub" "$dir/authorized"
hash=$(awk '{print $2}' "$dir/host.pub" | base64 -d | sha256sum | cut -d' ' -f1)
cat >"$dir/sshd.conf" <<END
Port 22
ListenAddress 127.0.0.1
HostKey $dir/host
PidFile $dir/sshd.pid
AuthorizedKeysFile $dir/authorized
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
END
sshd() { serve /usr/sbin/sshd -D -e -f "$dir/sshd.conf" && wait_for 10 listens_tcp 22; }
sessions() { ss -tnpH state established "sport = :22" | grep -o 'pid=[0-9]*' | cut -d= -f2 | sort -u; }
disk() { echo "ssh://root@${2-127.0.0.1}$dir/$1,host-key=$hash,key=$dir/user"; }
truncate -s 64M "$dir/a.raw" "$dir/direct.raw"
qemu-img create -q -f qcow2 "$dir/a.qcow2" 64M
refused ssh/user 'user: missing' "ssh://127.0.0.1$dir/a.raw,format=raw,host-key=$hash,key=$dir/user"
refused ssh/path 'path: missing' "ssh://root@127.0.0.1,format=raw,host-key=$hash,key=$dir/user"
refused ssh/query 'query; expected none with ssh://' "ssh://root@127.0.0.1$dir/a.raw?host_key_check=no,format=raw,host-key=$hash,key=$dir/user"
refused ssh/host-key 'options: host-key: missing' "ssh://root@127.0.0.1$dir/a.raw,format=raw,key=$dir/user"
refused ssh/host-key-short "options: host-key 'abc'; expected 64 to 64 characters" "ssh://root@127.0.0.1$dir/a.raw,format=raw,key=$dir/user,host-key=abc"
refused ssh/key 'options: key: missing' "ssh://root@127.0.0.1$dir/a.raw,format=raw,host-key=$hash"
sshd
vm ssh/raw blk --cpus 2 --disk "$(disk a.raw),format=raw"
vm ssh/direct blk --cpus 2 --disk "$dir/direct.raw"
cmp "$dir/a.raw" "$dir/direct.raw" >"$dir/img" 2>&1
holds 'ssh/what is in it' $? "$(head -n 1 "$dir/img")"
vm ssh/qcow2 blk --disk "$(disk a.qcow2 localhost),format=qcow2"
qemu-img check -q -f qcow2 "$dir/a.qcow2" >"$dir/img" 2>&1
holds ssh/qcow2/check $? "$(head -n 1 "$dir/img")"
before=$(md5sum <"$dir/a.raw")
vm ssh/ro blk --disk "$(disk a.raw),format=raw,ro"
[ "$(md5sum <"$dir/a.raw")" = "$before" ]
holds 'ssh/ro: nothing changes' $? changed
other=$(tr 0-9a-f 1-9a-f0 <<<"$hash")
broken ssh/host-key "does not match host_key_check 'sha256:$other'" "ssh://root@127.0.0.1$dir/a.raw,format=raw,host-key=$other,key=$dir/user"
broken ssh/key 'failed to authenticate using publickey' "ssh://root@127.0.0.1$dir/a.raw,format=raw,host-key=$hash,key=$dir/stranger"
broken ssh/none 'No such file' "$(disk none.raw),format=raw"

kill_session() {
	[ $((deaths++)) -lt 5 ] || return 1
	sessions | xargs -r kill -KILL
}
sshd_again() {
	[ $((deaths++)) -lt 3 ] || return 1
	{ kill -KILL "$server" && wait "$server"; } 2>/dev/null
	sessions | xargs -r kill -KILL
	nap 0.5
	sshd
}
for f in raw qcow2; do
	deaths=0 old=
	load "ssh/killed/$f: no write that was answered is lost" kill_program seconds=3 "$(disk "a.$f"),format=$f"
done
qemu-img check -q -f qcow2 "$dir/a.qcow2" >"$dir/img" 2>&1
[ $? = 0 ] || [ $? = 3 ] || ! grep -q 'errors were found' "$dir/img"
holds 'ssh/killed/qcow2: the image is whole' $? "$(head -n 2 "$dir/img" | tr '\n' '|')"
deaths=0
load 'ssh/connections cut: requests wait' kill_session seconds=3 "$(disk a.raw),format=raw"
deaths=0
load 'ssh/server comes back: requests wait' sshd_again seconds=4 "$(disk a.raw),format=raw"
exit $failed
