#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# podman's own system tests (test/system of its source, version 4.3.1) in the lab, with a runtime of our choice. Not in `make check`: it takes
# hours, and many of them are about podman and not about its runtime. docs/containers.md has the result.
#   tests/lab/lab --mem 6144 --timeout 9000 'tests/lab/podman-bats.sh SOURCE insula|crun FILE...'
# SOURCE: the unpacked source; FILE: 030-run ...; needs bats. The image that they want, quay.io/libpod/testimage:20220615, is made here of
# Debian's busybox. Prints TAP, and after each file "# FILE: RUNTIME: N of M in S s".
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/podman.sh"
source=$1 runtime=$2
shift 2
podman_setup "$runtime"
echo 'crun = ["/usr/bin/crun"]' >>/etc/containers/containers.conf # its last section: the runtimes
mount -t tmpfs tmp /var/tmp
modprobe loop # for 280-update
ip link set lo up
hostname lab
grep -q ' lab$' /etc/hosts || echo '127.0.1.1 lab' >>/etc/hosts

R=$T/testimage
mkdir -p "$R"/{bin,sbin,etc,proc,sys,dev,run,root,home/podman,usr/bin,usr/sbin,usr/lib,var/tmp,var/log,lib,media,mnt,opt,srv}
mkdir -m 1777 "$R/tmp"
cp -L "$(command -v busybox)" "$R/bin/busybox"
for a in $(busybox --list); do
	[ "$a" = busybox ] || ln -s /bin/busybox "$R/bin/$a"
done
ln -s busybox "$R/bin/busybox-extras"
ln -s /bin/busybox "$R/usr/bin/env"
echo "#!/bin/sh
/bin/busybox tr '\\000' '\\n' </proc/\$\$/environ" >"$R/bin/printenv" # Debian's busybox has none; without what the shell adds
chmod 755 "$R/bin/printenv"
for a in id top head tail sort wc tr test; do ln -sf /bin/busybox "$R/usr/bin/$a"; done
printf 'root:x:0:0:root:/root:/bin/ash\nbin:x:1:1:bin:/bin:/sbin/nologin\ndaemon:x:2:2:daemon:/sbin:/sbin/nologin\nmail:x:8:12:mail:/var/mail:/sbin/nologin\nguest:x:405:100:guest:/dev/null:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n' >"$R/etc/passwd"
printf 'root:x:0:root\nbin:x:1:root,bin,daemon\ndaemon:x:2:root,bin,daemon\ntty:x:5:\ndisk:x:6:root\nusers:x:100:games\nnobody:x:65534:\n' >"$R/etc/group"
printf 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.16.0\nPRETTY_NAME="Alpine Linux v3.16"\n' >"$R/etc/os-release"
echo 3.16.0 >"$R/etc/alpine-release"
echo 'domain 53/udp' >"$R/etc/services"
echo localhost >"$R/etc/hostname"
printf '127.0.0.1\tlocalhost localhost.localdomain\n' >"$R/etc/hosts"
echo 20220615 >"$R/home/podman/testimage-id"
touch --date=@1600000000 "$R/home/podman/testimage-id"
printf '#!/bin/sh\necho Confirmed: testimage pause invoked as $0\nwhile :; do\n    sleep 0.1\ndone\n' >"$R/home/podman/pause"
chmod 755 "$R/home/podman/pause"
tar -C "$R" -c . | podman import -q \
	-c 'LABEL created_by=test/system/build-testimage' -c 'LABEL created_at=2022-06-15T21:40:25Z' -c 'WORKDIR /home/podman' \
	-c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
	-c 'CMD ["/bin/echo", "This container is intended for podman CI testing"]' - quay.io/libpod/testimage:20220615 >/dev/null

export PODMAN_TIMEOUT=${PODMAN_TIMEOUT:-240}
unset XDG_RUNTIME_DIR
cd "$source" || exit 1
for f in "$@"; do
	start=$SECONDS
	timeout -k 5 "${FILE_TIMEOUT:-3600}" bats --tap ${FILTER:+--filter "$FILTER"} "test/system/$f.bats" </dev/null 2>&1 | tee "$T/tap"
	echo "# $f: $runtime: $(grep -cE '^ok ' "$T/tap") of $(sed -n 's/^1\.\.//p' "$T/tap" | head -n 1) in $((SECONDS - start)) s, $(grep -c '^ok .*# skip' "$T/tap") skipped"
done
cd / || exit 1
podman_end
