# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-2-Clause
# Shared by tests/lab/NN-*.sh: one line per case, "ok NAME", "not ok NAME - why" or "skip NAME - why".
# BUILD is the build directory; RUN is insula-run; T is a scratch directory of the test.
set -u
BUILD=$(cd "${BUILD:-build}" && pwd -P)
RUN=$BUILD/bin/insula-run
T=$(mktemp -d "/tmp/${0##*/}.XXXXXX")
insulad=
trap 'insulad_down; rm -rf "$T"' EXIT

ok() { echo "ok $*"; }
skip() { echo "skip $1 - ${*:2}"; }
not_ok() {
	local why=${*:2}
	echo "not ok $1 - ${why//$'\n'/ | }"
	[ ! -s "$T/out" ] || sed 's/^/#   /' "$T/out" | tail -n 15
}

# short A B: A, or B with CHECK_LONG=1
short() { if [ -z "${CHECK_LONG:-}" ]; then echo "$1"; else echo "$2"; fi; }

# same NAME WANT GOT
same() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected '$2', got '$3'"; fi; }

# expect NAME STATUS REGEX COMMAND...: both streams together must match REGEX ('' for any). IN is the input (/dev/null).
expect() {
	local name=$1 want=$2 regex=$3 got=0
	shift 3
	timeout -k 2 "${LIMIT:-180}" "$@" <"${IN:-/dev/null}" >"$T/out" 2>&1 || got=$?
	if [ "$got" != "$want" ]; then
		not_ok "$name" "status $got, expected $want"
	elif [ -n "$regex" ] && ! grep -qE -- "$regex" "$T/out"; then
		not_ok "$name" "no line matches $regex"
	else
		ok "$name"
	fi
}

# also NAME REGEX: one more thing about the output of the last command.
also() {
	if grep -qE -- "$2" "$T/out"; then ok "$1"; else not_ok "$1" "no line matches $2"; fi
}

# guest VM COMMAND: what it says, both streams; of a VM of insulad
guest() { timeout 120 "$CTL" exec "$1" -- sh -c "$2" </dev/null 2>&1; }
# process VM NAME: of a VM of insulad the id of one of its processes, such as "insula-blk vda". Asked again and again, so it is not python's: that
# costs half a second here.
process() {
	"$CTL" info "$1" | awk -v RS='{' -v "name=\"name\":\"$2" 'index($0, name "\"") == 1 || index($0, name " ") == 1 {
		if (match($0, /"pid":[0-9]+/)) { print substr($0, RSTART + 6, RLENGTH - 6); exit } }' 2>/dev/null
}
# shoot VM NAME: kill it, and wait for its successor
shoot() {
	local old new=''
	old=$(process "$1" "$2")
	[ -n "$old" ] && kill -9 "$old" || { not_ok "shoot $2" "there is none"; return 1; }
	for _ in $(seq 150); do
		new=$(process "$1" "$2")
		[ -z "$new" ] || [ "$new" = "$old" ] || return 0
		sleep 0.1
	done
	not_ok "shoot $2" "no other process"
}
# fio_loads ROOT: programs of a guest that has fio and busybox' basename, cat, seq, sleep and touch.
# find_disk SERIAL: its name, when it is there. load SERIAL: writes, flushes and compares until `enough SERIAL` says what came of it
fio_loads() {
	cat >"$1/bin/find_disk" <<'JOB'
#!/bin/sh
for i in $(seq 100); do
	for d in /sys/block/vd*; do
		[ "$(cat $d/serial 2>/dev/null)" = "$1" ] && [ -b /dev/${d##*/} ] && { echo ${d##*/}; exit 0; }
	done
	sleep 0.1
done
echo none; exit 1
JOB
	cat >"$1/bin/load" <<'JOB'
#!/bin/sh
n=0
d=$(find_disk $1)
rm -f /tmp/enough.$1 /tmp/result.$1
while [ ! -e /tmp/enough.$1 ]; do
	fio --name=load --filename=/dev/$d --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=4k --size=2M --fsync=32 --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --randseed=$n --eta=never >/tmp/fio.$1 2>&1 || { echo "fio $?" >/tmp/result.$1; exit 1; }
	n=$((n + 1))
done
echo "right $n" >/tmp/result.$1
JOB
	cat >"$1/bin/enough" <<'JOB'
#!/bin/sh
touch /tmp/enough.$1
for i in $(seq 900); do [ -e /tmp/result.$1 ] && break; sleep 0.1; done
cat /tmp/result.$1
JOB
	chmod 755 "$1/bin/"{find_disk,load,enough}
}
# no_oops VM NAME: the guest's kernel has not complained since it runs init. I/O errors of a disk that was pulled out are its due.
no_oops() {
	local bad
	guest "$1" dmesg >"$T/out"
	bad=$(sed '1,/Run \/init/d' "$T/out" | grep -iE 'lockup|rcu.*stall|BUG:|Oops|WARNING:|general protection|Call Trace|pciehp.*(fail|timeout|error|cannot)' | head -n 2)
	if grep -q 'Linux version' "$T/out" && [ -z "$bad" ]; then ok "$2"; else not_ok "$2" "${bad:-no dmesg}"; fi
}
# driver FUNCTION: which the host has for it; "" none
devices=/sys/bus/pci/devices
driver() { basename "$(readlink "$devices/$1/driver" 2>/dev/null)" 2>/dev/null; }
# has_back NAME FUNCTION DRIVER: it is the host's again, soon
has_back() {
	for _ in $(seq 100); do
		[ "$(driver "$2")" != "$3" ] || break
		sleep 0.1
	done
	same "$1" "$3 (null)" "$(driver "$2") $(cat "$devices/$2/driver_override")"
}
# nothing_locked_up: $T/out has a guest's dmesg, from its first line on
nothing_locked_up() {
	local bad
	bad=$(grep -iE 'lockup|rcu.*stall|hung task|BUG:|I/O error' "$T/out" | head -n 1)
	if [ -n "$bad" ]; then
		not_ok nothing-locked-up "$bad"
	elif grep -q 'Linux version' "$T/out"; then
		ok nothing-locked-up
	else
		not_ok nothing-locked-up "no dmesg: $(head -n 1 "$T/out")"
	fi
}

# apt_of RELEASE: sets apt, an array, the options with which apt-get and apt-cache know the main archive of that Debian release, and nothing of
# this machine's apt but how it connects. With it something is fetched for a test, on this machine and not in the lab.
apt_of() {
	local archive dir=$T/apt-$1
	# shellcheck disable=SC2016
	archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' | head -n 1)
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $1 main" >"$dir/sources.list"
	apt=(-qq -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$dir/lists"
		-o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none)
	[ -s "$dir/updated" ] || { apt-get "${apt[@]}" update && echo 1 >"$dir/updated"; }
}
# member NAME: of the JSON object on standard input; a.b.0: of what is in it
member() { python3 -c 'import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("."):
    v = v[int(k)] if isinstance(v, list) else v.get(k)
print(v)' "$1" 2>/dev/null; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# insulad_up [MEMBER...]: start an insulad, with these members of its configuration beside the places in $T ('"cgroup": "off"'), and wait until it
# answers. Its process id is $insulad, $T/log is what it says. INSULAD: another program than the one that was built; GROUP: the directory of the
# control group that it starts in; INSULAD_AS: an array, the words before it. The caller has set CTL, insulactl, and exported INSULA_SOCKET=$T/s.
insulad_up() {
	local before=(${INSULAD_AS[@]+"${INSULAD_AS[@]}"})
	# shellcheck disable=SC2016
	[ -z "${GROUP:-}" ] || before=(sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' - "$GROUP" "${before[@]}")
	printf '{"socket": "%s", "state_dir": "%s"%s}' "$T/s" "$T/state" "${*/#/, }" >"$T/conf"
	"${before[@]}" "${INSULAD:-$BUILD/bin/insulad}" --config "$T/conf" >>"$T/log" 2>&1 </dev/null &
	insulad=$!
	for _ in $(seq 600); do
		! "$CTL" info >/dev/null 2>&1 || return 0
		sleep 0.05
	done
	not_ok insulad "$(tail -n 3 "$T/log")"
	exit 1
}
# insulad_down: kill its VMs and end it; its status. Nothing, if there is none.
insulad_down() {
	local pid=$insulad
	[ -n "$pid" ] || return 0
	# shellcheck disable=SC2046
	"$CTL" kill $("$CTL" ps -q 2>/dev/null) >/dev/null 2>&1 || true # there may be none
	insulad=
	kill "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null
}
# group NAME: the directory of a VM's control group
group() { echo "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$("$CTL" info "$1" | member pid)/cgroup")"; }

# For suites of vsock, whose guests have vsockpeer: bytes of a transfer without an end, and of a whole one; any CID.
ENDLESS=4000000000 LARGE=4000000 ANY=4294967295
# bulk_script: the end of a guest's script: an endless transfer from the host's port 80 for each of $KILLS, then a whole one from 81
bulk_script() {
	cat <<END
i=0
while [ \$i -lt $KILLS ]; do
	vsockpeer fetch vsock:2:80 $ENDLESS 13
	echo "bulk-to-guest \$?"
	i=\$((i + 1))
done
vsockpeer fetch vsock:2:81 $LARGE 14 && echo bulk-to-guest-whole
vsockpeer accept vsock:$ANY:92
echo end-of-script
poweroff -f
END
}
# kernel_workers: the ids of vhost's, which are threads of a helper from Linux 6.4 on
kernel_workers() { grep -lE '^vhost-[0-9]+$' /proc/[0-9]*/task/[0-9]*/comm 2>/dev/null | cut -d/ -f5 | sort -u; }
# nothing_in_the_kernel GROUP...: none of those is left, nor one of these groups
nothing_in_the_kernel() {
	local g
	for _ in $(seq 100); do
		[ -n "$(kernel_workers)" ] || ls -d "$@" >/dev/null 2>&1 || break
		sleep 0.1
	done
	same no-worker-left '' "$(kernel_workers)"
	for g in "$@"; do
		[ ! -d "$g" ] && ok no-group-left || not_ok no-group-left "$g: $(cat "$g/cgroup.threads" 2>&1 | tr '\n' ' ')"
	done
}

# host_tap: tap0, on which this side is 192.0.2.1/24. An earlier suite in this machine may have left one.
host_tap() {
	modprobe tun 2>/dev/null
	ip link del tap0 2>/dev/null
	ip tuntap add tap0 mode tap
	ip addr add 192.0.2.1/24 dev tap0
	ip link set tap0 up
}

# root_program DIR PROGRAM...: put programs of this machine, and the libraries that they load, below DIR
root_program() {
	local root=$1 p f
	shift
	for p; do
		command -v "$p" >/dev/null || { not_ok "$p" "not installed"; exit 1; }
		for f in $(command -v "$p") $(ldd "$(command -v "$p")" | grep -oE '/[^ ]+'); do
			install -D "$(realpath "$f")" "$root$f"
		done
	done
}

# archive: $T/sources.list and $T/apt.conf for mmdebstrap: Debian 12's archive, and how to reach it, as apt's configuration has them here
archive() {
	local twice
	for twice in first again; do
		# shellcheck disable=SC2016
		apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
			sed -n 's/^Debian|Debian\(-Security\)\{0,1\}|\(bookworm[a-z-]*\)|main|\(.*\)$/deb \3 \2 main/p' | sort -u >"$T/sources.list"
		! grep -q ' bookworm main' "$T/sources.list" || break
		[ $twice = first ] || return 1
		apt-get -q update >"$T/out" 2>&1
	done
	apt-config dump | grep -E '^Acquire::(Check-|Retries|ForceIPv|[a-z]+::(Proxy|Timeout|Verify))' >"$T/apt.conf"
}

# A root file system of busybox alone, in the directory $1.
make_root() {
	mkdir -p "$1"/{bin,etc,sbin,proc,sys,dev,run,tmp,root}
	cp -L "$BUILD/libexec/insula/busybox" "$1/bin/busybox"
	local a
	for a in sh cat ls echo mount sync touch rm id poweroff grep dd; do
		ln -s busybox "$1/bin/$a"
	done
	echo "this is the root" >"$1/etc/marker"
}

# OCI_TEMPLATE=1: containers of docker and containerd start from templates, made by `oci_templates ARGUMENTS...`. from_templates says whether
# each of them did. OCI is the runtime: what it has said to its caller's log is kept.
oci_templates() {
	local make
	OCI=$BUILD/bin/insula-oci
	[ -n "${OCI_TEMPLATE:-}" ] || return 0
	modprobe tun
	for make; do
		# shellcheck disable=SC2086
		expect "template${make// /}" 0 '' "$OCI" template make $make
	done
	cat >"$T/oci" <<-SCRIPT
		#!/bin/bash
		for ((i = 1; i <= \$#; i++)); do
			[ "\${!i}" != --log ] || { i=\$((i + 1)); log=\${!i}; }
		done
		"$OCI" --debug "\$@"
		status=\$?
		cat "\$log" >>"$T/oci.log" 2>/dev/null
		exit \$status
	SCRIPT
	chmod 755 "$T/oci"
	OCI=$T/oci
}
from_templates() {
	[ -n "${OCI_TEMPLATE:-}" ] || return 0
	cp "$T/oci.log" "$T/out"
	also from-templates 'template: the VM goes on from'
	same none-booted '' "$(grep -o 'template: [^"]*the VM boots' "$T/oci.log" | sort -u)"
}

# Open vSwitch, with its database where it has it by itself: to be stopped by `kill $ovs`
ovs_up() {
	local run=/run/openvswitch
	mkdir -p $run
	modprobe -a tun openvswitch
	ovsdb-tool create $run/conf.db /usr/share/openvswitch/vswitch.ovsschema
	ovsdb-server $run/conf.db --remote=punix:$run/db.sock --unixctl=$run/db.ctl >"$T/ovs-db.log" 2>&1 &
	ovs=$!
	until [ -S $run/db.sock ]; do sleep 0.1; done
	ovs-vsctl --no-wait --timeout=20 init
	ovs-vswitchd unix:$run/db.sock --unixctl=$run/sw.ctl >"$T/ovs-switch.log" 2>&1 &
	ovs="$ovs $!"
}

# Run as an ordinary user who may open /dev/kvm: for_user; "${AS_USER[@]}" "$RUN" ...
mkdir -p "$T/home" && chmod 755 "$T" && chown 1000:1000 "$T/home"
AS_USER=(env "HOME=$T/home" USER=lab setpriv --reuid 1000 --regid 1000 --groups "$(stat -c %g /dev/kvm 2>/dev/null || echo 0)" --inh-caps=-all)

# A clone may lie where root alone may look: BUILD and RUN are then those of a copy that everybody reads.
for_user() {
	! "${AS_USER[@]}" test -r "$BUILD/bin/insula-run" || return 0
	mkdir "$T/build"
	cp -a "$BUILD"/{bin,libexec,guest,guests} "$T/build"
	BUILD=$T/build RUN=$T/build/bin/insula-run
}
