#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insulad with real VMs on /dev/kvm: tests/daemon/suite.py. BUILD names the build directory. DAEMON_VMS: how many at once (default 200,
# 40 on one processor); DAEMON_CHURN: how many in a row (default 200, 60 on one;
# 2000 is the long run); DAEMON_KILLS: how often insulad is killed (5; 50).
set -u
SUITE=daemon
# shellcheck source=tests/guests/lib.bash
. "$(dirname "$0")/lib.bash"
need_kvm
export BUILD
# Other users, for the cases with two of them, open /dev/kvm by its group, and read what is in BUILD. Where only root may, a node of the test's
# own and a mount of BUILD stand in their place, in a mount namespace of the test's own.
if [ "$(id -u)" = 0 ] && [ -z "${DAEMON_PLACE:-}" ]; then
	kvm=root build=root
	[ "$(stat -c %a /dev/kvm)" -lt 660 ] || kvm=all
	! setpriv --reuid 4001 --regid 4001 --clear-groups test -r "$BUILD/bin/insulad" || build=all
	if [ "$kvm$build" != allall ]; then
		place=$(mktemp -d "${TMPDIR:-/tmp}/daemon.XXXXXX")
		trap 'rm -rf "$place"' EXIT # outside of the namespace: nothing is mounted below
		chmod 755 "$place"
		mkdir "$place/build"
		# shellcheck disable=SC2016
		DAEMON_PLACE=$place unshare --mount sh -ec 'p=$1 kvm=$2; shift 2
			if [ $kvm = root ]; then
				mknod -m 660 "$p/kvm" c "0x$(stat -c %t /dev/kvm)" "0x$(stat -c %T /dev/kvm)"
				chgrp 4000 "$p/kvm"
				mount --bind "$p/kvm" /dev/kvm
			fi
			mount --bind "$BUILD" "$p/build"
			BUILD=$p/build exec "$@"' - "$place" $kvm bash "$0" "$@"
		exit
	fi
fi
exec python3 -u "$HERE/../daemon/suite.py" "$@"
