#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# How much a disk may do in a second (--disk rate=, iops=; vm.limits), on this machine's /dev/kvm, by insulad: limit.py. BUILD names the build
# directory. Names of cases as arguments choose some.
set -u
SUITE=limit
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
export BUILD
exec python3 -u "$HERE/limit.py" "$@"
