#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What the supervisor does when something beside it fails, on this machine's /dev/kvm: recovery.py. BUILD names the build directory. Names of
# cases as arguments choose some.
set -u
BUILD=$(cd "${BUILD:-build}" && pwd -P) || exit 1
if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
	echo 'skip recovery: all - no access to /dev/kvm'
	exit 0
fi
export BUILD
exec python3 -u "$(dirname "$0")/recovery.py" "$@"
