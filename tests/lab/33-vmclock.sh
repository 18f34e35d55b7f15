#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What a guest's programs see in the VMClock, with a kernel that has its driver (33-vmclock.host has fetched one): other numbers after a restore
# and in a clone, the old ones in the VM that was cloned, and those of two clones differ.
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
make_root "$T/root"
for a in dd hexdump; do ln -sf busybox "$T/root/bin/$a"; done
cat >"$T/root/bin/look" <<'JOB'
#!/bin/sh
# magic, version, counter, status; sequence; disruption marker; generation
dd if=/dev/vmclock0 of=/tmp/page bs=4096 count=1 2>/dev/null || exit 1
hexdump -v -n 12 -e '1/4 "%08x " 1/4 "%08x " 1/2 "%04x " 1/1 "%02x " 1/1 "%02x\n"' /tmp/page
for at in 12:4 16:8 104:8; do hexdump -v -s ${at%:*} -n ${at#*:} -e '1/1 "%02x"' /tmp/page; echo; done
JOB
chmod 755 "$T/root/bin/look"

# look VM: into $T/VM; of another VM its lines differ
look() {
	guest "$1" look >"$T/$1"
	[ "$(wc -l <"$T/$1")" = 4 ]
}
marks() { sed -n '3,4p' "$T/$1"; }
differ() { # NAME VM VM: each of the two numbers
	same "$1" 4 "$(cat <(marks "$2") <(marks "$3") | sort -u | wc -l)"
}

insulad_up '"cgroup": "off"'
# noxsave: the lab's processor says one size of the XSAVE area and has another one, which kernels from 6.17 on do not survive.
expect starts 0 '' "$CTL" run -d --name one --mem 256M --kernel "$BUILD/kernels/13-backports/vmlinuz" --append noxsave --rootfs "$T/root" --
if look one; then ok has-a-clock; else not_ok has-a-clock "$(cat "$T/one")"; fi
same as-linux-has-it '4b4c4356 00001000 0001 ff 00' "$(head -n 1 "$T/one")"
expect cloned 0 '' "$CTL" clone --name two one
expect cloned-again 0 '' "$CTL" clone --name three one
cp "$T/one" "$T/before"
for vm in one two three; do
	if look $vm; then ok $vm-has-it; else not_ok $vm-has-it "$(cat "$T/$vm")"; fi
done
same source-keeps-its-own "$(cat "$T/before")" "$(cat "$T/one")"
differ clone-has-others one two
differ clones-differ two three
expect saved 0 '' "$CTL" snapshot --stop one "$T/snap"
expect restored 0 '' "$CTL" run -d --name four --restore "$T/snap" --
if look four; then ok four-has-it; else not_ok four-has-it "$(cat "$T/four")"; fi
differ restored-has-others one four
same not-amid-a-change 0 "$(($(sed -n 2p "$T/four" | sed 's/^\(..\).*/0x\1/') % 2))"
insulad_down
