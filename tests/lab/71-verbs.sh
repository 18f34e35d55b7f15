#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insulactl's verbs in a Linux guest: run -it, -p, -v, cp both ways and with a guest that lies, top, stats, statuses, --rm.
. "$(dirname "$0")/lib.sh"
for_user
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
insulad_up '"socket_mode": "0666"'

# ---- one guest for all that needs only one; it boots while files are made

truncate -s 1M "$T/disk"
mkdir "$T/shared" && echo shared >"$T/shared/file"
"$CTL" run -dit --name l -m 192M --disk "$T/disk" -p 127.0.0.1:8071:80 -v "$T/shared:/s:ro" -e A=one -- sleep 10000 >"$T/id"
same run-d "$(cat "$T/id")" "$("$CTL" ps -q)"
mkdir -p "$T/src/sub" "$T/dst"
head -c 3000000 /dev/urandom >"$T/src/random"
truncate -s 40M "$T/src/sparse" && echo end >>"$T/src/sparse"
echo '#!/bin/sh' >"$T/src/sub/script"
chmod 4751 "$T/src/sub/script"
ln -s sub/script "$T/src/link"
ln -s /etc/passwd "$T/src/absolute"
mkfifo "$T/src/fifo"
long=$(printf '%0120d' 1)
mkdir "$T/src/$long" && echo long >"$T/src/$long/$long"
touch -d 2001-02-03T04:05:06Z "$T/src/sub/script"

expect cp-in-left-out 1 'cp: left out: src/fifo' "$CTL" cp "$T/src" l:/tmp
rm "$T/src/fifo"
expect cp-in-file-to-name 0 '' "$CTL" cp "$T/src/random" l:/tmp/renamed
expect cp-in-contents 0 '' "$CTL" cp "$T/src/sub/." l:/tmp
expect cp-in-modes 0 '^4751 2001 root:root$' "$CTL" exec l -- sh -c 'stat -c "%a %y %U:%G" /tmp/src/sub/script | sed "s/-[^ ]* [^ ]* *[^ ]* / /"'
expect cp-in-contents-are-there 0 '^/tmp/script$' "$CTL" exec l -- ls /tmp/script
expect cp-in-no-directory 125 'no such directory in the guest' "$CTL" cp "$T/src/random" l:/nope/
expect cp-in-no-parent 1 'tar in the guest ended with status' "$CTL" cp "$T/src/random" l:/nope/x
expect cp-out 1 'left out: (./)?src/absolute: a symbolic link that leads out' "$CTL" cp l:/tmp/src "$T/dst"
rm "$T/src/absolute"
same cp-both-ways '' "$(diff -r --no-dereference "$T/src" "$T/dst/src" 2>&1)"
same cp-out-mode "751 $(stat -c %Y "$T/src/sub/script") 0 sub/script" "$(stat -c '%a %Y %u' "$T/dst/src/sub/script") $(readlink "$T/dst/src/link")"
same cp-out-sparse small "$([ "$(stat -c %b "$T/dst/src/sparse")" -lt 2000 ] && echo small)"
expect cp-out-file-to-name 0 '' "$CTL" cp l:/tmp/renamed "$T/dst/name"
same cp-out-binary same "$(cmp "$T/src/random" "$T/dst/name" && echo same)"
expect cp-out-replaces 0 '' "$CTL" cp l:/tmp/script "$T/dst/name"
same cp-out-replaced '#!/bin/sh' "$(cat "$T/dst/name")"
expect cp-out-follows 0 '' "$CTL" cp -L l:/tmp/src/link "$T/dst/followed"
same cp-out-followed '#!/bin/sh' "$([ ! -L "$T/dst/followed" ] && cat "$T/dst/followed")"
"$CTL" cp l:/tmp/src/sub - 2>"$T/out" | tar -t >"$T/names"
same cp-out-stream 'sub/ sub/script' "$(sed 's,^\./,,' "$T/names" | sort | tr '\n' ' ' | sed 's/ $//')"
tar -C "$T/src" -c sub | "$CTL" cp - l:/root
expect cp-in-stream 0 '^/root/sub/script$' "$CTL" exec l -- ls /root/sub/script
expect cp-out-not-there 1 'nope: No such file' "$CTL" cp l:/nope "$T/dst"
expect cp-out-no-vm 1 'Not found' "$CTL" cp nobody:/x "$T/dst"
"${AS_USER[@]}" "$CTL" create --name theirs -m 160M >/dev/null && "${AS_USER[@]}" "$CTL" start theirs >/dev/null

# ---- a guest that lies: its tar sends what it likes

mkdir "$T/evil" "$T/safe"
cat >"$T/evil/tar" <<'SH'
#!/bin/sh
# -c: what lies in /evil.tar; anything else: take nothing, and say much
for a; do
	case $a in
	-c) cat /evil.tar; exit 0 ;;
	esac
done
yes "$(printf '\033[2J\033]0;owned\007')" | head -c 300000 >&2
exit 3
SH
chmod 755 "$T/evil/tar"
python3 - "$T/evil/evil.tar" <<'PY'
import io, sys, tarfile
t = tarfile.open(sys.argv[1], "w", format=tarfile.GNU_FORMAT)
def add(name, type=tarfile.REGTYPE, link="", data=b"evil", mode=0o6777):
    i = tarfile.TarInfo(name)
    i.type, i.linkname, i.mode, i.size = type, link, mode, len(data) if type == tarfile.REGTYPE else 0
    t.addfile(i, io.BytesIO(data) if i.size else None)
add("x", tarfile.DIRTYPE)
for name in ("../escaped", "x/../../escaped", "/tmp/escaped-absolute", "y/escaped", "x/./../../escaped"):
    add(name)
add("x/out", tarfile.SYMTYPE, "/tmp")
add("x/up", tarfile.SYMTYPE, "../..")
add("x/in", tarfile.SYMTYPE, ".")
add("x/in/../../escaped")
add("x/in/through")
add("x/hard", tarfile.LNKTYPE, "/etc/passwd")
add("x/hard2", tarfile.LNKTYPE, "x/../../../etc/passwd")
add("x/null", tarfile.CHRTYPE)
add("x/fifo", tarfile.FIFOTYPE)
add("x/suid")
add("x/esc\x1b]0;owned\x07")
add("x/\x1b[2J/../../escaped")
t.close()
PY
"$CTL" cp "$T/evil/evil.tar" l:/evil.tar
"$CTL" exec l -- sh -c 'rm -f /bin/tar'
expect cp-no-tar 1 'the guest has no tar' "$CTL" cp l:/tmp/renamed "$T/safe"
expect cp-in-no-tar 1 'the guest has no tar' "$CTL" cp "$T/src/random" l:/tmp
"$CTL" exec -i l -- sh -c 'cat >/bin/tar; chmod 755 /bin/tar' <"$T/evil/tar"
expect cp-liar 1 '' "$CTL" cp l:/x "$T/safe"
also cp-liar-says-what 'left out: .*: ("\.\."|a symbolic link|a hard link|a device|a FIFO)'
same cp-liar-terminal 0 "$(grep -c $'\033' "$T/out")"
same cp-liar-outside '' "$(find "$T" /tmp/escaped* -name '*escaped*' ! -path "$T/evil/*" 2>/dev/null)"
same cp-liar-inside 'safe/x/in:l777 safe/x/suid:f777 safe/x:d777' "$(cd "$T" && find safe -mindepth 1 ! -name 'esc*' -printf '%p:%y%m\n' | LC_ALL=C sort | tr '\n' ' ' | sed 's/ $//')"
expect cp-liar-in 1 'tar in the guest ended with status 3' "$CTL" cp "$T/src/random" l:/tmp
same cp-liar-in-terminal 0 "$(grep -c $'\033' "$T/out")"
"$CTL" exec -i l -- sh -c 'printf "#!/bin/sh\nhead -c 700 /evil.tar\n" >/bin/tar'
expect cp-liar-short 125 'the archive ends in the middle' "$CTL" cp l:/x "$T/safe"
"$CTL" exec -i l -- sh -c 'printf "#!/bin/sh\nexec yes\n" >/bin/tar'
expect cp-liar-endless 125 'not a header of an archive' "$CTL" cp l:/x "$T/safe"
"$CTL" exec -i l -- sh -c 'printf "#!/bin/sh\nhead -c 1024 /dev/zero\n" >/bin/tar'
expect cp-liar-nothing 125 'the guest has sent nothing' "$CTL" cp l:/x "$T/safe"

# ---- what it is, and what it uses

expect top 0 'insula-init|init' "$CTL" top l
expect top-arguments 0 '^ *[0-9]+$' "$CTL" top l -o pid
"$CTL" exec l -- dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null
expect stats 0 '"disk_read_bytes":[1-9][0-9]{6}' "$CTL" stats --no-stream l
also stats-network '"net_rx_bytes":[0-9]+'
case $("$CTL" info) in
*'"cgroup":true'*) also stats-group '"cgroup":true,.*"mem_max":[0-9]{9},"pids":[1-9]' ;;
*) skip stats-group "no control groups" ;;
esac
expect inspect 0 '"name":"l"' "$CTL" inspect l
expect volume-is-there 0 '^shared$' "$CTL" exec l -- cat /s/file
"$CTL" exec l -- sh -c 'while echo -e "HTTP/1.0 200 OK\r\n\r\npublished" | nc -l -p 80; do :; done' >/dev/null 2>&1 &
for _ in $(seq 100); do
	bash -c 'exec 5<>/dev/tcp/127.0.0.1/8071 && echo >&5 && timeout 5 cat <&5' >"$T/out" 2>&1
	! grep -q published "$T/out" || break
	sleep 0.3
done
also publish '^published'
head -c 100000 "$T/src/random" >"$T/small"
expect cp-into-anothers-vm 0 '' "$CTL" cp "$T/small" theirs:/tmp
expect cp-out-of-anothers-vm 0 '' "$CTL" cp theirs:/tmp/small "$T/safe"
same cp-anothers-vm "same 0" "$(cmp "$T/small" "$T/safe/small" && echo same) $(stat -c %u "$T/safe/small")"
expect cp-is-not-for-others 1 'Not found' "${AS_USER[@]}" "$CTL" cp l:/etc/hostname "$T/home"
expect rm-f-of-several 1 "^insulactl: nobody: Not found" "$CTL" rm -f theirs nobody l
same all-gone '' "$("$CTL" ps -aq)"

# ---- run, as others have it

"$CTL" run --rm -m 128M -- sh -c 'echo to out; echo to err >&2; printf "no newline"; exit 4' >"$T/o" 2>"$T/e" </dev/null
same run-separate-streams "4 to out/no newline to err" "$? $(tr '\n' / <"$T/o") $(cat "$T/e")"
# A reader that is slower than the guest misses nothing, and the VM's end waits for it.
"$CTL" run --rm -m 128M --name slow -- sh -c 'head -c 3000000 /dev/urandom >/tmp/m; cat /tmp/m; md5sum </tmp/m >&2' 2>"$T/e" </dev/null |
	(sleep 12; cat) | md5sum >"$T/o"
same run-slow-reader same "$(cmp "$T/e" "$T/o" && echo same)"
"$CTL" run --rm -m 128M -- yes 2>"$T/out" </dev/null | head -1 >"$T/o"
same run-reader-goes "125 y" "${PIPESTATUS[0]} $(cat "$T/o")"
also run-reader-goes-says-so 'an output takes no more'
same run-nothing-left '' "$("$CTL" ps -aq)"

expect run-it 3 '/dev/pts/0' script -qec "$CTL run --rm -itm 128M -- sh -c 'tty; exit 3'" /dev/null
"$CTL" run --rm --name orphan -m 128M -- sh -c 'echo ready; sleep 4; exit 5' >"$T/out" 2>&1 &
client=$!
for _ in $(seq 600); do ! grep -q ready "$T/out" || break; sleep 0.1; done
kill -9 $client
wait $client 2>/dev/null
same rm-client-killed-runs orphan "$("$CTL" ps --json | python3 -c 'import json, sys; print(*[v["name"] for v in json.load(sys.stdin)["vms"]])')"
for _ in $(seq 300); do [ -n "$("$CTL" ps -aq)" ] || break; sleep 0.1; done
same rm-client-killed-gone '' "$("$CTL" ps -aq)"
insulad_down
same insulad-ends 0 $?
