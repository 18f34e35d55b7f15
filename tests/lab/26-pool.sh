#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A pool of a Debian kernel's VMs: what a guest knows of itself when it is taken, its clock, its random numbers, its hooks; and commands.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
make_root "$T/root"
for a in cut date dmesg od sleep uname; do
	ln -sf busybox "$T/root/bin/$a"
done
mkdir -p "$T/root/etc/insula/resume.d"
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$1 $INSULA_VM" >>/tmp/resumed\n' >"$T/root/etc/insula/resume.d/10-told"
chmod 755 "$T/root/etc/insula/resume.d/10-told"
insulad_up '"cgroup": "off"'
# full NAME COUNT: they stand
full() {
	for _ in $(seq 240); do
		[ "$("$CTL" pool info "$1" 2>/dev/null | member standing)" != "$2" ] || return 0
		sleep 0.5
	done
	"$CTL" pool info "$1" >"$T/out" 2>&1
	return 1
}
expect starts 0 '' "$CTL" run -d --name source --mem 256M --rootfs "$T/root" --
guest source 'echo mark-77 >/tmp/mark' >"$T/out"
expect snapshot 0 '' "$CTL" snapshot --stop source "$T/snap"
expect pool-create 0 '' "$CTL" pool create p -n 2 --restore "$T/snap"
if full p 2; then ok pool-fills; else not_ok pool-fills "see below"; fi
sleep 8 # the guests' clocks are wrong by so much when they are taken
seen=''
for vm in one two; do
	expect "take-$vm" 0 '' "$CTL" run -d --pool p --name $vm
	before=$(date +%s)
	guest $vm 'cat /tmp/mark; date +%s; cat /tmp/resumed; echo "I am $(uname -n)"; od -An -tx1 -N16 /dev/urandom' >"$T/out"
	now=$(date +%s) then=$(sed -n 2p "$T/out")
	also "$vm-has-the-memory" '^mark-77$'
	also "$vm-hooks" "^resumed $vm\$"
	also "$vm-host-name" "^I am $vm\$"
	same "$vm-hooks-once" 1 "$(grep -c '^resumed' "$T/out")"
	if [ "$then" -ge $((before - 5)) ] && [ "$then" -le $((now + 5)) ]; then ok "$vm-clock"; else not_ok "$vm-clock" "$then, and ours is $before to $now"; fi
	seen+="$(tail -n 1 "$T/out")"$'\n'
done
same random-numbers-differ 2 "$(printf %s "$seen" | grep -E '([0-9a-f]{2} ){15}' | sort -u | grep -c .)"
if full p 2; then ok pool-fills-again; else not_ok pool-fills-again "see below"; fi
kill -9 "$insulad"
wait "$insulad" 2>/dev/null
insulad_up '"cgroup": "off"'
expect take-after-a-restart 0 '' "$CTL" run -d --pool p --name three
guest three 'cat /tmp/mark; dmesg' >"$T/out"
also three-has-the-memory '^mark-77$'
nothing_locked_up
# One that stands without a pool.
expect stands-alone 0 '' "$CTL" run -d --name alone --restore "$T/snap" --identity new --paused --
expect goes-on 0 '' "$CTL" resume alone
guest alone 'cat /tmp/resumed; echo "I am $(uname -n)"' >"$T/out"
also alone-hooks '^resumed alone$'
also alone-host-name '^I am alone$'
# Each VM of this one runs a command when it is taken.
# shellcheck disable=SC2016
expect pool-with-a-command 0 '' "$CTL" pool create c -n 1 --restore "$T/snap" -- sh -c 'cat /tmp/mark; echo "in $(cat /tmp/resumed)"; exit 7'
if full c 1; then ok its-pool-fills; else not_ok its-pool-fills "see below"; fi
expect its-command-runs 7 '^mark-77' "$CTL" run --rm --pool c --name four
also its-command-runs-after-the-hooks '^in resumed four'
for p in p c; do
	expect "pool-rm-$p" 0 '' "$CTL" pool rm $p
done
for vm in one two three alone; do
	expect "stops-$vm" 0 '' "$CTL" stop -t 20 $vm
done
same nothing-is-left '' "$("$CTL" ps -q)$(ls "$T/state/pool")"
