#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What guests may send (--net allow, serve, from, deny; vm.net.policy): payloads that lie about who they are, on this machine's /dev/kvm:
# policy.py, in a network namespace of its own. BUILD names the build directory. Names of cases as arguments choose some.
set -u
SUITE=policy
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
if ! unshare -n true 2>/dev/null; then
	skip all 'not root'
	exit 0
fi
export BUILD
exec unshare -n python3 -u "$HERE/policy.py" "$@"
