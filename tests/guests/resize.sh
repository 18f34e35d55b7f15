#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Memory that payloads get and give back while they run (insula-mem, vm.resize), on this machine's /dev/kvm: resize.py. BUILD names the build
# directory. Names of cases as arguments choose some. RESIZE_KILLS: how often insula-mem is killed under load (default 6).
set -u
SUITE=resize
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
export BUILD
exec python3 -u "$HERE/resize.py" "$@"
