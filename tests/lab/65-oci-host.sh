#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What insula-oci does on the host, on a machine whose kernel is Debian's: a pod's network (cls_matchall), limits in control groups of version 2.
. "$(dirname "$0")/lib.sh"
bash "$(dirname "$0")/../oci-net" "$BUILD"
for t in test_oci_cgroup test_oci_share test_oci_forward; do
	if INSULA_TEST_ALL=1 CK_VERBOSITY=silent CK_TAP_LOG_FILE_NAME=$T/tap CK_DEFAULT_TIMEOUT=60 "$BUILD/tests/$t" >"$T/out" 2>&1; then
		ok $t
	else
		not_ok $t "$(grep '^not ok' "$T/tap" | head -n 3 | tr '\n' ' ')"
	fi
done
