#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Pools of restored payloads that stand, on this machine's /dev/kvm, by insulad and insulactl: pool.py. BUILD names the build directory. Names of
# cases as arguments choose some. POOL_CLONES: how many VMs go through one pool (default 24; 200 is the long run).
set -u
SUITE=pool
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
export BUILD
exec python3 -u "$HERE/pool.py" "$@"
