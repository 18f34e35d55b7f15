# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
# Shared by tests/container/suite and tests/lab/27-container.sh: containers as records. P is the program, S the share.
P=${P:-$BUILD/libexec/insula/insula-container}
S=/run/insula/share
T=$(mktemp -d)
ALL=$(sed -n "s/^CapEff:.//p" /proc/self/status) # every capability that there is to be had
bad=0
ran=0

if [ -n "${CONTAINER_INSIDE:-}" ]; then
	mount -t tmpfs -o mode=755 tmpfs /run
	mount -t cgroup2 cgroup2 /sys/fs/cgroup || { echo "not ok container - no cgroup2 here"; exit 1; }
	mkdir -p "$S"
fi
finish() {
	local d
	for d in "$S"/*/; do [ ! -d "$d" ] || "$P" delete "$(basename "$d")"; done
	rmdir /sys/fs/cgroup/insula 2>/dev/null
	rm -rf "$T"
}
trap finish EXIT

ok() { echo "ok container/$*"; }
not_ok() {
	echo "not ok container/$1 - ${*:2}"
	for f in "$T/out" "$T/err" "$S/${ID:-none}/status"; do [ ! -s "$f" ] || sed "s|^|#   ${f##*/}: |" "$f" | tail -n 8; done
	bad=1
}

# image DIR: busybox alone
image() {
	if [ ! -d "$T/image" ]; then
		local b=$T/image/bin
		mkdir -p "$b" "$T/image"/{etc,dev,proc,sys,tmp,root,run}
		cp -L "$BUILD/libexec/insula/busybox" "$b/busybox"
		for a in $("$b/busybox" --list); do [ "$a" = busybox ] || ln -s busybox "$b/$a"; done
		printf 'root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n' >"$T/image/etc/passwd"
	fi
	cp -a "$T/image" "$1"
}

# new ID: a container of the usual kind, to which records are added; `go` runs it.
new() {
	ID=$1
	"$P" delete "$ID"
	rm -rf "${S:?}/$ID"
	mkdir -p "$S/$ID"
	image "$S/$ID/rootfs"
	R=$S/$ID/rootfs
	rec "$ID/config" version=1 "id=$ID" "rootfs=$R" ns=mount ns=pid ns=uts ns=ipc ns=cgroup \
		env=PATH=/bin env=A=b cwd=/ \
		mount=/proc mount.type=proc mount.flags=14 \
		mount=/dev mount.type=tmpfs mount.flags=2 mount.data=mode=755,size=65536k \
		mount=/dev/pts mount.type=devpts mount.flags=10 mount.data=newinstance,ptmxmode=0666,mode=0620,gid=5 \
		cap.bounding=a80425fb cap.effective=a80425fb cap.permitted=a80425fb
}
# rec FILE RECORD...: write; add RECORD...: more of the container
rec() { printf '%s\0' "${@:2}" >"$S/$1"; }
add() { printf '%s\0' "$@" >>"$S/$ID/config"; }
args() { for a; do add "arg=$a"; done; }
script() { args sh -c "$1"; }

# go: run the container; its status is in $got, its streams in $T/out and $T/err.
go() {
	got=0
	timeout -k 2 60 "$P" run "$ID" <"${IN:-/dev/null}" >"$T/out" 2>"$T/err" || got=$?
}
start() {
	"$P" run "$ID" </dev/null >"$T/out" 2>"$T/err" &
	pid=$!
	for _ in $(seq 200); do
		[ ! -e "$S/$ID/status" ] || break
		sleep 0.02
	done
}
# is NAME STATUS REGEX: the container's end and its output
is() {
	if [ "$got" != "$2" ]; then
		not_ok "$1" "status $got, expected $2"
	elif [ -n "$3" ] && ! grep -qE -- "$3" "$T/out"; then
		not_ok "$1" "no line of its output matches $3"
	else
		ok "$1"
	fi
}
# failed NAME STATUS REGEX: the status file says why it was not started
failed() {
	if [ "$got" != "$2" ]; then
		not_ok "$1" "status $got, expected $2"
	elif ! grep -qE -- "^failed $2 .*$3" "$S/$ID/status"; then
		not_ok "$1" "the status does not match $3"
	elif [ -e "/sys/fs/cgroup/insula/$ID" ]; then
		not_ok "$1" "its group is left"
	else
		ok "$1"
	fi
}
yes() { if "${@:2}"; then ok "$1"; else not_ok "$1" "not so: ${*:2}"; fi; }
no() { if "${@:2}"; then not_ok "$1" "so: ${*:2}"; else ok "$1"; fi; }
