#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# From nothing to a guest: in the minimal Debian 12 that 79-fresh.host has made and in which the package and a kernel are, every line
# of README's tour works, as a user or as root. Its root is this test's by pivot_root: a chrooted process may not make a user namespace.
. "$(dirname "$0")/lib.sh"
R=$BUILD/fresh/root
[ -x "$R/usr/bin/insula-run" ] || { not_ok fresh "no $R; run tests/lab/79-fresh.host on the host first"; exit 1; }
cat >"$T/enter" <<'ENTER'
set -e
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs tmpfs tmp
mkdir tmp/old
pivot_root . tmp/old
cd /
umount -l tmp/old
shift
exec "$@"
ENTER
# "${root[@]}" COMMAND...: as root in there; "${user[@]}" COMMAND...: as a user who may open /dev/kvm
root=(unshare --mount --pid --fork --kill-child --propagation private bash "$T/enter" "$R"
	env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root)
user=("${root[@]}" setpriv --reuid 1000 --regid 1000 --groups "$(stat -c %g /dev/kvm)" --inh-caps=-all env HOME=/home/user)
# passt wants a way out to copy; nothing has to be at its end.
modprobe dummy 2>/dev/null
ip link add dummy0 type dummy
ip addr add 198.51.100.1/24 dev dummy0
ip link set lo up
ip link set dummy0 up
ip route add default via 198.51.100.254 dev dummy0
tour=$(dirname "$0")/../tour
"$tour" '$' "${user[@]}" env -C /home/user
"$tour" '#' "${root[@]}" env -C /root
