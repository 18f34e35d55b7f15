#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: a VM of an image that the cache has, `insula-run --image IMAGE -- true`, and the same command with insula-init's initrd alone, in
# turn; with what both read in the page cache, and without. Then the memory of the host's processes of a pod: one container, and three.
# tests/bench/lab-image.sh BUILD [ROUNDS]
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$1 rounds=${2:-5}
# shellcheck disable=SC1091
. tests/lab/lib.sh
# shellcheck disable=SC1091
. tests/lab/podman.sh
set -eu
export XDG_CACHE_HOME=$T/cache
podman_setup
podman_image bb true sleep
podman save --format oci-archive -o "$T/bb.tar" localhost/bb:latest >/dev/null 2>&1
image=(bounded "$RUN" --mem 256M --image "oci-archive:$T/bb.tar" -- true)
initrd=(bounded "$RUN" --mem 256M -- true)
cold() { echo 3 >/proc/sys/vm/drop_caches; }
timed first "${image[@]}"
timed first "${initrd[@]}"
for _ in $(seq "$rounds"); do
	timed image "${image[@]}"
	timed initrd "${initrd[@]}"
	cold
	timed image.cold "${image[@]}"
	cold
	timed initrd.cold "${initrd[@]}"
done
pss() {
	# shellcheck disable=SC2046
	own_pss $(pgrep -x 'insula-.*')
}
podman run -d --name a --network none --memory 256m bb sleep 1000 >/dev/null
one_container=$(pss)
for i in b c; do podman run -d --name $i --network container:a --ipc container:a --uts container:a bb sleep 1000 >/dev/null; done
three=$(pss)
vms=$(pgrep -xc insula-vmm)
podman rm -a -f -t 0 >/dev/null 2>&1 || :

m() { median <"$T/$1"; }
head_row "lab, a VM of a cached image"
row "insula-run --image IMAGE -- true / without --image" "$(m image)" "$(m initrd)" "<= 1.1" " ms"
row "the same, nothing in the page cache" "$(m image.cold)" "$(m initrd.cold)" "<= 1.1" " ms"
awk -v a="$one_container" -v b="$three" -v v="$vms" 'BEGIN { printf "PSS of the host'"'"'s processes, MiB: one container %.2f, three in %d VM %.2f, more %.2f (<= 1)\n", a / 1024, v, b / 1024, (b - a) / 1024 }'
podman_end
