#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A Debian kernel that is saved and goes on, again and again: with a disk under fio --verify and an open stream of a command. Its uptime goes
# on, its clock is right, nothing has locked up, not one byte of the disk is wrong, and it is the machine that it was. Then machines of their own
# that go on from one snapshot at once: whatever makes a machine one of its own differs between them, and each serves what it served.
#
# SNAPSHOT_RUNS (2; CHECK_LONG=1: 3): how often; 50 is the long run.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
RUNS=${SNAPSHOT_RUNS:-$(short 2 3)}
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
make_root "$T/root"
root_program "$T/root" fio
echo 0123456789abcdef0123456789abcdef >"$T/root/etc/machine-id"
for a in cut date dmesg hostname kill setsid sleep; do
	ln -sf busybox "$T/root/bin/$a"
done
truncate -s 64M "$T/disk.img"
# Each pass writes all of 4 MiB and reads it back; it goes on until there is /tmp/enough.
cat >"$T/root/bin/load" <<'JOB'
#!/bin/sh
n=0
while [ ! -e /tmp/enough ]; do
	fio --name=load --filename=/dev/vda --direct=1 --ioengine=psync --rw=randwrite --bs=4k --size=4M --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --randseed=$n --eta=never >/tmp/fio.out 2>&1 || { echo "fio $?" >/tmp/result; exit 1; }
	n=$((n + 1))
done
echo "right $n" >/tmp/result
JOB
chmod 755 "$T/root/bin/load"

insulad_up '"cgroup": "off"'
expect starts 0 '' "$CTL" run -d --name v0 --mem 256M --rootfs "$T/root" --disk "$T/disk.img" --
guest v0 'echo mark-77 >/tmp/mark; setsid load >/dev/null 2>&1 & sleep 1; echo begun' >"$T/out"
also load-begins begun
timeout 120 "$CTL" exec v0 -- sh -c 'echo open; sleep 100' >"$T/stream" 2>&1 </dev/null &
stream=$!
for _ in $(seq 100); do
	! grep -q open "$T/stream" || break
	sleep 0.2
done
failed=''
for i in $(seq "$RUNS"); do
	old=v$((i - 1)) new=v$i
	up=$(guest "$old" 'cut -d. -f1 /proc/uptime')
	if ! timeout 120 "$CTL" snapshot --stop "$old" "$T/snap$i" >"$T/out" 2>&1; then
		failed="snapshot $i: $(tail -n 1 "$T/out")"
		break
	fi
	"$CTL" rm -f "$old" >/dev/null 2>&1
	if ! timeout 120 "$CTL" run -d --name "$new" --restore "$T/snap$i" -- >"$T/out" 2>&1; then
		failed="restore $i: $(tail -n 1 "$T/out")"
		break
	fi
	"$CTL" resume --set-clock "$new" >/dev/null 2>&1
	said=$(guest "$new" 'cat /tmp/mark; cut -d. -f1 /proc/uptime; date +%s; hostname; cat /etc/machine-id')
	now=$(date +%s)
	# shellcheck disable=SC2086
	set -- $said
	if [ $# != 5 ] || [ "$1" != mark-77 ]; then
		failed="restore $i: the guest says '$said'; $("$CTL" logs "$new" 2>&1 | tail -n 2)"
	elif [ "$2" -lt "$up" ] || [ "$2" -gt $((up + 60)) ]; then
		failed="restore $i: uptime $up, then $2"
	elif [ $((now - $3)) -gt 5 ] || [ $(($3 - now)) -gt 5 ]; then
		failed="restore $i: its clock is $3, ours $now"
	elif [ "$4 $5" != 'insula 0123456789abcdef0123456789abcdef' ]; then
		failed="restore $i: it is another machine, $4 $5"
	fi
	[ -z "$failed" ] || break
	# Lazy memory: what it is restored from is needed until all of it is there.
	[ "$i" -lt 3 ] || rm -rf "$T/snap$((i - 2))"
done
last=v$i
if [ -z "$failed" ]; then ok "saved-and-restored-$RUNS-times"; else not_ok "saved-and-restored-$RUNS-times" "$failed"; fi
if timeout 30 tail --pid=$stream -f /dev/null && ! wait $stream; then
	ok open-stream-ends
else
	not_ok open-stream-ends "the command's stream of before the snapshot is still there, or says that all was well"
fi
guest "$last" 'touch /tmp/enough; for i in $(seq 60); do [ -e /tmp/result ] && break; sleep 1; done; cat /tmp/result /tmp/fio.out' >"$T/out"
also disk-is-right '^right [0-9]+'
guest "$last" 'dmesg' >"$T/out"
nothing_locked_up
expect stops 0 '' "$CTL" stop -t 20 "$last"

# ---- machines of their own ----

CLONES=4
for p in curl ip; do
	command -v $p >/dev/null || { not_ok $p "not installed"; exit 1; }
done
modprobe tun 2>/dev/null
for i in $(seq 0 $((CLONES + 1))); do
	ip tuntap add "t$i" mode tap
	ip link set "t$i" up
done
for i in $(seq $CLONES); do
	ip addr add "198.51.100.$((16 * i + 1))/28" dev "t$i"
done
make_root "$T/root2"
echo 0123456789abcdef0123456789abcdef >"$T/root2/etc/machine-id"
mkdir -p "$T/root2/www" "$T/root2/etc/insula/resume.d"
echo served-88 >"$T/root2/www/page"
printf '#!/bin/sh\nenv | grep ^INSULA_ >/run/hook\n' >"$T/root2/etc/insula/resume.d/10-note"
# One line for each thing in which two machines differ.
cat >"$T/root2/bin/identity" <<'SAY'
#!/bin/sh
echo "uuid $(cat /proc/sys/kernel/random/uuid)"
echo "urandom $(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')"
! command -v openssl >/dev/null || echo "openssl $(openssl rand -hex 16)"
echo "machine-id $(cat /etc/machine-id)"
echo "hostname $(hostname)"
echo "mac $(cat /sys/class/net/eth0/address)"
echo "address $(ip -4 addr show eth0 | grep -o 'inet [0-9./]*')"
for i in $(seq 30); do grep -q eth0 /proc/net/if_inet6 && break; sleep 1; done # Linux gives it when it has seen the link
echo "address6 $(grep eth0 /proc/net/if_inet6 | cut -c1-32)"
[ ! -e /run/hook ] || cat /run/hook
SAY
chmod 755 "$T/root2/bin/identity" "$T/root2/etc/insula/resume.d/10-note"
for a in cut env grep head hostname httpd ip od seq sleep tr; do
	ln -sf busybox "$T/root2/bin/$a"
done
! command -v openssl >/dev/null || root_program "$T/root2" openssl
expect source-starts 0 '' "$CTL" run -d --name source --hostname first --mem 160M --rootfs "$T/root2" \
	--net tap=t0,mac=52:54:00:00:07:01,ip=192.0.2.10/24 --
guest source 'httpd -p 80 -h /www; identity' >"$T/source"
cp "$T/source" "$T/out"
also source-is-itself '^hostname first$'
also source-has-an-address '^address6 fe80000000000000505400fffe000701$'
# A command with an open stream: in the source it goes on; whoever goes on from here has lost the other end, and hangs up.
timeout 120 "$CTL" exec source -- sh -c 'exec 2>/dev/null; trap "echo gone >/run/gone; exit" HUP; echo begun >/run/begun; while :; do sleep 1; done' >"$T/stream" 2>&1 </dev/null &
stream=$!
guest source 'for i in $(seq 30); do [ -e /run/begun ] && break; sleep 1; done; cat /run/begun' >"$T/out"
also stream-is-open '^begun$'
expect template 0 '' timeout 120 "$CTL" snapshot source "$T/template"
image() { echo "$(sha256sum <"$T/template/memory") $(stat -c '%i %s' "$T/template/memory")"; }
before=$(image)
jobs=''
for i in $(seq $CLONES); do
	timeout 120 "$CTL" run -d --name "c$i" --restore "$T/template" --identity new --net "tap=t$i,ip=198.51.100.$((16 * i + 2))/28" -- >"$T/run$i" 2>&1 &
	jobs="$jobs $!"
done
# shellcheck disable=SC2086
wait $jobs
jobs=''
for i in $(seq $CLONES); do
	guest "c$i" identity >"$T/who$i" &
	jobs="$jobs $!"
done
# shellcheck disable=SC2086
wait $jobs
for what in uuid urandom openssl machine-id hostname mac address address6; do
	[ $what != openssl ] || grep -q ^openssl "$T/source" || continue
	cat "$T/source" "$T"/who[0-9] | grep "^$what ." >"$T/out"
	same "differs-$what" $((CLONES + 1)) "$(sort -u "$T/out" | wc -l)"
done
names='' pages='' wrong=''
for i in $(seq $CLONES); do
	names="$names $(sed -n 's/^hostname //p' "$T/who$i")"
	pages="$pages $(curl -sS -m 20 "http://198.51.100.$((16 * i + 2))/page" 2>&1)"
	for line in "INSULA_VM=c$i" "INSULA_HOSTNAME=c$i" "INSULA_MACHINE_ID=$(sed -n 's/^machine-id //p' "$T/who$i")" \
		"INSULA_CARDS=52:54:00:00:07:01,$(sed -n 's/^mac //p' "$T/who$i"),ip=198.51.100.$((16 * i + 2))/28"; do
		grep -qxF "$line" "$T/who$i" || wrong="$wrong c$i: no $line;"
	done
done
same named-as-the-vm ' c1 c2 c3 c4' "$names"
same each-serves ' served-88 served-88 served-88 served-88' "$pages"
same hooks-know "" "$wrong"
# Of a clone that has its card on another TAP nothing but the card's own address is new; it is the source's in all else.
timeout 120 "$CTL" rpc vm.clone '{"id": "source", "name": "clone", "place": "'"$T"'", "config": {"nets": ["tap=t5,ip=192.0.2.10/24"]}}' >"$T/out" 2>&1
also clone '"running"'
guest clone identity >"$T/who"
cp "$T/who" "$T/out"
also clone-name '^hostname clone$'
also clone-address '^address inet 192.0.2.10/24'
for what in uuid urandom machine-id mac address6; do
	cat "$T/source" "$T/who" "$T"/who[0-9] | grep "^$what ." >"$T/out"
	same "clone-differs-$what" $((CLONES + 2)) "$(sort -u "$T/out" | wc -l)"
done
guest source identity | grep -E '^(hostname|machine-id|mac|address)' >"$T/out"
same source-is-as-it-was "$(grep -E '^(hostname|machine-id|mac|address)' "$T/source")" "$(cat "$T/out")"
guest c1 'for i in $(seq 30); do [ -e /run/gone ] && break; sleep 1; done; cat /run/gone' >"$T/out"
also stream-ends-in-a-clone '^gone$'
guest source 'cat /run/gone /run/begun' >"$T/out"
same stream-goes-on-in-the-source begun "$(grep -x -e gone -e begun "$T/out")"
kill $stream
expect clones-stop 0 '' "$CTL" rm -f source c1 c2 c3 c4 clone
same template-is-as-it-was "$before" "$(image)"
