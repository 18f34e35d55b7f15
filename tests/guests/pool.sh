#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Pools of restored payloads that stand, on this machine's /dev/kvm, by insulad and insulactl: pool.py. BUILD names the build directory. Names of
# cases as arguments choose some. POOL_CLONES: how many VMs go through one pool (default 24; 200 is the long run).
set -u
BUILD=$(cd "${BUILD:-build}" && pwd -P) || exit 1
if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
	echo 'skip pool: all - no access to /dev/kvm'
	exit 0
fi
export BUILD
exec python3 -u "$(dirname "$0")/pool.py" "$@"
