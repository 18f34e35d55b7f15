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
exec python3 -u "$(dirname "$0")/../daemon/suite.py" "$@"
