#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What the supervisor does when something beside it fails, on this machine's /dev/kvm: recovery.py. BUILD names the build directory. Names of
# cases as arguments choose some.
set -u
SUITE=recovery
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
export BUILD
exec python3 -u "$HERE/recovery.py" "$@"
