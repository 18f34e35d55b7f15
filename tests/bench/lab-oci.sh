#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the lab: `podman run --rm IMAGE true` with insula-oci, whose VM boots or goes on from a template, with crun (a container without a VM) and with
# gVisor's runsc where it is installed, and insula-run with the same image, in turn; `exec` of true in a running container; memory of the host beside the guest's.
# tests/bench/lab-oci.sh BUILD [ROUNDS]
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
podman_setup crun
podman_image bb true sleep
podman save --format oci-archive -o "$T/bb.tar" localhost/bb:latest >/dev/null 2>&1
args=(--rm --network none --memory 256m localhost/bb:latest true)
mkdir -p /etc/insula
ours() {
	echo '{"templates": ""}' >/etc/insula/oci.json
	timeout 180 podman --runtime insula run "${args[@]}"
}
template() {
	rm -f /etc/insula/oci.json
	timeout 180 podman --runtime insula run "${args[@]}"
}
"$BUILD/bin/insula-oci" template make --memory 256m --cards 0 >/dev/null
crun() { timeout 180 podman --runtime crun run "${args[@]}"; }
runsc() { timeout 180 podman --runtime runsc run "${args[@]}"; }
image() { timeout 180 "$RUN" --mem 256M --image "oci-archive:$T/bb.tar" -- true; }
kinds=(ours template crun image)
! command -v runsc >/dev/null || ! runsc >/dev/null 2>&1 || kinds+=(runsc)
for k in "${kinds[@]}"; do timed warm "$k"; done
for _ in $(seq "$rounds"); do
	for k in "${kinds[@]}"; do timed "$k" "$k"; done
done
echo '{"templates": ""}' >/etc/insula/oci.json
podman --runtime insula run -d --name d --network none --memory 256m localhost/bb:latest sleep 1000 >/dev/null
timed warm podman exec d true
for _ in $(seq "$rounds"); do timed exec podman exec d true; done
# shellcheck disable=SC2046
pss=$(own_pss $(pgrep -x 'insula-.*'))
podman rm -f -t 0 d >/dev/null

m() { median <"$T/$1"; }
head_row "lab, podman run --rm IMAGE true, ms"
row "insula-oci / insula-run --image" "$(m ours)" "$(m image)" "<= 1.25" " ms"
row "insula-oci from a template / insula-oci that boots" "$(m template)" "$(m ours)" "" " ms"
row "insula-oci / crun" "$(m ours)" "$(m crun)" "<= 2.5" " ms"
[ ! -s "$T/runsc" ] || row "insula-oci / runsc" "$(m ours)" "$(m runsc)" "" " ms"
row "exec of true / that run" "$(m exec)" "$(m ours)" "<= 0.25" " ms"
alone "PSS without guest RAM and virtiofsd" "$(awk -v k=$pss 'BEGIN { print k / 1024 }')" "<= 8 MiB" " MiB"
podman_end
