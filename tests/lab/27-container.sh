#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insula-container in a Linux guest: what takes the guest's kernel, its controllers, its network and the empty root below the containers.
# tests/container/suite has the rest. 27-container.make makes the containers, 27-container.guest runs
# them in the guest.
. "$(dirname "$0")/lib.sh"
here=$(dirname "$0")
S=$T/share C=/run/insula/share
. "$here/27-container.make"
cp "$here/27-container.guest" "$S/test"

modprobe tun 2>/dev/null
ip tuntap add tap27 mode tap
ip addr add 198.51.100.1/24 dev tap27
ip -6 addr add fd00:27::1/64 dev tap27 nodad
ip link set tap27 up
ip tuntap add tap28 mode tap
timeout 800 "$RUN" --mem 512M --share "$S:$C" --net tap=tap27,mac=02:00:00:00:00:77 --net tap=tap28 -- sh "$C/test" >"$T/out" 2>&1
status=$?
ip link del tap27
ip link del tap28
grep -E '^(ok|not ok|#) ' "$T/out"

same live-status 1 "$(grep -cE '^started [0-9]+$' "$S/live/status")"
same live-volume back "$(cat "$S/vol/new")"
same live-root x "$(cat "$S/image/in-root")"
if [ $status = 0 ] && grep -q '^ok the-end' "$T/out"; then ok guest; else not_ok guest "status $status"; fi
