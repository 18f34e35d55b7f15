#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Disks that come and go while a payload runs, on this machine's /dev/kvm, by insulad: plug.py. BUILD names the build directory. Names of cases
# as arguments choose some. PLUG_ROUNDS (120): how many are pulled out; PLUG_KILLS (6): how often a helper dies; PLUG_ASKED (10): how many are
# asked for.
set -u
SUITE=plug
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
export BUILD
exec python3 -u "$HERE/plug.py" "$@"
