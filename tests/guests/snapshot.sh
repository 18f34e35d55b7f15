#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Snapshots of payloads on this machine's /dev/kvm, by insulad, insulactl and insula-run: snapshot.py. BUILD names the build directory. Names of
# cases as arguments choose some. SNAPSHOT_ROUNDS: how many snapshots of a disk under load (default 20); SNAPSHOT_KILLS: how often each process
# is killed (2; 1 on one processor).
set -u
SUITE=snapshot
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
export BUILD
exec python3 -u "$HERE/snapshot.py" "$@"
