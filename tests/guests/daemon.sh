#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insulad with real VMs on /dev/kvm: tests/daemon/suite.py. BUILD names the build directory. DAEMON_VMS: how many at once (default 200,
# 40 on one processor); DAEMON_CHURN: how many in a row (default 200, 60 on one;
# 2000 is the long run); DAEMON_KILLS: how often insulad is killed (5; 50).
set -u
BUILD=$(cd "${BUILD:-build}" && pwd -P) || exit 1
if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
	echo 'skip daemon: all - no access to /dev/kvm'
	exit 0
fi
export BUILD
# Other users, for the cases with two of them, may open /dev/kvm by its group. Where only root may, a node of the test's own stands in its
# place, in a mount namespace of the test's own.
if [ "$(id -u)" = 0 ] && [ -z "${DAEMON_KVM:-}" ] && [ "$(stat -c %a /dev/kvm)" -lt 660 ]; then
	node=$(mktemp -d "${TMPDIR:-/tmp}/daemon.XXXXXX")
	trap 'rm -rf "$node"' EXIT
	chmod 755 "$node"
	# shellcheck disable=SC2016
	DAEMON_KVM=own unshare --mount sh -c 'mknod -m 660 "$1/kvm" c "0x$(stat -c %t /dev/kvm)" "0x$(stat -c %T /dev/kvm)" &&
		chgrp 4000 "$1/kvm" && mount --bind "$1/kvm" /dev/kvm && shift && exec "$@"' - "$node" bash "$0" "$@"
	exit
fi
exec python3 -u "$(dirname "$0")/../daemon/suite.py" "$@"
