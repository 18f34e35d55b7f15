#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Bad input to insula-run: one clear line, status 2 (or 125 where the machine is to blame), nothing started, nothing left,
# nothing written. BUILD names the build directory. One line per case: ok, not ok, skip.
# shellcheck disable=SC2317 # functions that are handed to trap
set -u
SUITE=badinput
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
KERNEL=$BUILD/guests/hello.elf

for f in "$RUN" "$KERNEL"; do
	[ -e "$f" ] || { not_ok all "$f is not built"; exit 1; }
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/badinput.XXXXXX") || exit 1
holder=
cleanup() {
	[ -z "$holder" ] || kill -KILL "$holder" 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
mkdir "$dir/tmp"
truncate -s 1M "$dir/disk.img"

# What is left running of a VM: processes of one whose insula-run is gone. Those of other tests at the same time have theirs, and what
# was left before this run does not count.
others() {
	local p parent
	for p in $(pgrep -f '^insula-(vmm|blk|console)$' 2>/dev/null); do
		parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$p/status" 2>/dev/null)
		# One that has just ended has no status.
		[ -z "$parent" ] || [ "$(cat "/proc/$parent/comm" 2>/dev/null)" = insula-run ] || echo "$p"
	done
}

left() { comm -13 <(sort <<<"$before") <(others | sort) | tr '\n' ' '; }
nothing_left() { [ -z "$(left)" ]; }

# judge NAME STATUS PART...: the run that has ended, by $status, $dir/err and what is left
judge() {
	local name=$1 want=$2 why='' part
	shift 2
	[ "$status" = "$want" ] || why="status $status, expected $want;"
	[ "$(wc -l <"$dir/err")" = 1 ] || why="$why $(wc -l <"$dir/err") lines;"
	grep -q '^insula-run: .' "$dir/err" || why="$why no 'insula-run: ';"
	for part in "$@"; do
		grep -qF -- "$part" "$dir/err" || why="$why no '$part';"
	done
	[ -z "$(LC_ALL=C tr -d '\12\40-\176' <"$dir/err" | LC_ALL=C tr -d '\200-\377')" ] || why="$why control characters;"
	[ ! -s "$dir/out" ] || why="$why it wrote '$(head -c 80 "$dir/out")';"
	[ -z "$(ls -A "$dir/tmp")" ] || why="$why left $(ls -A "$dir/tmp");"
	[ ! -e "$dir/metrics" ] || why="$why made the metrics file;"
	[ "$(cat "$dir/kept")" = before ] || why="$why touched a metrics file;"
	wait_for 5 nothing_left || why="$why left processes: $(left);"
	rm -f "$dir/metrics"
	if [ -z "$why" ]; then ok "$name"; else not_ok "$name" "$why it said: $(head -c 400 "$dir/err" | tr '\n' '|')"; fi
}
execute() {
	before=$(others)
	TMPDIR=$dir/tmp timeout -s KILL 30 "$@" <"${IN:-/dev/null}" >"$dir/out" 2>"$dir/err"
	status=$?
}
echo before >"$dir/kept"

# bad NAME STATUS PART... -- ARG...: with a good kernel unless one is given, twice over: with a metrics file that is not there, and with one
# that is. With STATUS 2 and no need to start anything, -n says the same.
bad() {
	local name=$1 want=$2 parts=()
	shift 2
	while [ "$1" != -- ]; do
		parts+=("$1")
		shift
	done
	shift
	execute "$RUN" --kernel "$KERNEL" --metrics "$dir/metrics" --console none "$@"
	judge "$name" "$want" "${parts[@]}"
	execute "$RUN" --kernel "$KERNEL" --metrics "$dir/kept" --console none "$@"
	[[ $status = "$want" && $(cat "$dir/kept") = before ]] || not_ok "$name (metrics file)" "status $status, $(head -c 80 "$dir/kept")"
	echo before >"$dir/kept"
}
# dry NAME: -n refuses it too, with the same words
dry() {
	local name=$1
	shift
	cp "$dir/err" "$dir/err.run"
	execute "$RUN" -n --kernel "$KERNEL" "$@"
	cmp -s "$dir/err" "$dir/err.run"
	holds "$name (-n)" $? "it said: $(head -c 300 "$dir/err"), without -n: $(head -c 300 "$dir/err.run")"
}
bad_dry() {
	bad "$@"
	local name=$1
	while [ "$1" != -- ]; do shift; done
	shift
	dry "$name" "$@"
}

# ---- flags

bad 'an unknown flag' 2 '--kernal' 'unknown flag; did you mean --kernel?' -- --kernal x
bad 'an unknown short flag' 2 '-z' 'unknown flag' -- -z
bad 'a flag without its value' 2 '--mem' 'expected one' -- --mem
bad 'a flag with a value too many' 2 '--help' -- --help=yes
for m in 0 1 1K 15M -5 '' abc 15m 99999999999999999999G; do
	bad_dry "--mem '$m'" 2 '--mem' 'expected a size from 16M' -- --mem "$m"
done
bad '--mem not a multiple of a page' 2 '--mem' 'multiple of 4096' -- --mem 16777217
bad_dry 'more memory than the host has' 2 '--mem' 'what this host has' -- --mem 1024G
for c in 0 33 -1 x ''; do
	bad "--cpus '$c'" 2 '--cpus' 'expected a number from 1 to 32' -- --cpus "$c"
done
for c in 2,max=1 2,max=33 2,max= 2,max=x; do
	bad "--cpus '$c'" 2 '--cpus' 'expected a number from 2 to 32' -- --cpus "$c"
done
bad '--timeout 0' 2 '--timeout' 'expected seconds from 1' -- --timeout 0
bad '--console tty' 2 '--console' 'expected stdio, stderr, pty, none or file=FILE' -- --console tty
bad_dry '--console in no directory' 2 '--console' "$dir/no/console" -- --console file="$dir/no/console"
bad '--append of two lines' 2 '--append' 'expected one line' -- --append $'a\nb'
bad 'control characters are not passed on' 2 '--console' "'?[31m'" -- --console $'\e[31m'
bad 'nor are those of ISO 6429 in UTF-8' 2 '--console' "'??31m'" -- --console $'\xc2\x9b31m'
bad 'an initrd and a command' 2 '--initrd' 'leave out one' -- --initrd "$KERNEL" true
execute "$RUN" --kernel "$KERNEL" --metrics "$dir/no/metrics"
judge '--metrics in no directory' 2 '--metrics' "$dir/no/metrics"
dry '--metrics in no directory' --metrics "$dir/no/metrics"
execute "$RUN" --kernel "$KERNEL" --metrics "$dir"
judge '--metrics is a directory' 2 '--metrics' 'expected a file'

# ---- kernels

kernel() { bad "$1" 2 "${@:3}" -- --kernel "$2"; }
bad_dry 'kernel: missing' 2 '--kernel' "$dir/none" 'No such file' -- --kernel "$dir/none"
: >"$dir/empty"
bad_dry 'kernel: empty' 2 '--kernel' 'expected a file that is not empty' -- --kernel "$dir/empty"
kernel 'kernel: a directory' "$dir" '--kernel' 'expected a file'
mkfifo "$dir/fifo"
kernel 'kernel: a FIFO' "$dir/fifo" '--kernel' 'expected a file'
bad "--console of a FIFO that nobody reads" 2 "--console" "nobody reads it; expected a file" -- --console file="$dir/fifo"
head -c 100000 /dev/urandom >"$dir/garbage"
kernel 'kernel: garbage' "$dir/garbage" 'neither a bzImage nor an ELF image'
head -c 100000 /dev/urandom | gzip >"$dir/garbage.gz"
kernel 'kernel: compressed garbage' "$dir/garbage.gz" 'neither a bzImage nor an ELF image'
head -c 40 "$KERNEL" >"$dir/cut"
kernel 'kernel: ELF, cut in its header' "$dir/cut" 'kernel'
size=$(stat -c %s "$KERNEL")
head -c 4200 "$KERNEL" >"$dir/cut"
[ "$size" -gt 4200 ] || not_ok 'kernel: ELF, cut' "it has only $size bytes"
kernel 'kernel: ELF, cut in a segment' "$dir/cut" 'kernel'

# poke FILE OFFSET BYTES(octal escapes): change a copy of the payload
poke() {
	cp "$KERNEL" "$1"
	printf '%b' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
poke "$dir/elf32" 4 '\0001'
kernel 'kernel: 32-bit ELF' "$dir/elf32" 'kernel' '64'
poke "$dir/elfarm" 18 '\0267\0000'
kernel 'kernel: ELF for another machine' "$dir/elfarm" 'kernel' 'x86'
phoff=$(od -An -tu8 -j32 -N8 "$KERNEL" | tr -d ' ')
phnum=$(od -An -tu2 -j56 -N2 "$KERNEL" | tr -d ' ')
load=
for ((i = 0; i < phnum; i++)); do
	at=$((phoff + i * 56))
	[ "$(od -An -tu4 -j$at -N4 "$KERNEL" | tr -d ' ')" != 1 ] || { load=$at; break; }
done
if [ -n "$load" ]; then
	poke "$dir/low" $((load + 24)) '\0000\0160\0000\0000\0000\0000\0000\0000' # p_paddr 0x7000: the boot parameters
	kernel 'kernel: ELF over the boot structures' "$dir/low" 'kernel' '0x7000'
	poke "$dir/high" $((load + 24)) '\0000\0000\0000\0200\0000\0000\0000\0000' # 2 GiB
	kernel 'kernel: ELF beyond memory' "$dir/high" 'kernel' '0x80000000'
	poke "$dir/large" $((load + 40)) '\0000\0000\0000\0000\0001\0000\0000\0000' # p_memsz 4 GiB
	kernel 'kernel: ELF larger than memory' "$dir/large" 'kernel'
	poke "$dir/wrap" $((load + 40)) '\0377\0377\0377\0377\0377\0377\0377\0377' # p_memsz 2^64 - 1
	kernel 'kernel: ELF that wraps' "$dir/wrap" 'kernel'
else
	not_ok 'kernel: ELF segments' 'the payload has none'
fi
bz=
for f in "$BUILD"/guest/boot/vmlinuz-*; do [ ! -f "$f" ] || bz=$f; done
if [ -n "$bz" ]; then
	head -c 20000 "$bz" >"$dir/bz1"
	kernel 'kernel: bzImage, cut in its setup' "$dir/bz1" 'kernel'
	head -c 1000000 "$bz" >"$dir/bz2"
	bad 'kernel: bzImage, cut in its body' 2 'kernel' -- --kernel "$dir/bz2" --initrd "$KERNEL"
	# Smaller than its setup says that the kernel needs (init_size).
	bad 'kernel: bzImage in too little memory' 2 'kernel' 'the VM has 16' -- --kernel "$bz" --initrd "$KERNEL" --mem 16M
	bad_dry '--mem too small for the kernel' 2 '--mem 64M is too small for this kernel; use at least ' -- --kernel "$bz" --mem 64M -- true
	# Its modules: -n looks at them as a start does.
	release=${bz##*/vmlinuz-} tree=$dir/k/lib/modules/${bz##*/vmlinuz-}
	mkdir -p "$dir/k/boot" "$tree/kernel"
	ln "$bz" "$dir/k/boot/" 2>/dev/null || cp "$bz" "$dir/k/boot/"
	bad_dry 'modules: no modules.dep' 2 'no modules.dep' -- --kernel "$dir/k/boot/vmlinuz-$release" -- true
	echo "kernel/virtio_mmio.ko: ../../../../kept" >"$tree/modules.dep"
	touch "$tree/kernel/virtio_mmio.ko"
	bad_dry 'modules: out of the tree' 2 'leads out of it' -- --kernel "$dir/k/boot/vmlinuz-$release" -- true
	chmod 777 "$tree"
	bad_dry 'modules: a tree that everybody can write' 2 'by everybody' -- --kernel "$dir/k/boot/vmlinuz-$release" -- true
	chmod 755 "$tree"
	HOME='' XDG_CACHE_HOME=$dir/empty bad 'cache: not a directory' 2 "cache directory $dir/empty/insula" 'XDG_CACHE_HOME' -- --kernel "$bz" -- true
else
	skip 'kernel: bzImage' 'none unpacked (make guest)'
fi

# ---- initrd and command line

bad_dry 'initrd: missing' 2 '--initrd' "$dir/none" -- --initrd "$dir/none"
bad_dry 'initrd: empty' 2 '--initrd' 'not empty' -- --initrd "$dir/empty"
truncate -s 300M "$dir/initrd"
bad 'initrd: too large' 2 'initrd' 'the VM has 64 MiB' -- --initrd "$dir/initrd" --mem 64M
rm "$dir/initrd"
bad_dry 'command line: too long' 2 '--append' 'expected at most' -- --append "$(head -c 5000 /dev/zero | tr '\0' a)"

# ---- disks

bad_dry 'disk: missing' 2 'disk' "$dir/none" 'No such file' -- --disk path="$dir/none"
bad_dry 'disk: empty' 2 'disk' 'empty; expected at least 512' -- --disk path="$dir/empty"
truncate -s 1000 "$dir/odd"
bad_dry 'disk: not a multiple of 512' 2 'disk' '1000 bytes; expected a multiple of 512' -- --disk path="$dir/odd"
bad_dry 'disk: a directory' 2 'disk' 'directory' -- --disk path="$dir"
bad_dry 'disk: a FIFO' 2 'disk' 'neither a file nor a block device' -- --disk path="$dir/fifo"
bad_dry 'disk: a terminal' 2 'disk' 'neither a file nor a block device' -- --disk path=/dev/null
bad 'disk: no path' 2 '--disk' 'expected [path=]FILE' -- --disk ro
bad 'disk: an unknown part' 2 '--disk' 'format=qcow2' 'expected [path=]FILE' -- --disk path="$dir/disk.img",format=qcow2
bad 'disk: a part that was meant' 2 '--disk' "did you mean 'serial='?" -- --disk path="$dir/disk.img",serail=1
bad 'disk: a serial too long' 2 '--disk' 'expected 1 to 20' -- --disk path="$dir/disk.img",serial=123456789012345678901
bad 'disk: a rate too low' 2 '--disk' "rate '100'; expected bytes a second, 1K to 1024G" -- --disk path="$dir/disk.img",rate=100
bad 'disk: no requests' 2 '--disk' "iops '0'; expected requests a second" -- --disk path="$dir/disk.img",iops=0
bad_dry 'disk: one image twice' 2 'disk' 'given twice' -- --disk path="$dir/disk.img" --disk path="$dir/disk.img"
bad '--rootfs: missing' 2 '--rootfs' "$dir/none" -- --rootfs "$dir/none"
printf 'Hello\n' >"$dir/readme"
bad '--rootfs: no image' 2 '--rootfs' "$dir/readme" 'not an image' -- --rootfs "$dir/readme"
bad '--kernel: a directory' 2 '--kernel' "$dir" 'is a directory' -- --kernel "$dir"
bad '--mem: a number alone' 2 '--mem' '512 bytes; did you mean 512M?' -- --mem 512
bad '--share: two at one place' 2 '--share' '/a//b/ is given twice' -- --share "$dir/tmp:/a/b" --share "$dir/tmp:/a//b/"
bad '--bus: unknown' 2 '--bus' "'isa'; expected pci or mmio" -- --bus isa
bad '--bus: of a disk' 2 '--disk' "bus 'isa'; expected pci or mmio" -- --disk path="$dir/disk.img",bus=isa
bad '--bus: of a share' 2 '--share' "'isa'; expected pci or mmio" -- --share "$dir/tmp:/a,bus=isa"
mapfile -t many < <(for _ in {1..31}; do printf '%s\n' --disk "path=$dir/disk.img,ro"; done)
bad_dry '--bus: more devices than places' 2 '--bus' '32 devices' 'expected at most 31' 'bus=mmio for the others' -- --bus pci "${many[@]}"
bad_dry '--bus: more devices than places, each by itself' 2 '--bus' '32 devices' 'expected at most 31' -- --rng off "${many[@]/%,ro/,ro,bus=pci}" --vsock "path=$dir/v,bus=pci"
bad '--rootfs: a directory, rw' 2 '--rootfs' 'expected an image' -- --rootfs "$dir,rw"
flock -x "$dir/disk.img" sleep 30 &
holder=$!
for _ in $(seq 100); do
	flock -xn "$dir/disk.img" true || break
	sleep 0.05
done
bad_dry 'disk: locked by another' 2 'disk' "$dir/disk.img" 'locked by another VM' -- --disk path="$dir/disk.img"
kill -KILL $holder $(pgrep -P $holder) 2>/dev/null
wait $holder 2>/dev/null
holder=

# ---- JSON

json() { # NAME TEXT PART...
	printf '%s' "$2" >"$dir/json"
	bad "json: $1" 2 "${@:3}" -- --json "$dir/json"
}
json 'an unknown key' '{"cpu":1}' "$dir/json:1:2: unknown key 'cpu'; did you mean 'cpus'?"
json 'an unknown key of a disk' '{"disks":[{"path":"x","rw":true}]}' "unknown key 'rw'" 'expected path, ro, direct, serial, engine'
json 'a wrong type' '{"cpus":true}' 'cpus' 'expected a string or a whole number'
json 'a bad value' '{"mem":"12x"}' "$dir/json:1:2: mem: '12x'; expected a size"
json 'a bad value of the second disk' '{"disks":["x",{"path":"y","serial":""}]}' "$dir/json:1:27: disks: serial ''; expected 1 to 20"
json 'a bus that there is not' '{"bus":"isa"}' "$dir/json:1:2: bus: 'isa'; expected pci or mmio"
json 'a bus of a card' '{"nets":[{"user":true,"bus":true}]}' 'bus: wrong type; expected a string'
json 'cut off' '{"cpus":1' 'the text ends inside a value'
json 'nothing' '' 'expected one object'
json 'no object' '[1]' 'expected one object'
json 'text after it' '{"cpus":1} {}' "$dir/json:1:12: unexpected character"
json 'too deep' "{\"disks\":$(printf '[%.0s' {1..1000})" 'nesting too deep'
json 'a NUL in a text' '{"kernel":"a\u0000b"}' 'kernel' 'expected a string'
printf '{"cpus":1}\0' >"$dir/json"
bad 'json: a NUL behind it' 2 'json' -- --json "$dir/json"
{ printf '{"append":"'; head -c 1100000 /dev/zero | tr '\0' x; printf '"}'; } >"$dir/json"
bad 'json: too large' 2 'json' 'expected at most 1048576' -- --json "$dir/json"
bad 'json: missing' 2 '--json' "$dir/none" -- --json "$dir/none"
bad 'json: a directory' 2 '--json' "$dir" -- --json "$dir"
printf '{"mem":"0"}' >"$dir/json"
IN=$dir/json bad 'json: from the standard input' 2 'standard input:1:2: mem' -- --json -

# ---- -n checks and starts nothing; flags win over JSON

if ! have_kvm; then
	skip 'the rest' 'no access to /dev/kvm'
	exit $failed
fi
quietly() { # NAME ARG...: -n finds it good
	before=$(others)
	TMPDIR=$dir/tmp timeout -s KILL 30 "$RUN" -n --metrics "$dir/metrics" "${@:2}" <"${IN:-/dev/null}" >"$dir/out" 2>"$dir/err"
	[[ $? = 0 && ! -s $dir/err && $(cat "$dir/out") = 'insula-run: the configuration is good; nothing was started' &&
		! -e $dir/metrics && -z $(ls -A "$dir/tmp") ]] && wait_for 5 nothing_left
	holds "-n: $1" $? "$(cat "$dir/out" "$dir/err")"
}
quietly 'a good configuration' --kernel "$KERNEL" --disk path="$dir/disk.img" --console file="$dir/console"
[ ! -e "$dir/console" ]
holds '-n: makes no console file' $? "$(ls "$dir")"
printf '{"kernel":"%s","cpus":2,"mem":"1024G","disks":[{"path":"%s"}],"timeout":5}' "$dir/none" "$dir/none" >"$dir/json"
quietly 'flags win, before it' --kernel "$KERNEL" --mem 64M --disk path="$dir/disk.img" --json "$dir/json"
quietly 'flags win, after it' --json "$dir/json" --kernel "$KERNEL" --mem 64M --disk path="$dir/disk.img"
IN=$dir/json quietly 'flags win, from the standard input' --json - --kernel "$KERNEL" --mem 64M --disk path="$dir/disk.img"
cp "$dir/disk.img" "$dir/a,b"
quietly 'commas in a path' --kernel "$KERNEL" --disk path="$dir/a,,b",ro
printf '{"kernel":"%s","disks":[{"path":"%s","ro":true}]}' "$KERNEL" "$dir/a,b" >"$dir/json"
quietly 'commas in a path of JSON' --json "$dir/json"
printf '{"kernel":"%s","timeout":"20","console":"none","cpus":2}' "$KERNEL" >"$dir/json"
execute "$RUN" --json "$dir/json"
[ "$status" = 42 ]
holds 'json: runs a VM' $? "status $status: $(cat "$dir/err")"

# ---- the place that it was started in, and /dev/kvm

kvm() { # NAME STATUS PART... -- COMMAND...
	local name=$1 want=$2 parts=()
	shift 2
	while [ "$1" != -- ]; do
		parts+=("$1")
		shift
	done
	shift
	execute "$@"
	judge "$name" "$want" "${parts[@]}"
}
if unshare -m true 2>/dev/null; then
	# shellcheck disable=SC2016
	kvm '/dev/kvm is not there' 125 'no /dev/kvm' 'expected a Linux host with KVM' -- \
		unshare -m sh -c 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$@"' sh "$RUN" --kernel "$KERNEL"
	# shellcheck disable=SC2016
	kvm '/dev/kvm is something else' 125 'not a KVM device' -- unshare -m sh -c 'mount --bind /dev/null /dev/kvm && exec "$@"' sh "$RUN" --kernel "$KERNEL"
else
	skip '/dev/kvm is not there' 'mount namespaces are not allowed'
fi
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$dir/root/dev" "$dir/root/proc" "$dir/root/libexec"
	cp -r "$BUILD/bin" "$dir/root"
	cp -rL "$BUILD/libexec/insula" "$dir/root/libexec"
	cp "$KERNEL" "$dir/root/kernel"
	in_root() { # NAME PART... -- SCRIPT with $0 the root
		local name=$1 parts=()
		shift
		while [ "$1" != -- ]; do parts+=("$1"); shift; done
		kvm "$name" 125 "${parts[@]}" -- unshare -m sh -c "$2" "$dir/root" --kernel /kernel --console none
	}
	# shellcheck disable=SC2016
	{
		in_root 'chroot without /proc' '/proc is not mounted here' -- 'exec chroot "$0" /bin/insula-run "$@"'
		in_root 'chroot without /dev/null' 'no /dev/null here' -- 'mount -t proc none "$0/proc" && exec chroot "$0" /bin/insula-run "$@"'
		in_root 'chroot' 'cannot create a user namespace; this is a chroot' -- 'mount -t proc none "$0/proc" &&
			mount --bind /dev "$0/dev" && exec chroot "$0" /bin/insula-run "$@"'
		kvm '/proc is read-only' 125 '/proc is read-only; mount a fresh one' -- \
			unshare -m sh -c 'mount -o remount,bind,ro /proc && exec "$@"' sh "$RUN" --kernel "$KERNEL"
		kvm 'ulimit -v' 125 'the limit of address space (ulimit -v) is too low: 200000 KiB' -- \
			sh -c 'ulimit -v 200000 && exec "$@"' sh "$RUN" --kernel "$KERNEL"
		execute unshare -m sh -c 'mount -t tmpfs -o size=16k none "$0" && head -c 16384 /dev/zero >"$0/fill"
			"$@" --metrics "$0/m"; rc=$?; [ ! -e "$0/m" ] || echo left; exit $rc' "$dir/root/proc" "$RUN" --kernel "$KERNEL" --console none
		[ "$status" = 42 ] && grep -q 'metrics: .*No space left' "$dir/err" && ! grep -q left "$dir/out"
		holds 'a full disk: no empty metrics file' $? "status $status: $(cat "$dir/err" "$dir/out")"
	}
	cp "$KERNEL" "$dir/kernel"
	chmod 755 "$dir"
	chmod 777 "$dir/tmp"
	# A copy of the node that only root may open, whatever the mode of the real one; a path that the user may search.
	if setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$RUN" 2>/dev/null; then
		for mode in 660 600; do
			words=("it is for uid 0 alone (mode 0600)")
			[ $mode = 600 ] || words=('gid 4711' 'usermod -aG kvm')
			# shellcheck disable=SC2016
			HOME=$dir/tmp kvm "/dev/kvm may not be opened, mode $mode" 125 'no permission to open /dev/kvm' "${words[@]}" -- \
				unshare -m sh -c 'cp -a /dev/kvm "$0/node" && chown 0:4711 "$0/node" && chmod "$1" "$0/node" && shift &&
					mount --bind "$0/node" /dev/kvm && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"' \
				"$dir" $mode "$RUN" --kernel "$dir/kernel"
			rm -f "$dir/node"
		done
	else
		skip '/dev/kvm may not be opened' 'an ordinary user cannot reach the build directory'
	fi
else
	skip '/dev/kvm may not be opened' 'only root can try'
fi
exit $failed
