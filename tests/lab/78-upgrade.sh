#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# An upgrade under running VMs: a VM of the previous release's insulad and insula-run; all programs are replaced as dpkg does it; the new
# insulad takes the VM over. 78-upgrade.host has built the previous release.
. "$(dirname "$0")/lib.sh"
P=$BUILD/previous U=$T/usr CTL=$BUILD/bin/insulactl
INSULAD=$U/bin/insulad # for insulad_up
export INSULA_SOCKET=$T/s
[ -x "$P/bin/insulad" ] || { not_ok previous "no $P; run tests/lab/78-upgrade.host on the host first"; exit 1; }
# member JSON NAME: the first one of that name; process JSON PROGRAM: its process id (no other program, as lib.sh's member is: they are slow in
# the lab)
member() { ! [[ $1 =~ \"$2\":\"?([^,\"\}]*) ]] || echo "${BASH_REMATCH[1]}"; }
process() { ! [[ $1 =~ \"name\":\"$2[^\"]*\",\"pid\":([0-9]+) ]] || echo "${BASH_REMATCH[1]}"; }

# install FROM: each file is written under another name and renamed over the old one
install() {
	local f
	mkdir -p "$U/bin" "$U/libexec/insula"
	for f in "$1"/bin/* "$1"/libexec/insula/*; do
		f=${f#"$1/"}
		cp -L "$1/$f" "$U/$f.new"
		mv "$U/$f.new" "$U/$f"
	done
}
start() { # NAME
	"$CTL" create --name "$1" --mem 128M --kernel "$BUILD/guest/vmlinuz" --disk "path=$T/$1.img" >/dev/null
	"$CTL" start "$1" >"$T/out" 2>&1
	for _ in $(seq 10); do # on a busy machine one boots longer than insulactl waits
		! "$CTL" exec "$1" -- true >"$T/out" 2>&1 || break
	done
	expect "$1-exec" 3 '^first$' "$CTL" exec "$1" -- sh -c 'echo first; exit 3'
}
# kill_helper VM PROGRAM: and wait for the next one
kill_helper() {
	local before now
	before=$(process "$("$CTL" info "$1")" "$2")
	kill -9 "$before"
	for _ in $(seq 600); do
		now=$(process "$("$CTL" info "$1")" "$2")
		[ -z "$now" ] || [ "$now" = "$before" ] || return 0
		sleep 0.1
	done
	not_ok "$1-restarts-$2" "still $before"
}
truncate -s 4M "$T/old.img" "$T/new.img"

install "$P"
insulad_up '"cgroup": "off"'
start old
"$CTL" exec old -- sh -c 'echo kept >/tmp/file; echo "on the console" >/dev/console'
old=$(member "$("$CTL" info old)" pid)

# ---- the files are new, the daemon is not yet
install "$BUILD"
case $(readlink "/proc/$old/exe") in
*' (deleted)') ok replaced ;;
*) not_ok replaced "$(readlink "/proc/$old/exe")" ;;
esac
expect old-exec-before-the-daemon 4 '^kept$' "$CTL" exec old -- sh -c 'cat /tmp/file; exit 4'

# ---- the daemon is replaced
kill "$insulad"
wait "$insulad"
same old-daemon-ends 0 $?
insulad_up '"cgroup": "off"'
info=$("$CTL" info old)
same adopted "running true $old " "$(member "$info" state) $(member "$info" adopted) $(member "$info" pid) $(member "$info" supervisor_version)"
expect old-exec 5 '^kept$' "$CTL" exec old -- sh -c 'cat /tmp/file; exit 5'
head -c 300000 /dev/urandom >"$T/data"
"$CTL" exec -i old -- cat <"$T/data" >"$T/copy"
same old-exec-input "0 same" "$? $(cmp "$T/data" "$T/copy" && echo same)"
"$CTL" exec old -- sh -c 'echo ready; exec sleep 100' >"$T/o1" 2>&1 &
for _ in $(seq 600); do ! grep -q ready "$T/o1" || break; sleep 0.05; done
kill -TERM $!
wait $!
same old-exec-signal 143 $?
"$CTL" console old </dev/null >"$T/out" 2>&1 &
for _ in $(seq 300); do ! grep -q 'on the console' "$T/out" || break; sleep 0.1; done
kill $! 2>/dev/null
wait $! 2>/dev/null
also old-console 'on the console'
kill_helper old insula-blk
expect old-disk-after-a-restart 0 '^written$' "$CTL" exec old -- sh -c 'echo written | dd of=/dev/vda conv=fsync 2>/dev/null; dd if=/dev/vda bs=8 count=1 2>/dev/null'
kill_helper old insula-vsock
expect old-exec-after-a-restart 6 '^kept$' "$CTL" exec old -- sh -c 'cat /tmp/file; exit 6'

# ---- a VM of this release beside it; its programs are all open from its start
start new
info=$("$CTL" info new)
same new-version "$(member "$("$CTL" info)" version)" "$(member "$info" supervisor_version)"
same new-program "$U/bin/insula-run" "$(readlink "/proc/$(member "$info" pid)/exe")"
cp "$U/libexec/insula/insula-exec" "$T/insula-exec"
cp /bin/false "$U/libexec/insula/insula-exec.new"
mv "$U/libexec/insula/insula-exec.new" "$U/libexec/insula/insula-exec"
expect new-keeps-its-programs 7 '^same$' "$CTL" exec new -- sh -c 'echo same; exit 7'
mv "$T/insula-exec" "$U/libexec/insula/insula-exec"

# ---- the end in order, of both
for vm in old new; do
	info=$("$CTL" stop -t 120 $vm)
	same $vm-stop "poweroff clean" "$(member "$info" reason) $(member "$info" stop)"
done
# The same daemon, and programs that are replaced under it: the next VM is of those.
install "$BUILD"
"$CTL" create --name payload --mem 16M --kernel "$BUILD/guests/spin.elf" >/dev/null
"$CTL" start payload >"$T/out" 2>&1
same next-vm-is-of-the-new-programs "$U/bin/insula-run" "$(readlink "/proc/$(member "$("$CTL" info payload)" pid)/exe")"
"$CTL" kill payload >/dev/null
insulad_down
same daemon-ends 0 $?
