# SPDX-License-Identifier: BSD-2-Clause
# Shared by the benchmarks. Rows: NAME, our median, the peer's median, ratio, what it should reach.
# shellcheck shell=bash
now_ns() { date +%s%N; }

median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

head_row() { printf '%-44s %12s %12s %7s  %s\n' "$1" ours peer ratio target; }

# row NAME OURS PEER TARGET [UNIT]: the ratio is ours / peer
row() {
	awk -v n="$1" -v a="$2" -v b="$3" -v t="$4" -v u="${5:-}" 'BEGIN {
		printf "%-44s %12s %12s %7s  %s\n", n, sprintf("%.4g%s", a, u), sprintf("%.4g%s", b, u), b ? sprintf("%.2f", a / b) : "-", t }'
}

# alone NAME VALUE TARGET [UNIT]: a figure without a peer
alone() { awk -v n="$1" -v a="$2" -v t="$3" -v u="${4:-}" 'BEGIN { printf "%-44s %12s %12s %7s  %s\n", n, sprintf("%.4g%s", a, u), "", "", t }'; }

json() { python3 -c 'import json,sys
v = json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."):
    v = v[int(k)] if isinstance(v, list) else v[k]
print(v)' "$1" "$2"; }

# bench_initrd OUT SCRIPT MODULE...: an initrd of a static busybox, these modules with what they depend on, and an init of our own that loads
# them and runs SCRIPT. One for us and the peers: insula-init would not do, because QEMU's q35 in the lab gives TR another type, for which TCG
# refuses port access from user space.
bench_initrd() {
	local out=$1 script=$2 kernel version i m
	shift 2
	kernel=$(echo "$BUILD"/guest/boot/vmlinuz-*)
	version=${kernel##*/vmlinuz-}
	i=$(mktemp -d)
	mkdir -p "$i"/{bin,dev,proc,sys,mnt,m}
	cp -L "$BUILD/libexec/insula/busybox" "$i/bin/busybox"
	for m; do
		modprobe -d "$BUILD/guest" -S "$version" --show-depends "$m"
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r m; do
		cp "$m" "$i/m/"
		echo "insmod /m/${m##*/}"
	done >"$i/modules"
	cat >"$i/init" <<-INIT
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		mount -t proc proc /proc
		mount -t sysfs sys /sys
		mount -t devtmpfs dev /dev
		. /modules
		$script
		poweroff -f
	INIT
	chmod 755 "$i/init"
	(cd "$i" && find . | LC_ALL=C sort | cpio -o -H newc --quiet) >"$out"
	rm -rf "$i"
}
# bench_root DEVICE: for bench_initrd, run /bin/job below the file system there
bench_root() { echo "mount -t ext4 -o ro $1 /mnt; mount -t devtmpfs dev /mnt/dev; mount -t proc proc /mnt/proc; mount -t tmpfs tmp /mnt/tmp; chroot /mnt /bin/job"; }

# bench_fio: the begin of a shell script for a guest: `one NAME FIGURE LONGEST FIO-ARGUMENTS` runs fio on $dev and prints "NAME NUMBER"
bench_fio() {
	cat <<'JOB'
#!/bin/sh
# Terse fields: 7 and 48 KiB/s, 8 IOPS; 15 and 56 the longest request in us, and the mean behind it.
one() { # NAME FIGURE LONGEST FIO-ARGUMENTS
	name=$1 figure=$2 at=$3
	shift 3
	line=$(timeout -s KILL 12 fio --output-format=terse --filename="$dev" --direct=1 --ioengine=libaio --time_based --runtime=2 --ramp_time=0.5 \
		--size=256M --name=x "$@" | grep -E '^[0-9]+;') || line=
	longest=$(echo "$line" | cut -d';' -f$at | cut -d. -f1)
	mean=$(echo "$line" | cut -d';' -f$((at + 1)) | cut -d. -f1)
	if [ -z "$line" ]; then
		echo "the disk stood still: $name did not end"
	elif [ "$longest" -gt 500000 ] && [ "$longest" -gt $((10 * mean)) ]; then
		echo "the disk stood still: $name waited $longest us for a request, $mean us for most"
	else
		echo "$name $(echo "$line" | cut -d';' -f"$figure")"
	fi
}
JOB
}

# bounded COMMAND...: a VM that hangs does not hold a bench up. Several times what any boot with its measurements takes.
bounded() { timeout -k 5 "${BOOT_SECONDS:-180}" "$@"; }

# measured FILE N COMMAND...: append the N lines "NAME NUMBER" that it must print. A run without all of them is no run: it says what it printed.
measured() {
	local file=$1 n=$2
	shift 2
	"$@" </dev/null 2>&1 | tr -d '\r' >"$file.log"
	if [ "$(grep -cE '^[a-z]+ [0-9.]+$' "$file.log")" != "$n" ]; then
		echo "${file##*/}: expected $n figures; the last lines were:"
		tail -n 15 "$file.log"
		return 1
	fi
	grep -E '^[a-z]+ [0-9.]+$' "$file.log" >>"$file"
}

# timed NAME COMMAND...: milliseconds of one run, appended to $T/NAME; it has to end well
timed() {
	local name=$1 t0
	shift
	t0=$(now_ns)
	"$@" </dev/null >"$T/out" 2>&1 || { echo "$name: status $?: $(tail -n 2 "$T/out")"; exit 1; }
	echo $((($(now_ns) - t0) / 1000000)) >>"$T/$name"
}

# own_pss PID...: KiB of these processes, without the guest's memory
own_pss() {
	local p n=0
	for p; do
		n=$((n + $(awk '/^[0-9a-f]+-/ { guest = /insula-guest/ } /^Pss:/ && !guest { n += $2 } END { print n + 0 }' "/proc/$p/smaps")))
	done
	echo "$n"
}
PATH=$PATH:/usr/sbin:/sbin
