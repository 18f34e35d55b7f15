#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Ports of Open vSwitch and macvtaps that the supervisor makes, with payloads on this machine's /dev/kvm: attach.py, in a network namespace and a
# mount namespace of its own. BUILD names the build directory. Names of cases as arguments choose some.
set -u
SUITE=attach
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
if [ "$(id -u)" != 0 ] || ! unshare -n -m true 2>/dev/null; then
	skip all 'not root, or no namespaces'
	exit 0
fi
export BUILD
# ovs-vsctl finds its database in /run/openvswitch, where the host has its own.
# shellcheck disable=SC2016
exec unshare -n -m sh -ec 'mount -t tmpfs none /run; mkdir /run/openvswitch; ip link set lo up; exec python3 -u "$@"' - "$HERE/attach.py" "$@"
