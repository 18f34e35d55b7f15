#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The jails of a running VM (with a command, which its guest never takes), as the host's /proc shows them; then each program is made to do a forbidden call; then
# kill -9 of the supervisor. BUILD names the build directory. One line per case: ok, not ok, skip.
# shellcheck disable=SC2317 # functions that are handed to wait_for or trap
set -u
SUITE=jail
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
KERNEL=$BUILD/guests/idle.elf
POKE=$BUILD/tests/jail_child
SYS_openat=257
PROGRAMS='insula-vmm insula-balloon insula-blk insula-console insula-mem insula-net insula-rng insula-vhost insula-vsock insula-exec'
KINDS='user pid mnt net ipc uts cgroup'
for f in "$BUILD/bin/insula-run" "$KERNEL" "$POKE"; do
	[ -e "$f" ] || { not_ok all "$f is not built"; exit 1; }
done

dir=$(mktemp -d) || exit 1
run=
peer=
daemon=
cleanup() {
	[ -z "$peer" ] || kill "$peer" 2>/dev/null
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null
	if [ -n "$run" ]; then
		kill -KILL "$run" 2>/dev/null
		wait "$run" 2>/dev/null
	fi
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
mkdir "$dir/tmp"
truncate -s 1M "$dir/disk.img"
DISK=$(readlink -f "$dir/disk.img")
KERNEL_PATH=$(readlink -f "$KERNEL")

children() { cat /proc/"$run"/task/*/children 2>/dev/null | tr ' ' '\n' | sed '/^$/d'; }
# The program of a process; it sets argv[0] itself, /proc/PID/exe would need privilege.
program() { tr '\0' '\n' </proc/"$1"/cmdline 2>/dev/null | head -n 1; }
pid_of() { for p in $(children); do [ "$(program "$p")" = "$1" ] && echo "$p"; done | head -n 1; }
field() { sed -n "s/^$2:[[:space:]]*//p" "$1" 2>/dev/null; }

sealed() {
	for wanted in $PROGRAMS; do
		p=$(pid_of "$wanted")
		[ -n "$p" ] || return 1
	done
	for p in $(children); do
		[ "$(field /proc/"$p"/status Seccomp)" = 2 ] || return 1
	done
}

# The other side of the network card, if there is something to be it.
net=
if command -v python3 >/dev/null; then
	python3 "$(dirname "$0")/netpeer.py" "$dir/peer" &
	peer=$!
	wait_for 20 test -S "$dir/peer" && net="--net socket=$dir/peer"
fi
if [ -z "$net" ]; then
	skip insula-net 'no python3 for the other side'
	PROGRAMS=$(echo "$PROGRAMS" | sed 's/insula-net //')
fi

# And of the device that another program serves.
vhost=
if command -v qemu-storage-daemon >/dev/null; then
	qemu-storage-daemon --blockdev driver=null-co,node-name=n,size=1048576 \
		--export type=vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path="$dir/back" &
	daemon=$!
	wait_for 20 test -S "$dir/back" && vhost="--device vhost-user,type=blk,socket=$dir/back"
fi
if [ -z "$vhost" ]; then
	not_ok insula-vhost 'no qemu-storage-daemon for the other side'
	PROGRAMS=$(echo "$PROGRAMS" | sed 's/insula-vhost //')
fi

# shellcheck disable=SC2086
start_vm() {
	TMPDIR=$dir/tmp "$BUILD/bin/insula-run" --kernel "$KERNEL" --mem 32M,max=96M --disk path="$dir/disk.img" $net $vhost --console none --balloon on --vsock path="$dir/vsock" \
		-- true </dev/null >"$dir/out" 2>&1 &
	run=$!
	wait_for 10 sealed && return 0
	not_ok "$1" "no sealed processes after 10 s: $(tr '\n' ' ' <"$dir/out")"
	exit 1
}

# ---- /proc of each process

check_status() {
	why=
	for s in /proc/"$1"/task/*/status; do
		for want in NoNewPrivs=1 Seccomp=2 CapInh=0000000000000000 CapPrm=0000000000000000 \
			CapEff=0000000000000000 CapBnd=0000000000000000 CapAmb=0000000000000000; do
			[ "$(field "$s" "${want%%=*}")" = "${want#*=}" ] ||
				why="$why $s: ${want%%=*} is '$(field "$s" "${want%%=*}")';"
		done
	done
	verdict "$2: no_new_privs, seccomp, no capabilities, in every thread" "$why"
}

# Not ours, and not those of another process of the VM.
check_namespaces() {
	why=
	for kind in $KINDS; do
		theirs=$(readlink /proc/"$1"/ns/"$kind") || { why="$why $kind: cannot be read;"; continue; }
		[ "$theirs" != "$(readlink /proc/self/ns/"$kind")" ] || why="$why $kind: the host's;"
		for other in $(children); do
			[ "$other" = "$1" ] || [ "$theirs" != "$(readlink /proc/"$other"/ns/"$kind")" ] ||
				why="$why $kind: shared with $(program "$other");"
		done
	done
	verdict "$2: seven namespaces of its own" "$why"
}

check_ids() {
	why=
	read -r inner outer count </proc/"$1"/uid_map
	[ "$count" = 1 ] || why="$count ids are mapped;"
	[ "$inner" != 0 ] || why="$why it is root inside;"
	me=$(id -u)
	if [ "$me" = 0 ] && [ "$(tr -s ' ' </proc/self/uid_map)" = ' 0 0 4294967295' ]; then
		[ "$outer" -ge 1879048192 ] || why="$why it is uid $outer of the host;"
	else
		[ "$outer" = "$me" ] || why="$why it is uid $outer of the host;"
	fi
	verdict "$2: one id, not root" "$why"
}

# How long a regular file may get: the image of a disk as long as it is, the records of a snapshot, no other at all; a command's output is the user's.
check_fsize() {
	why=
	want=0
	case $2 in
	insula-blk) want=1048576 ;;
	insula-vmm) want=4263936 ;; # the records of a snapshot: 68 KiB a vCPU, and 4 MiB
	insula-vhost) want=67108864 ;; # what its back end holds, in one: 64 MiB
	insula-exec) want=unlimited ;;
	esac
	for got in $(sed -n 's/^Max file size  *\([^ ]*\)  *\([^ ]*\) .*/\1 \2/p' "/proc/$1/limits"); do
		[ "$got" = $want ] || why="$got, expected $want"
	done
	verdict "$2: how long a file may get" "$why"
}

check_root() {
	if ! ls /proc/"$1"/root/ >/dev/null 2>&1; then
		skip "$2: empty root" 'only root may look at it'
		return
	fi
	why=
	[ -z "$(ls -A /proc/"$1"/root/)" ] || why='it is not empty;'
	[ "$(wc -l </proc/"$1"/mountinfo)" = 1 ] || why="$why more than one mount;"
	grep -q ' / / ro,nosuid,nodev,noexec.* - tmpfs ' /proc/"$1"/mountinfo || why="$why $(cat /proc/"$1"/mountinfo)"
	verdict "$2: empty read-only root" "$why"
}

# What a descriptor may be. Everything that has a path is named one by one.
fd_is_expected() { # PROGRAM FD TARGET
	case $3 in
	'socket:'*) [ "$2" = 3 ] || [ "$1" = insula-net ] || [ "$1" = insula-vsock ] || [ "$1" = insula-vhost ] || [ "$1" = insula-exec ] ;; # the channel; streams; the back end; the stream to the guest
	'pipe:'*) [ "$2" = 1 ] || [ "$2" = 2 ] ;;
	'anon_inode:[eventfd]' | 'anon_inode:[eventpoll]' | 'anon_inode:[timerfd]' | 'anon_inode:[signalfd]') ;;
	'/memfd:'*) ;;
	/dev/null) [ "$2" = 0 ] || [ "$1" = insula-console ] || [ "$1" = insula-exec ] ;;
	"$dir/out") [ "$1" = insula-exec ] ;; # the user's output and errors
	'anon_inode:kvm-vm' | 'anon_inode:kvm-vcpu:'* | "$KERNEL_PATH") [ "$1" = insula-vmm ] ;;
	'anon_inode:[io_uring]' | "$DISK") [ "$1" = insula-blk ] ;;
	*) false ;;
	esac
}

check_descriptors() {
	if ! ls /proc/"$1"/fd >/dev/null 2>&1; then
		skip "$2: descriptors" 'only root may list them'
		return
	fi
	why=
	for link in /proc/"$1"/fd/*; do
		fd=${link##*/}
		target=$(readlink "$link")
		fd_is_expected "$2" "$fd" "$target" || why="$why $fd -> $target;"
	done
	for fd in 0 1 2 3; do
		[ -e /proc/"$1"/fd/$fd ] || [ -h /proc/"$1"/fd/$fd ] || why="$why $fd is closed;"
	done
	verdict "$2: only the descriptors that it needs" "$why"
}

start_vm 'a VM starts'
ok "a VM starts: $(for p in $(children); do program "$p"; done | tr '\n' ' ')"
for pid in $(children); do
	name=$(program "$pid")
	check_status "$pid" "$name"
	check_namespaces "$pid" "$name"
	check_ids "$pid" "$name"
	check_fsize "$pid" "$name"
	check_root "$pid" "$name"
	check_descriptors "$pid" "$name"
done

# ---- a forbidden call in each program; insula-vmm last, the VM ends with it

poke() {
	pid=$(pid_of "$1")
	[ -n "$pid" ] || return 0
	message=$("$POKE" poke "$pid" $SYS_openat 2>&1)
	case $? in
	0) ok "$1: a forbidden call kills it" ;;
	77) skip "$1: a forbidden call kills it" "$message" ;;
	*) not_ok "$1: a forbidden call kills it" "$message" ;;
	esac
}

for name in insula-console insula-blk insula-net insula-vhost insula-vsock; do
	poke $name
	if wait_for 10 sealed; then ok "$name: a new one is jailed too"; else
		not_ok "$name: a new one is jailed too" "$(tail -n 1 "$dir/out")"
	fi
done
ended() { ! kill -0 "$run" 2>/dev/null; }
# The VM cannot go on without these.
ends_with() {
	poke "$1"
	if wait_for 10 ended; then
		wait "$run"
		status=$?
		run=
		verdict "the VM ends with $1, status 125" "$([ $status = 125 ] || echo "status $status")"
	else
		not_ok "the VM ends with $1, status 125" 'insula-run still runs'
		kill -KILL "$run" 2>/dev/null
		wait "$run" 2>/dev/null
		run=
	fi
}
ends_with insula-vmm
start_vm 'a VM starts for a command'
ends_with insula-exec

# ---- kill -9 of the supervisor

gone() {
	for p in $pids; do
		state=$(field /proc/"$p"/status State)
		case $state in '' | Z* | X*) ;; *) return 1 ;; esac
	done
}

cat /proc/self/mountinfo >"$dir/mounts.before"
start_vm 'a VM starts again'
pids=$(children)
kill -KILL "$run"
if wait_for 1 gone; then ok 'kill -9 of insula-run: no process is left after a second'; else
	not_ok 'kill -9 of insula-run: no process is left after a second' "$(for p in $pids; do program "$p"; done | tr '\n' ' ')"
fi
wait "$run" 2>/dev/null
run=
cat /proc/self/mountinfo >"$dir/mounts.after"
verdict 'kill -9 of insula-run: no mount is left' "$(diff "$dir/mounts.before" "$dir/mounts.after")"
verdict 'kill -9 of insula-run: no temporary file is left' "$(ls -A "$dir/tmp")"
exit $failed
