#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The module qsd, and with it modules whose program is the host's, with real VMs on this machine's /dev/kvm: images of QEMU's formats, what
# the host's tools find in them afterwards, qemu-storage-daemon killed and stopped under load, images that are bad on purpose, its jail from
# outside, manifests that are wrong. BUILD names the build directory. One line per case: ok, not ok, skip.
# shellcheck disable=SC2317 # functions that are handed to wait_for or trap
set -u
BUILD=$(cd "${BUILD:-build}" && pwd -P) || exit 1
HERE=$(cd "$(dirname "$0")" && pwd -P)
RUN=$BUILD/bin/insula-run
GUESTS=$BUILD/guests
DEATHS=4
SUITE=qsd MODULE=
failed=0
# shellcheck source=/dev/null
. "$HERE/modulelib.bash"
for need in qemu-storage-daemon qemu-img qemu-io jq; do
	command -v $need >/dev/null || { not_ok all "$need is not installed (packages qemu-system-common, qemu-utils, jq)"; exit 1; }
done
log() { tail -n 3 "$dir/err" | tr '\n' '|'; }
# image FORMAT NAME [SIZE [OPTION...]]: a new one
image() {
	local try
	# It measures how fast it is for luks, and on a busy machine now and then cannot.
	for try in 1 2 3 4 5; do
		rm -f "$dir/$2"
		! qemu-img create -q -f "$1" "${@:4}" "$dir/$2" "${3:-64M}" 2>"$dir/img" || return 0
	done
	not_ok "qemu-img $1" "$try times: $(head -n 1 "$dir/img")"
}
disk() { echo "qsd:$dir/$1"; }

# ends NAME STATUS TEXT DISK: that status, and one line with that text; when something was started insula-vhost may have said one of its own
ends() {
	local status
	timeout -s KILL 60 "$RUN" --kernel "$GUESTS/hello.elf" --disk "$4" </dev/null >"$dir/out" 2>"$dir/err"
	status=$?
	[ "$2" != 125 ] || sed -i '/^insula-vhost vda: warning: /d' "$dir/err"
	[ $status = "$2" ] && [ "$(wc -l <"$dir/err")" = 1 ] && grep -qF -- "$3" "$dir/err"
	holds "$1" $? "status $status: $(head -c 400 "$dir/err" | tr '\n' '|')"
}
# refused NAME TEXT DISK: nothing was started
refused() { ends "refused/$1" 2 "$2" "$3"; }
# broken NAME TEXT DISK: the program has the last word
broken() { ends "broken/$1" 125 "$2" "$3"; }

# ---- what was said wrong, part by part

image qcow2 a.qcow2
image raw a.raw
printf 'a secret' >"$dir/key"
refused format 'options: format: missing; expected raw or qcow2' "$(disk a.qcow2)"
refused no-such-format "options: format 'qcow3'; expected raw or qcow2" "$(disk a.qcow2),format=qcow3"
refused relative "'a.qcow2'; expected an absolute path" 'qsd:a.qcow2,format=qcow2'
refused nothing "''; expected an absolute path" 'qsd:,format=qcow2'
refused missing "target $dir/none: No such file or directory" "$(disk none),format=qcow2"
refused directory 'expected a regular file' "qsd:$dir,format=raw,ro"
refused fifo 'expected a regular file' "$(disk nap),format=raw"
refused option "options: 'color=red'; expected KEY=VALUE with a key of: format, backing" "$(disk a.qcow2),format=qcow2,color=red"
refused twice 'options: format: given twice' "$(disk a.qcow2),format=qcow2,format=raw"
refused serial 'serial; expected none with this module' "$(disk a.qcow2),format=qcow2,serial=x"
refused rate 'rate or iops; expected none with this module' "$(disk a.qcow2),format=qcow2,rate=1M"
refused iops 'rate or iops; expected none with this module' "$(disk a.qcow2),iops=5,format=qcow2"
refused direct 'direct, engine or overlay; expected with files only' "$(disk a.qcow2),format=qcow2,direct"
refused backing-format 'options: backing-format: missing; expected with backing' "$(disk a.qcow2),format=qcow2,backing=$dir/a.raw"
refused backing 'options: backing-format: expected with backing only' "$(disk a.qcow2),format=qcow2,backing-format=raw"
refused backing-of-raw 'options: backing: expected with format=qcow2 only' "$(disk a.raw),format=raw,backing=$dir/a.qcow2,backing-format=qcow2"
refused backing-missing "backing $dir/none: No such file or directory" "$(disk a.qcow2),format=qcow2,backing=$dir/none,backing-format=raw"
refused key 'options: key: missing; expected with format=luks' "$(disk a.raw),format=luks"
refused key-of-raw 'options: key: expected with format=luks only' "$(disk a.raw),format=raw,key=$dir/key"
for f in qcow2 vmdk vhdx vdi; do
	refused "wrong-format/$f" "no $f image" "$(disk a.raw),format=$f,ro"
done
refused wrong-format/luks 'no luks image' "$(disk a.raw),format=luks,key=$dir/key"
printf x >"$dir/short"
refused short 'no qcow2 image' "$(disk short),format=qcow2"
truncate -s 1000 "$dir/odd"
refused size 'its size is no multiple of 512' "$(disk odd),format=raw"
refused also-ro 'its size is no multiple of 512' "$(disk odd),format=raw,ro"
ln -s a.raw "$dir/link.raw"
"$RUN" --kernel "$GUESTS/hello.elf" --disk "$(disk a.raw),format=raw" --disk "$(disk link.raw),format=raw" </dev/null >"$dir/out" 2>"$dir/err"
status=$?
[ $status = 2 ] && grep -q 'or given twice' "$dir/err"
holds refused/given-twice $? "status $status: $(log)"

# ---- images that name other files

qemu-img create -q -u -f qcow2 -b /etc/shadow -F raw "$dir/hostile.qcow2" 64M
refused names/backing 'its header names a backing file; expected backing=PATH,backing-format=FORMAT' "$(disk hostile.qcow2),format=qcow2"
qemu-img create -q -f qcow2 -o "data_file=$dir/data,data_file_raw=on" "$dir/data.qcow2" 1M
refused names/data-file 'its header names an external data file' "$(disk data.qcow2),format=qcow2"
qemu-img create -q -f qcow2 -b "$dir/a.raw" -F raw "$dir/middle.qcow2"
refused names/chain 'its header names a backing file; expected one without' \
	"$(disk middle.qcow2),format=qcow2,backing=$dir/middle.qcow2,backing-format=qcow2,ro"
qemu-img create -q -f vmdk -o subformat=monolithicFlat "$dir/flat.vmdk" 1M
refused names/extent 'no vmdk image in one file' "$(disk flat.vmdk),format=vmdk"
qemu-img create -q -f vmdk "$dir/parent.vmdk" 1M
qemu-img create -q -f vmdk -b "$dir/parent.vmdk" -F vmdk "$dir/child.vmdk" 1M
broken names/parent 'Could not open backing file' "$(disk child.vmdk),format=vmdk"

# ---- formats: what the payload for disks leaves behind is the same in each, and the same as insula-blk leaves in a raw file

truncate -s 64M "$dir/direct.raw"
vm direct blk --disk "$dir/direct.raw"
# look NAME FORMAT: the image is whole, and the same is in it
look() {
	case $2 in raw | vpc | luks) ;; *)
		qemu-img check -q -f "$2" "$dir/$1" >"$dir/img" 2>&1
		holds "$1/check" $? "$(tr '\n' '|' <"$dir/img")"
		;;
	esac
	if [ "$2" = luks ]; then
		qemu-img convert --object secret,id=s,file="$dir/key" --image-opts driver=luks,key-secret=s,file.filename="$dir/$1" -O raw "$dir/out.raw"
	else
		qemu-img convert -f "$2" -O raw "$dir/$1" "$dir/out.raw"
	fi
	# A vpc image ends with a cylinder, so its last sector is another one. Nothing makes zeros of what a luks image has discarded.
	case $2 in
	vpc) cmp -n $(((64 << 20) - 512)) "$dir/out.raw" "$dir/direct.raw" >"$dir/img" 2>&1 ;;
	luks) ! cmp -l "$dir/out.raw" "$dir/direct.raw" | awk '$3 != 0' | grep . >"$dir/img" ;;
	*) cmp "$dir/out.raw" "$dir/direct.raw" >"$dir/img" 2>&1 ;;
	esac
	holds "$1/what is in it" $? "$(head -n 1 "$dir/img")"
}
for f in raw qcow2 vmdk vpc vdi; do
	image $f "f.$f"
	vm "f.$f" blk --cpus 2 --disk "$(disk "f.$f"),format=$f"
	grep -q '^queues 2' "$dir/out"
	holds "f.$f/queues" $? "$(grep queues "$dir/out")"
	look "f.$f" $f
done
refused vhdx 'format vhdx; expected with ro' "$(disk f.vhdx),format=vhdx"
qemu-img convert -f raw -O vhdx "$dir/direct.raw" "$dir/f.vhdx"
vm f.vhdx blk --cpus 2 --disk "$(disk f.vhdx),format=vhdx,ro"
look f.vhdx vhdx
image luks f.luks 64M --object secret,id=s,file="$dir/key" -o key-secret=s,iter-time=10
vm f.luks blk --disk "$(disk f.luks),format=luks,key=$dir/key"
look f.luks luks
printf 'another' >"$dir/wrong"
broken luks-key 'Invalid password' "$(disk f.luks),format=luks,key=$dir/wrong"
qemu-io -f raw -c 'write -P 7 0 1M' "$dir/a.raw" >/dev/null
qemu-img create -q -f qcow2 -b "$dir/a.raw" -F raw "$dir/top.qcow2"
before=$(md5sum <"$dir/a.raw")
vm backing blk --disk "$(disk top.qcow2),format=qcow2,backing=$dir/a.raw,backing-format=raw"
qemu-io -f qcow2 -r -c 'read -P 7 1000k 16k' "$dir/top.qcow2" | grep -q '^read 16384/16384'
holds 'backing/is read' $? 'another pattern'
[ "$(md5sum <"$dir/a.raw")" = "$before" ] && qemu-img check -q "$dir/top.qcow2"
holds 'backing/is not written' $? "$(md5sum <"$dir/a.raw")"
qemu-io -f raw -c 'write -P 0 0 1M' "$dir/a.raw" >/dev/null
before=$(md5sum <"$dir/f.qcow2")
vm ro blk --disk "$(disk f.qcow2),format=qcow2,ro"
grep -q read_only "$dir/out" && [ "$(md5sum <"$dir/f.qcow2")" = "$before" ]
holds 'ro/nothing changes' $? "$(grep read "$dir/out" | head -n 2)"
image qcow2 p.qcow2
vm pci pciloop --bus pci --cpus 2 --append seconds=1 --disk "$(disk p.qcow2),format=qcow2"
cp "$dir/a.raw" "$dir/c,o:l.raw"
vm 'comma and colon' blk --disk "qsd:$dir/c,,o:l.raw,format=raw"
vm 'options' blk --disk "path=qsd:$dir/a.raw,options=format=raw"

# ---- bad images

cp "$dir/f.qcow2" "$dir/corrupt.qcow2"
printf '\377\377\377\377\377\377\377\001' | dd of="$dir/corrupt.qcow2" bs=1 seek=40 conv=notrunc status=none # the L1 table
broken corrupt 'L1 table' "$(disk corrupt.qcow2),format=qcow2"
head -c 100 /dev/zero | tr '\0' A | dd of="$dir/corrupt.qcow2" bs=1 seek=4 conv=notrunc status=none
refused corrupt/header 'its header names a backing file' "$(disk corrupt.qcow2),format=qcow2"

# ---- under load

# program PROGRAM: sets pid
program() {
	local p
	pid=
	for p in $(children); do
		[ "$(tr '\0' '\n' <"/proc/$p/cmdline" | head -n 1)" != "$1" ] || pid=$p
	done 2>/dev/null
	[ -n "$pid" ]
}
# loop DISK ARG...: a guest at work, in the background
loop() {
	: >"$dir/out"
	while read -rt 0.01 -u $type; do :; done # what the one before has not read
	"$RUN" --kernel "$GUESTS/blkloop.elf" --append seconds=120 --cpus 2 --disk "$@" <"$dir/type" >"$dir/out" 2>"$dir/err" &
	run=$!
	wait_for 20 looping || not_ok "$1/began" "$(log)"
}
ended() { ! kill -0 "$run" 2>/dev/null; }
# finish NAME: it is told to end, and nothing was wrong
finish() {
	printf q >&$type
	wait_for 60 ended || kill -KILL "$run"
	wait "$run"
	status=$?
	run=''
	sed -n "s|^not ok |not ok qsd/$1/|p" "$dir/out"
	[ $status = 0 ] && grep -q '^ok all_rounds' "$dir/out"
	holds "$1" $? "status $status: $(tail -n 1 "$dir/out") $(log)"
}
again() { program qemu-storage-daemon && [ "$pid" != "$old" ]; }
for f in qcow2 raw vmdk vpc vdi; do
	image $f "k.$f"
	loop "$(disk "k.$f"),format=$f"
	for ((i = 0; i < DEATHS; i++)); do
		nap "0.$((RANDOM % 4 + 1))"
		wait_for 10 program qemu-storage-daemon || { not_ok "killed/$f" "no daemon: $(log)"; break; }
		old=$pid
		kill -KILL "$old" 2>/dev/null
		wait_for 20 again || not_ok "killed/$f" "no other daemon: $(log)"
		[ $f = qcow2 ] || [ $f = vdi ] || [ $i -lt 1 ] || break
	done
	nap 0.5
	finish "killed/$f: no write that was answered is lost"
	case $f in qcow2 | vmdk | vdi)
		qemu-img check -q -f $f "$dir/k.$f" >"$dir/img" 2>&1
		[ $? = 0 ] || [ $? = 3 ] || ! grep -q 'errors were found' "$dir/img"
		holds "killed/$f: the image is whole" $? "$(tr '\n' '|' <"$dir/img")"
		;;
	esac
done
image qcow2 k.qcow2
loop "$(disk k.qcow2),format=qcow2"
program qemu-storage-daemon && kill -STOP "$pid"
nap 1
! ended
holds 'stopped: the VM waits' $? "$(log)"
kill -CONT "$pid"
nap 0.3
finish 'stopped, and goes on'

# ---- its jail, from outside; the file is this VM's

loop "$(disk k.qcow2),format=qcow2"
program qemu-storage-daemon
refused busy 'locked by another VM' "$(disk k.qcow2),format=qcow2"
refused busy/insula-blk 'locked by another VM' "$dir/k.qcow2"
qemu-io -f qcow2 -c 'write 0 512' "$dir/k.qcow2" >"$dir/img" 2>&1
grep -q 'Failed to get "write" lock' "$dir/img"
holds busy/qemu $? "$(head -n 1 "$dir/img")"
get() { awk -v k="$1:" '$1 == k {print $2}' "/proc/$pid/status"; }
grep -q '/memfd:vhost-inflight' "/proc/$pid/maps"
holds 'it keeps account of what is under way' $? "$(grep -c . "/proc/$pid/maps") mappings"
[ "$(get NoNewPrivs) $(get Seccomp)" = '1 2' ]
holds jail/seccomp $? "$(get NoNewPrivs) $(get Seccomp)"
want_caps=0000000000000000
[ "$(id -u)" != 0 ] || want_caps=0000000000000002 # DAC_OVERRIDE, in its user namespace
[ "$(get CapEff) $(get CapBnd) $(get CapAmb)" = "$want_caps $want_caps 0000000000000000" ]
holds jail/capabilities $? "$(get CapEff) $(get CapBnd)"
for ns in user net mnt pid ipc uts cgroup; do
	[ "$(readlink "/proc/$pid/ns/$ns")" != "$(readlink "/proc/self/ns/$ns")" ]
	holds "jail/$ns" $? shared
done
[ "$(tail -n +3 "/proc/$pid/net/dev" | grep -vc ' lo:\|^ *lo:')" = 0 ]
holds 'jail/no network' $? "$(tail -n +3 "/proc/$pid/net/dev")"
seen=$(cd "/proc/$pid/root" && find . -xdev -mindepth 1 | LC_ALL=C sort | tr '\n' ' ')
grep -qE '^\./dev \./dev/null (\./etc \./etc/ld\.so\.cache )?\./files \./files/target (\./lib[0-9]* )+\./usr (\./usr/lib[0-9]* ?)+$' <<<"$seen"
holds 'jail/no other file' $? "$seen"
grep -q ' /usr/lib ro,.*nosuid' "/proc/$pid/mountinfo" && grep -q ' /files/target rw,.*nosuid,nodev,noexec' "/proc/$pid/mountinfo"
holds jail/mounts $? "$(cut -c1-120 "/proc/$pid/mountinfo" | tr '\n' '|')"
holds 'jail/its group' "$([ "$(cat "/proc/$pid/cgroup")" = "$(cat "/proc/$run/cgroup")" ]; echo $?)" "$(cat "/proc/$pid/cgroup")"
{ kill -KILL "$run"; wait "$run"; } 2>/dev/null
gone() { [ ! -e "/proc/$pid" ] || grep -q '^State:.[ZX]' "/proc/$pid/status" 2>/dev/null; }
wait_for 10 gone
holds 'jail/dies with the supervisor' $? "$(head -n 3 "/proc/$pid/status" 2>/dev/null | tr '\n' ' ')"
run=''

# ---- the manifest and the program, in a tree of their own

make -s -C "$HERE/../.." BUILD="$BUILD" DESTDIR="$dir/tree" PREFIX=/usr STRIP= install >"$dir/install" 2>&1 || not_ok install "$(tail -n 3 "$dir/install")"
M=$dir/tree/usr/libexec/insula/modules
RUN=$dir/tree/usr/bin/insula-run
cp "$M/qsd.json" "$dir/qsd.json"
# manifest NAME TEXT JQ: with the manifest changed
manifest() {
	jq "$3" "$dir/qsd.json" >"$M/qsd.json" || not_ok "manifest/$1" 'jq'
	refused "manifest/$1" "$2" "$(disk f.qcow2),format=qcow2"
}
manifest unknown-member 'manifest qsd: color: "red"; expected no such member' '.color = "red"'
manifest serves 'serves: "nbd"; expected "vhost-user"' '.serves = "nbd"'
manifest beside 'program: "qemu-storage-daemon"; expected an absolute path' '.program = "qemu-storage-daemon"'
manifest upward 'program: "/usr/bin/../bin/qemu-storage-daemon"; expected an absolute path without . and ..' \
	'.program = "/usr/bin/../bin/qemu-storage-daemon"'
manifest up 'program: "/usr/bin/.."; expected an absolute path' '.program = "/usr/bin/.."'
manifest first-kind 'serves' 'del(.serves)'
manifest connect 'connect: missing; expected "tcp" alone with "serves"' '.connect = {"a": {"over": "unix"}}'
manifest target 'target: missing' 'del(.target)'
manifest target-type 'target.type: "disk"; expected' '.target.type = "disk"'
manifest write 'settings.format.write: missing; expected it with "file" alone' '.settings.format.write = true'
manifest argument "arguments: '\${nothing': missing; expected the key of a setting" '.arguments += ["${nothing}"]'
manifest unclosed "arguments: '\${format': missing" '.arguments += ["${format"]'
manifest if "arguments: if 'color': missing" '.arguments += [{"if": "color", "then": ["x"]}]'
manifest then 'arguments: {"if":"ro"}; expected "if" and "then"' '.arguments += [{"if": "ro"}]'
manifest refuse 'refuse.file: missing; expected the key of a file' '.refuse += [{"file": "format", "multiple": 2, "says": "x"}]'
manifest bytes 'refuse.bits: "0x"; expected 1 to 16 bytes' '.refuse += [{"file": "target", "bits": "0x", "says": "x"}]'
manifest says 'refuse.says: missing' '.refuse += [{"if": "ro"}]'
manifest limit 'limits.memory: "1T"' '.limits.memory = "1T"'
P=$dir/bin
mkdir -m 755 "$P"
manifest not-there "$P/qemu-storage-daemon: No such file or directory (Debian: apt-get install qemu-system-common)" ".program = \"$P/qemu-storage-daemon\""
cp "$(command -v qemu-storage-daemon)" "$P/qemu-storage-daemon"
chmod 755 "$P/qemu-storage-daemon"
for what in 'chmod 644:not executable' 'chmod 777:only its owner may write' 'chown 12345:belongs to user 12345'; do
	case $what in chown*) [ "$(id -u)" = 0 ] || { skip "program/${what%% *}" 'not root'; continue; } ;; esac
	${what%%:*} "$P/qemu-storage-daemon"
	refused "program/${what%%:*}" "${what#*:}" "$(disk f.qcow2),format=qcow2"
	chmod 755 "$P/qemu-storage-daemon"
	[ "$(id -u)" != 0 ] || chown 0 "$P/qemu-storage-daemon"
done
chmod 777 "$P"
refused program/directory 'only its owner may write' "$(disk f.qcow2),format=qcow2"
chmod 755 "$P"
vm 'program/elsewhere' blk --disk "$(disk f.qcow2),format=qcow2"
mv "$P/qemu-storage-daemon" "$P/real" && ln -s real "$P/qemu-storage-daemon"
refused program/link 'Too many levels of symbolic links' "$(disk f.qcow2),format=qcow2"
"$dir/tree/usr/bin/insulactl" --json module ls | grep -q '"name":"qsd"'
holds ls $? "$("$dir/tree/usr/bin/insulactl" module ls 2>&1 | head -n 3)"

# ---- nobody has looked at what the image names: the guest sees nothing of it, and the program cannot open it

jq 'del(.refuse)' "$dir/qsd.json" >"$M/qsd.json"
vm 'hostile: /etc/shadow is not there' blkzero --disk "$(disk hostile.qcow2),format=qcow2"
jq 'del(.refuse) | .arguments |= map(if type == "object" then .then |= map(gsub("\"backing\":null,"; "")) else . end)' "$dir/qsd.json" >"$M/qsd.json"
broken hostile "Could not open '/etc/shadow': No such file or directory" "$(disk hostile.qcow2),format=qcow2"
broken hostile/data-file 'No such file or directory' "$(disk data.qcow2),format=qcow2"
exit $failed
