#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Functions of the (lab) host in containers, by insula-oci, with a machine of its own (44-oci-vfio.lab): a node of VFIO in linux.devices; a pod whose
# sandbox names functions, and containers that ask for one each; podman's --device; what cannot be had is refused in words.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/podman.sh"
ROOT=/run/oci-test
ALONE=0000:00:10.0 SHARED=0000:00:11.0
if ! grep -qsx 'alone *' /sys/class/nvme/*/serial || [ ! -e $devices/$ALONE/iommu_group ]; then
	skip oci-vfio "not the machine of 44-oci-vfio.lab"
	exit 0
fi
podman_setup
podman_image bb head
echo '{"memory": "192M", "host_overhead": "512M"}' >"$T/oci.json"
echo '{"memory": "192M", "host_overhead": "512M", "vfio_annotation": true, "vm": {"bus": "pci"}}' >"$T/pods.json"
OCI=("$BUILD/bin/insula-oci" --root "$ROOT" --config "$T/oci.json")
PODS=("$BUILD/bin/insula-oci" --root "$ROOT" --config "$T/pods.json")
make_root "$T/b/rootfs"
for a in sleep head stat mknod rm; do
	ln -sf busybox "$T/b/rootfs/bin/$a"
done
# bundle NAME COMMAND JQ-FILTER [GROUP...]: $T/NAME, with the nodes of these groups
bundle() {
	local filter=$3
	mkdir -p "$T/$1"
	rm -f "$T/$1/config.json"
	"${OCI[@]}" spec -b "$T/$1"
	for g in "${@:4}"; do
		filter+=" | $(node "$g")"
	done
	jq --arg command "$2" --arg root "$T/b/rootfs" '.process.terminal = false | .process.args = ["sh", "-c", $command] | .root.path = $root
		| '"$filter" "$T/$1/config.json" >"$T/new" && mv "$T/new" "$T/$1/config.json"
}
# node GROUP: as a device plugin has it put into a configuration: its node with its rule, and that of the container
node() {
	local minor major
	major=$(stat -c %Hr "/dev/vfio/$1") minor=$(stat -c %Lr "/dev/vfio/$1")
	echo ".linux.devices += [{path: \"/dev/vfio/$1\", type: \"c\", major: $major, minor: $minor, fileMode: 416, uid: 0, gid: 44},
		{path: \"/dev/vfio/vfio\", type: \"c\", major: 10, minor: 196}]
		| .linux.resources.devices += [{allow: true, type: \"c\", major: $major, minor: $minor, access: \"rwm\"}]"
}
raw_node() { echo ".linux.devices = [{path: \"$1\", type: \"c\", major: $2, minor: $3}]"; }
group_of() { basename "$(readlink "$devices/$1/iommu_group")"; }
alone=$(group_of $ALONE) shared=$(group_of $SHARED)
for d in alone shared; do
	disk=/dev/$(basename "$(dirname "$(grep -lx "$d *" /sys/class/nvme/*/serial)")")n1
	for _ in $(seq 100); do [ ! -b "$disk" ] || break; sleep 0.1; done
	echo "disk $d" | dd of="$disk" bs=512 conv=sync oflag=direct status=none
done

# ---- what is refused before there is a VM

bundle a 'true' "$(raw_node "/dev/vfio/$alone" 240 7)"
expect not-bound 1 "linux.devices\[0\]: /dev/vfio/$alone: IOMMU group $alone has no function on vfio-pci \($ALONE: nvme\); expected one, bound before" \
	"${OCI[@]}" run -b "$T/a" c
modprobe -a vfio-pci vfio_iommu_type1
for f in $ALONE $SHARED; do
	echo vfio-pci >"$devices/$f/driver_override"
	echo "$f" >"$devices/$f/driver/unbind"
	echo "$f" >/sys/bus/pci/drivers_probe
done
for _ in $(seq 50); do [ ! -c "/dev/vfio/$alone" ] || [ ! -c "/dev/vfio/$shared" ] || break; sleep 0.1; done
expect other-number 1 "/dev/vfio/$alone: its number is not that of /dev/vfio/$alone; expected the host's" "${OCI[@]}" run -b "$T/a" c
bundle a 'true' "$(raw_node /dev/vfio/9999 240 7)"
expect no-group 1 'linux.devices\[0\]: /dev/vfio/9999: the host has no IOMMU group 9999' "${OCI[@]}" run -b "$T/a" c
bundle a 'true' "$(raw_node /dev/vfio/devices/vfio0 240 7)"
expect of-one-function 1 '/dev/vfio/devices/vfio0: a node of one function, for iommufd; expected that of its group, /dev/vfio/N' "${OCI[@]}" run -b "$T/a" c
bundle a 'true' ".annotations = {\"io.insula.vm.vfio\": \"$ALONE\"}"
expect no-annotation 1 "annotations.io.insula.vm.vfio: '$ALONE'; expected none, for vfio_annotation is false in the configuration" "${OCI[@]}" run -b "$T/a" c
bundle a 'true' '.annotations = {"io.insula.vm.vfio": "0000:07:00.0"}'
expect no-function 1 "'0000:07:00.0'; expected a PCI function that the host has" "${PODS[@]}" run -b "$T/a" c
same nothing-was-made '' "$(ls "$ROOT" 2>/dev/null)"

# ---- a container that is alone, as of podman --device

bundle a 'cat /sys/bus/pci/devices/0000:00:01.0/class; head -n 1 /dev/nvme0n1; stat -c "%a %u %g" /dev/nvme0n1; ls /dev/vfio; ls -d /dev/nvme*' . "$alone"
expect alone 0 '^0x010802' "${OCI[@]}" run -b "$T/a" c
also alone-reads-its-disk '^disk alone'
also alone-as-the-node-was '^640 0 44'
also alone-has-all-nodes '^/dev/nvme0$'
also no-node-of-vfio 'ls: /dev/vfio: No such file'

# ---- a pod

bundle pod 'while :; do sleep 1; done' ".annotations = {\"io.kubernetes.cri.container-type\": \"sandbox\", \"io.insula.vm.vfio\": \"$SHARED,$ALONE\"}"
member='.annotations = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod"}'
expect pod 0 '' "${PODS[@]}" create -b "$T/pod" pod
expect pod-starts 0 '' "${PODS[@]}" start pod
# nvme0 is the first function, SHARED. Root of this one may make the node of the other disk, but not read it.
show='ls -d /dev/nvme?n?; for d in /dev/nvme?n?; do head -n 1 $d; done; for n in 0 1 2; do mknod /dev/x b 259 $n; head -n 1 /dev/x; rm -f /dev/x; done 2>&1; exit 7'
bundle m "$show" "$member | .process.capabilities.bounding += [\"CAP_MKNOD\"] | .process.capabilities.permitted += [\"CAP_MKNOD\"]
	| .process.capabilities.effective += [\"CAP_MKNOD\"]" "$alone"
expect member-of-the-second 7 '^disk alone' "${PODS[@]}" run -b "$T/m" m
also member-may-not-the-other 'Operation not permitted'
same member-has-one-disk "1 0" "$(grep -c '^/dev/nvme' "$T/out") $(grep -c '^disk shared' "$T/out")"
bundle m "$show" "$member" "$shared"
expect member-of-one-with-more-controllers 7 '^disk shared' "${PODS[@]}" run -b "$T/m" m
same member-has-the-other-disk "1 0" "$(grep -c '^/dev/nvme' "$T/out") $(grep -c '^disk alone' "$T/out")"
bundle m 'ls -d /dev/nvme*' "$member"
expect member-without 1 'No such file' "${PODS[@]}" run -b "$T/m" m
bundle a 'true' . "$alone"
expect in-use 1 "the VM cannot start: --vfio $ALONE: /dev/vfio/$alone: another VM or program has its group \(process [0-9]+, insula-run\)" "${OCI[@]}" run -b "$T/a" c
expect pod-ends 0 '' "${PODS[@]}" delete -f pod

# ---- a later container of a pod without

bundle pod 'while :; do sleep 1; done' '.annotations = {"io.kubernetes.cri.container-type": "sandbox"}'
expect plain-pod 0 '' "${PODS[@]}" create -b "$T/pod" pod
bundle m 'true' "$member" "$alone"
expect later 1 "/dev/vfio/$alone: the VM of sandbox .*pod.* has not got IOMMU group $alone; expected it from its start: annotation io.insula.vm.vfio of the sandbox" \
	"${PODS[@]}" run -b "$T/m" m
expect plain-pod-ends 0 '' "${PODS[@]}" delete -f pod

# ---- podman

podman=(podman run --rm --memory 160m)
expect podman 0 '^disk alone' "${podman[@]}" --network none --device "/dev/vfio/$alone" bb head -n 1 /dev/nvme0n1
podman pod create --name p --network none --share-parent=false --device "/dev/vfio/$shared" >"$T/out" 2>&1
expect podman-pod 0 '^disk shared' "${podman[@]}" --pod p bb head -n 1 /dev/nvme0n1
expect podman-pod-later 126 "/dev/vfio/$alone: the VM of sandbox .* has not got IOMMU group $alone" "${podman[@]}" --pod p --device "/dev/vfio/$alone" bb sh
podman pod rm -f p >/dev/null 2>&1
podman_nothing_left podman
podman_end
same nothing-left '0 0' "$(find "$ROOT" -mindepth 1 2>/dev/null | wc -l) $(pgrep -c insula-)"
