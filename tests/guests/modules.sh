#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Storage modules with real VMs on this machine's /dev/kvm: the module nbd against nbdkit, qemu-nbd, nbd-server and servers that are bad on
# purpose; its process, its servers and their connections killed under load; manifests and URIs that are wrong; the example, built from
# what is installed. BUILD names the build directory. One line per case: ok, not ok, skip.
#
# MODULE_SECONDS (3): how long each load under kills lasts.
# shellcheck disable=SC2317 # functions that are handed to wait_for or trap
set -u
SECONDS_OF_LOAD=${MODULE_SECONDS:-3}
SUITE=modules MODULE=nbd
# shellcheck source=tests/guests/modulelib.bash
. "$(dirname "$0")/modulelib.bash"
# kit SOCKET ARG...: nbdkit there
kit() {
	rm -f "$1"
	serve nbdkit -f -U "$1" "${@:2}"
	wait_for 10 listens "$1"
}
# bad MODE ...: the server that is bad
bad() {
	rm -f "$dir/bad.sock"
	serve python3 "$HERE/nbdserver.py" "$dir/bad.sock" "$dir/bad.img" "$@"
	wait_for 10 listens "$dir/bad.sock"
}
unix() { echo "nbd:nbd+unix:///${2-}?socket=$1"; }

# ---- what was said wrong, part by part

U="socket=$dir/none.sock"
refused module 'module' nope:x
refused scheme "scheme 'http'; expected one of: nbd://, nbd+unix://, nbds://, nbds+unix://" nbd:http://h/x
refused no-scheme "scheme '" nbd:h/x
refused host "host 'h!st'; expected a name" 'nbd:nbd://h!st/x'
refused no-host "host ''; expected nbd://HOST" nbd:nbd:///x
refused host-of-unix "host 'h'; expected none" "nbd:nbd+unix://h/x?$U"
refused port "port '70000'; expected a number" nbd:nbd://h:70000/x
refused ipv6 "host '[::g]'; expected an IPv6" 'nbd:nbd://[::g]/x'
refused password 'user: a password' nbd:nbd://me:secret@h/x
refused path "path 'a%2'; expected" nbd:nbd://h/a%2
refused query "query 'socket'; expected KEY=VALUE" 'nbd:nbd+unix:///x?socket'
refused socket "socket 'rel'; expected an absolute path" 'nbd:nbd+unix:///x?socket=rel'
refused socket-of-tcp "expected none with nbd://" "nbd:nbd://h/x?$U"
refused fragment "fragment '#f'" 'nbd:nbd://h/x#f'
refused name 'no address for that name' nbd:nbd://no-such-host.invalid/x
refused option "options: 'speed=1'; expected KEY=VALUE with a key of: timeout, writes, ca" "nbd:nbd+unix:///x?$U,options=speed=1"
refused number "options: timeout '0'; expected a whole number from 1 to 3600" "nbd:nbd+unix:///x?$U,options=timeout=0"
refused choice "options: writes 'fast'; expected cached or stable" "nbd:nbd+unix:///x?$U,options=writes=fast"
refused twice 'options: timeout: given twice' "nbd:nbd+unix:///x?$U,options=timeout=1:timeout=2"
refused direct 'direct, engine or overlay; expected with files only' "nbd:nbd+unix:///x?$U,direct"
refused options-of-a-file 'options; expected with MODULE:TARGET only' "$dir/x,options=a=b"
refused nobody 'No such file or directory' "nbd:nbd+unix:///x?$U"
refused nobody-tcp 'Connection refused' nbd:nbd://127.0.0.1:1/x

# ---- the manifest and the program, in a tree of their own

make -s -C "$HERE/../.." BUILD="$BUILD" DESTDIR="$dir/tree" PREFIX=/usr STRIP= install >"$dir/install" 2>&1 || not_ok install "$(tail -n 3 "$dir/install")"
M=$dir/tree/usr/libexec/insula/modules
tree_run=$dir/tree/usr/bin/insula-run
# manifest NAME TEXT SED: with the manifest changed
manifest() {
	cp "$M/nbd.json" "$dir/nbd.json"
	sed -i "$3" "$M/nbd.json"
	refused "manifest/$1" "$2" "nbd:nbd+unix:///x?$U" "$tree_run"
	cp "$dir/nbd.json" "$M/nbd.json"
}
manifest unknown-member 'manifest nbd: color: "red"; expected no such member' '1s/{/{ "color": "red",/'
manifest upward 'program: "../nbd"; expected the name of a file beside it' '1s/{/{ "program": "..\/nbd",/'
manifest api 'api: 2; expected 1' 's/"api": 1/"api": 2/'
manifest type 'settings.timeout.type: "size"; expected "text", "number", "choice", "file" or "hosts"' 's/"number"/"size"/'
manifest default 'settings.timeout.default: "0"; expected a whole number' 's/"30"/"0"/'
manifest calls 'jail.calls: "everything"; expected an array of memory, socket, threads, events' 's/"socket"\]/"everything"]/'
manifest limit 'limits.memory: "1T"; expected a size' 's/256M/1T/'
manifest json 'no JSON' '1s/{/{{/'
manifest missing 'about: missing' '/"about"/d'
for what in 'chmod 644:not executable' 'chmod 777:only its owner may write' 'chown 12345:belongs to user 12345'; do
	case $what in chown*) [ "$(id -u)" = 0 ] || { skip "refused/${what%% *}" 'not root'; continue; } ;; esac
	${what%%:*} "$M/nbd"
	refused "program/${what%%:*}" "${what#*:}" "nbd:nbd+unix:///x?$U" "$tree_run"
	chmod 755 "$M/nbd"
	[ "$(id -u)" != 0 ] || chown 0 "$M/nbd"
done
mv "$M/nbd" "$M/real" && ln -s real "$M/nbd"
refused program/link 'Too many levels of symbolic links' "nbd:nbd+unix:///x?$U" "$tree_run"
mv "$M/real" "$M/nbd"
chmod 777 "$M"
refused directory 'only its owner may write' "nbd:nbd+unix:///x?$U" "$tree_run"
chmod 755 "$M"

# ---- the example, out of tree

cp "$HERE/../../docs/examples/ram.c" "$HERE/../../docs/examples/ram.json" "$dir"
export PKG_CONFIG_SYSROOT_DIR=$dir/tree PKG_CONFIG_PATH=$dir/tree/usr/lib/pkgconfig
# shellcheck disable=SC2046
(cd "$dir" && gcc -O2 -Wall -Wextra -Werror -o "$M/ram" ram.c $(pkg-config --cflags --libs insula-module)) >"$dir/cc" 2>&1
holds example/builds $? "$(head -n 3 "$dir/cc")"
[ "$(wc -l <"$dir/ram.c")" -le 100 ]
holds example/100-lines $? "$(wc -l <"$dir/ram.c")"
install -m 644 "$dir/ram.json" "$M"
RUN=$tree_run vm example/runs blk --cpus 2 --disk ram:16M
RUN=$tree_run vm example/pci blkloop --append seconds=1 --cpus 2 --disk ram:16M,bus=mmio
refused example/target "'12'; expected 1M to 1024M" ram:12 "$tree_run"
"$dir/tree/usr/bin/insulactl" --json module ls | grep -q '"name":"ram"'
holds ls $? "$("$dir/tree/usr/bin/insulactl" module ls 2>&1 | head -n 3)"

# ---- servers as they are

truncate -s 64M "$dir/disk.img" "$dir/bad.img"
S=$dir/s.sock
kit "$S" memory 64M
vm memory blk --disk "$(unix "$S"),serial=s1"
vm memory/4-cpus blk --cpus 4 --disk "$(unix "$S")"
grep -q '^queues 4' "$dir/out"
holds 'memory/a queue for each processor' $? "$(grep queues "$dir/out")"
vm memory/metrics blkloop --append seconds=1 --disk "$(unix "$S")" --metrics "$dir/m.json"
[ "$(jq -r '.devices[1] | .name + " " + .engine + " " + (.helper.reads > 0 | tostring)' "$dir/m.json")" = 'vda module true' ]
holds memory/counters $? "$(head -c 300 "$dir/m.json")"
vm memory/pci pciloop --bus pci --cpus 2 --append seconds=1 --disk "$(unix "$S")"
gone
kit "$S" -r memory 64M
refused read-only 'can only be read; expected ro' "$(unix "$S")"
vm read-only/ro blk --disk "$(unix "$S"),ro"
gone
kit "$S" memory 1000
refused size '1000 bytes; expected a multiple of 512' "$(unix "$S")"
gone
blocks() { kit "$S" --filter=blocksize-policy memory 64M blocksize-error-policy=error blocksize-minimum="$1" blocksize-preferred="$2" blocksize-maximum="$3"; }
blocks 64K 64K 32M
refused blocks/minimum 'minimum block size 65536; expected a power of two, at most 4096' "$(unix "$S")"
gone
blocks 4096 4096 64K
vm blocks/4096 blkloop --append seconds=1 --disk "$(unix "$S")"
gone
blocks 512 4096 4096
vm blocks/maximum blk --disk "$(unix "$S")"
gone
kit "$S" file "$dir/disk.img"
vm file blk --disk "$(unix "$S"),options=writes=stable"
sealed "$(unix "$S")"
sealed_over
gone
serve nbdkit -f -p 0 --pidfile "$dir/pid" memory 64M
wait_for 10 test -s "$dir/pid"
port=$(ss -tlnpH 2>/dev/null | sed -nE "s/.*:([0-9]+) .*pid=$server,.*/\1/p" | head -n 1)
vm tcp blk --disk "nbd:nbd://localhost:$port/"
vm tcp/memory blk --mem 128M,max=4G --disk "nbd:nbd://localhost:$port/"
vm tcp/ipv4 blkloop --append seconds=1 --cpus 2 --disk "nbd:nbd://127.0.0.1:$port/"
gone
if command -v qemu-nbd >/dev/null; then
	rm -f "$S"
	serve qemu-nbd -k "$S" -t -e 8 -f raw -x disk "$dir/disk.img"
	wait_for 10 listens "$S"
	vm qemu-nbd blk --cpus 2 --disk "$(unix "$S" disk)"
	refused export "export 'other'" "$(unix "$S" other)"
	gone
	rm -f "$S"
else
	not_ok qemu-nbd 'not installed'
fi
if command -v nbd-server >/dev/null; then
	rm -f "$S"
	printf '[generic]\n unixsock = %s\n allowlist = false\n[disk]\n exportname = %s\n flush = true\n fua = true\n' "$S" "$dir/disk.img" >"$dir/nbd.conf"
	# It goes into the background; with -d it would serve one connection alone.
	nbd-server -C "$dir/nbd.conf" -p "$dir/nbd.pid" >>"$dir/servers" 2>&1
	wait_for 10 listens "$S" && wait_for 10 test -s "$dir/nbd.pid"
	server=$(cat "$dir/nbd.pid")
	servers+=("$server")
	vm nbd-server blk --cpus 2 --disk "$(unix "$S" disk)"
	refused nbd-server/export "export 'other'" "$(unix "$S" other)"
	gone
	rm -f "$S"
else
	not_ok nbd-server 'not installed'
fi
kit "$S" --filter=delay memory 64M rdelay=30ms wdelay=30ms
vm delay blkloop --append seconds=2 --cpus 2 --disk "$(unix "$S")"
gone

# ---- deaths under load: no error, not one wrong byte

kill_server() {
	gone
	nap "0.0$((RANDOM % 9))"
	kit "$S" file "$dir/disk.img"
}
kill_any() { if [ $((RANDOM % 2)) = 0 ]; then kill_module; else kill_server; fi; }
kill_volatile() {
	nap 0.5
	gone
	bad volatile multi
}
kit "$S" file "$dir/disk.img"
load kills/module kill_module "seconds=$SECONDS_OF_LOAD" "$(unix "$S")"
load kills/server kill_server "seconds=$SECONDS_OF_LOAD" "$(unix "$S")"
deaths=0
load kills/both kill_any "seconds=$SECONDS_OF_LOAD flush=1" "$(unix "$S"),options=writes=stable"
grep -q ', 0 failed' "$dir/out"
holds 'kills/both: stable writes, no flush fails' $? "$(grep ^flushes "$dir/out")"
gone
# A server that loses what was not flushed: a flush fails or is right.
rm -f "$dir/bad.img"; truncate -s 64M "$dir/bad.img"
bad volatile multi
load kills/volatile kill_volatile "seconds=60 flush=1" "$(unix "$dir/bad.sock")" 'flush failed'
grep -qE '^flushes [1-9][0-9]* good, [1-9]' "$dir/out"
holds 'kills/volatile: flushes that had to fail' $? "$(grep ^flushes "$dir/out")"
# The module dies, the server does not: nothing is lost, no flush fails.
deaths=0
rm -f "$dir/bad.img"; truncate -s 64M "$dir/bad.img"
gone
bad volatile multi
load kills/module-alone kill_module "seconds=$SECONDS_OF_LOAD flush=1" "$(unix "$dir/bad.sock")"
grep -q ', 0 failed' "$dir/out"
holds 'kills/module-alone: no flush fails' $? "$(grep ^flushes "$dir/out")"
gone

# ---- servers that are bad: errors for the guest, and for nobody else

for mode in greeting refuse odd huge; do
	bad $mode
	refused "bad/$mode" "export ''" "$(unix "$dir/bad.sock")"
	gone
done
for mode in length handle magic nothing endless stall error; do
	bad $mode
	timeout -s KILL 30 "$RUN" --kernel "$GUESTS/blkloop.elf" --append seconds=1 --disk "$(unix "$dir/bad.sock"),options=timeout=1" \
		</dev/null >"$dir/out" 2>"$dir/err"
	status=$?
	# The payload says that the first round failed, with the status of an I/O error, and ends by itself.
	[ $status = 1 ] && grep -q '^not ok reads - round 1: status 1' "$dir/out" && ! grep -qE 'killed|restarted|forbids' "$dir/err"
	holds "bad/$mode" $? "status $status: $(grep '^not ok' "$dir/out" | head -n 1) $(tail -n 2 "$dir/err" | tr '\n' '|')"
	gone
done

# ---- TLS

P=$dir/pki
mkdir "$P"
# issue NAME CA: a key and a certificate, by certtool
issue() {
	certtool --generate-privkey --key-type ecdsa --outfile "$P/$1-key.pem" 2>>"$dir/servers"
	certtool "${@:2}" --load-privkey "$P/$1-key.pem" --template "$P/$1.cfg" --outfile "$P/$1-cert.pem" 2>>"$dir/servers"
}
printf 'cn = "ours"\nca\ncert_signing_key\nexpiration_days = 30\n' | tee "$P/ca.cfg" >"$P/other.cfg"
printf 'cn = "localhost"\ndns_name = "localhost"\nip_address = "127.0.0.1"\ntls_www_server\nsigning_key\nexpiration_days = 30\n' >"$P/server.cfg"
printf 'cn = "client"\ntls_www_client\nsigning_key\nexpiration_days = 30\n' | tee "$P/client.cfg" >"$P/stranger.cfg"
issue ca --generate-self-signed
issue other --generate-self-signed
for who in server client; do issue $who --generate-certificate --load-ca-certificate "$P/ca-cert.pem" --load-ca-privkey "$P/ca-key.pem"; done
issue stranger --generate-certificate --load-ca-certificate "$P/other-cert.pem" --load-ca-privkey "$P/other-key.pem"
psktool -u vm -p "$P/psk" >>"$dir/servers" 2>&1
psktool -u vm -p "$P/wrong.psk" >>"$dir/servers" 2>&1
chmod 600 "$P"/*-key.pem "$P"/*psk
CA=ca=$P/ca-cert.pem
# tls TEXT: the disk of that server by TLS, with these items
tls() { echo "nbd:nbds+unix:///?socket=$S,$1"; }
psk() { echo "nbd:nbds+unix://vm@/?socket=$S,$1"; }
N=tls-hostname=localhost
kit "$S" --tls=require --tls-certificates="$P" memory 64M
refused tls/plain 'expected with nbds:// and nbds+unix:// only' "$(unix "$S"),$CA"
refused tls/nothing 'ca, psk: expected one of them with TLS' "nbd:nbds+unix:///?socket=$S"
refused tls/both 'ca, psk: expected one of them with TLS' "$(psk "$CA,$N,psk=$P/psk")"
refused tls/no-name 'tls-hostname: expected it' "$(tls "$CA")"
refused tls/half 'cert, key: expected both of them, or none' "$(tls "$CA,$N,cert=$P/client-cert.pem")"
refused tls/no-user 'psk: expected a user in the URI' "$(tls "psk=$P/psk")"
refused tls/no-file "options: ca $P/none: No such file" "$(tls "ca=$P/none,$N")"
vm tls blk --cpus 2 --disk "$(tls "$CA,$N")"
refused tls/no-tls "export ''" "$(unix "$S")"
refused tls/other-name 'certificate' "$(tls "$CA,tls-hostname=elsewhere")"
refused tls/wrong-ca 'certificate' "$(tls "ca=$P/other-cert.pem,$N")"
refused tls/no-ca "export ''" "$(tls "ca=$P/server-key.pem,$N")"
deaths=0
load tls/kills/module kill_module "seconds=$SECONDS_OF_LOAD" "$(tls "$CA,$N")"
kill_tls() {
	gone
	kit "$S" --tls=require --tls-certificates="$P" file "$dir/disk.img"
}
kill_tls
load tls/kills/server kill_tls "seconds=$SECONDS_OF_LOAD flush=1" "$(tls "$CA,$N"),writes=stable"
grep -q ', 0 failed' "$dir/out"
holds 'tls/kills/server: stable writes, no flush fails' $? "$(grep ^flushes "$dir/out")"
gone
kit "$S" --tls=require --tls-certificates="$P" --tls-verify-peer memory 64M
vm tls/client blk --disk "$(tls "$CA,$N,cert=$P/client-cert.pem,key=$P/client-key.pem")"
refused tls/no-client "export ''" "$(tls "$CA,$N")"
refused tls/stranger "export ''" "$(tls "$CA,$N,cert=$P/stranger-cert.pem,key=$P/stranger-key.pem")"
gone
kit "$S" --tls=require --tls-psk="$P/psk" memory 64M
vm tls/psk blk --disk "$(psk "psk=$P/psk")"
vm tls/psk/descriptor blk --disk "$(psk psk=/dev/fd/9)" 9<"$P/psk"
refused tls/psk/wrong 'gnutls_handshake' "$(psk "psk=$P/wrong.psk")"
refused tls/psk/other-user "psk: no line of 'you'; expected you:KEY" "nbd:nbds+unix://you@/?socket=$S,psk=$P/psk"
gone
kit "$S" --tls=off memory 64M
refused tls/server-without 'TLS' "$(tls "$CA,$N")"
gone
serve nbdkit -f -p 0 --pidfile "$dir/pid-tls" --tls=require --tls-certificates="$P" memory 64M
wait_for 10 test -s "$dir/pid-tls"
port=$(ss -tlnpH 2>/dev/null | sed -nE "s/.*:([0-9]+) .*pid=$server,.*/\1/p" | head -n 1)
vm tls/tcp blk --disk "nbd:nbds://localhost:$port/,$CA"
vm tls/tcp/address blk --disk "nbd:nbds://127.0.0.1:$port/,$CA"
refused tls/tcp/other-name 'certificate' "nbd:nbds://localhost:$port/,$CA,tls-hostname=elsewhere"
gone
S=$dir/bad.sock
for what in 'tlsjunk:gnutls_handshake' "tlsend:export ''" 'tlsstall:gnutls_handshake' 'good:TLS'; do
	bad "${what%%:*}"
	refused "tls/bad/${what%%:*}" "${what#*:}" "$(tls "$CA,$N")"
	gone
done
S=$dir/s.sock

# ---- a server that comes back as another one

comes_back() { gone; rm -f "$S"; truncate -s "$1" "$dir/other.img"; kit "$S" file "$dir/other.img"; }
truncate -s 8M "$dir/other.img"
kit "$S" file "$dir/other.img"
: >"$dir/out"
"$RUN" --kernel "$GUESTS/blkloop.elf" --append 'seconds=60 capacity=32768' --disk "$(unix "$S")" </dev/null >"$dir/out" 2>"$dir/err" &
run=$!
wait_for 10 looping
comes_back 16M
wait "$run"; status=$?; run=''
[ $status = 0 ] && grep -q '^capacity 32768' "$dir/out"
holds larger $? "status $status: $(grep ^capacity "$dir/out") $(tail -n 1 "$dir/err")"
: >"$dir/out"
"$RUN" --kernel "$GUESTS/blkloop.elf" --append seconds=60 --disk "$(unix "$S")" </dev/null >"$dir/out" 2>"$dir/err" &
run=$!
wait_for 10 looping
comes_back 4M
wait "$run"; status=$?; run=''
[ $status = 1 ] && grep -q 'status 1' "$dir/out" && grep -q 'the disk is smaller than before' "$dir/err"
holds smaller $? "status $status: $(grep '^not ok' "$dir/out" | head -n 1) $(tail -n 1 "$dir/err")"
gone
exit $failed
