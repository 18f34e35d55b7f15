#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insulad with real VMs on /dev/kvm: tests/daemon/suite.py. BUILD names the build directory. DAEMON_VMS: how many at once (default 200,
# 40 on one processor); DAEMON_CHURN: how many in a row (default 200, 60 on one; 2000 is the long run).
set -u
BUILD=$(cd "${BUILD:-build}" && pwd -P) || exit 1
if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
	echo 'skip daemon: all - no access to /dev/kvm'
	exit 0
fi
export BUILD
# Some cases run as another user, who may open /dev/kvm as its group may. Where only root may, the suite gets a device node of its own.
if [ "$(id -u)" = 0 ] && [ "$(($(stat -c 0%a /dev/kvm) & 060))" != 48 ] && [ -z "${DAEMON_KVM:-}" ]; then
	export DAEMON_KVM=1
	node=$(mktemp -d "${TMPDIR:-/tmp}/daemon.XXXXXX")
	trap 'rm -rf "$node"' EXIT
	unshare -m sh -c 'cp -a /dev/kvm "$0/kvm" && chown 0:4711 "$0/kvm" && chmod 660 "$0/kvm" && mount --bind "$0/kvm" /dev/kvm && exec "$@"' \
		"$node" bash "$0" "$@"
	exit
fi
exec python3 -u "$(dirname "$0")/../daemon/suite.py" "$@"
