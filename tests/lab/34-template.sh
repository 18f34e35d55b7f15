#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Templates: a VM of insulad whose guest has not touched its share and card is saved, and others go on from it with their own; containers of podman
# start from templates of insula-oci, and boot where one cannot be used.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/podman.sh"
export HOME=/root
unset XDG_CACHE_HOME
CTL=$BUILD/bin/insulactl
OCI=$BUILD/bin/insula-oci
export INSULA_SOCKET=$T/s
templates=/var/lib/insula/templates
name=()

# ---- insulad and insula-run ----
mkdir "$T/empty" "$T/one"
echo theirs >"$T/one/file"
nets=(--net user,mac=52:54:00:00:00:0a --net user,mac=52:54:00:00:00:0b --net user,mac=52:54:00:00:00:0c)
insulad_up '"cgroup": "off"'
expect template-starts 0 '' "$CTL" run -d --name t --template --mem 192M --bus pci --share "$T/empty:/mnt" "${nets[@]}" --
guest t 'mount | grep -c virtiofs; ls /sys/class/net; cat /sys/bus/virtio/devices/*/status | sort -u' >"$T/out"
same template-leaves-them-alone '0 lo 0x00000001 0x0000000f' "$(tr '\n' ' ' <"$T/out" | sed 's/ $//')"
expect template-is-saved 0 '' "$CTL" snapshot --stop t "$T/snap"
expect another-place 2 '^insula-run: --share: expected as many as the snapshot has' "$RUN" --restore "$T/snap" --share "$T/one:/elsewhere"
expect goes-on 0 '' "$CTL" run -d --name a --restore "$T/snap" --identity new --share "$T/one:/mnt" "${nets[@]}" --
guest a 'cat /mnt/file; echo back >/mnt/back; ip -4 addr show eth0; cat /sys/class/net/eth[0-9]/address' >"$T/out"
also has-its-share '^theirs$'
also has-its-card 'inet 1'
same names-of-cards-as-at-a-boot '0a 0b 0c' "$(sed -n 's/^52:54:00:00:00://p' "$T/out" | tr '\n' ' ' | sed 's/ $//')"
same writes-to-its-share back "$(cat "$T/one/back")"
shoot a 'insula-vhost fs0'
same share-after-a-kill theirs "$(guest a 'for i in $(seq 100); do cat /mnt/file 2>/dev/null && break; sleep 0.1; done')"
expect in-use-is-refused 1 'fs0: what its back end holds' "$CTL" snapshot a "$T/no"
"$CTL" rm -f a >/dev/null
insulad_down

# ---- containers ----
podman_setup
podman_image bb sleep od ip date
modprobe tun
log=$T/oci.log
said() { grep -c "$1" "$log"; }
newly() { # NAME REGEX: the log has it since the last call
	if tail -n +$((seen + 1)) "$log" | grep -q "$2"; then ok "$1"; else not_ok "$1" "$(tail -n 3 "$log")"; fi
	seen=$(wc -l <"$log")
}
oci=("$OCI" --debug --log "$log")
for cards in 0 1; do
	expect make-$cards 0 "^1G-[0-9]+cpu-${cards}net$" "$OCI" template make --cards $cards
	name[cards]=$(cat "$T/out")
done
same only-whole-ones "${name[0]} ${name[1]}" "$(ls -A $templates | tr '\n' ' ' | sed 's/ $//')"
expect usage 1 'template frob: expected make, ls or rm' "$OCI" template frob

"$OCI" spec -b "$T"
jq '.process.terminal = false | .process.args = ["sleep", "1000"] | .root.path = "'"$T/bb.root"'"' "$T/config.json" >"$T/new" && mv "$T/new" "$T/config.json"
for c in c1 c2; do
	"${oci[@]}" run -d -b "$T" $c >"$T/out" 2>&1 </dev/null &
done
wait
same two-from-one-template 2 "$(said 'level=debug.*goes on from')"
for c in c1 c2; do
	"${oci[@]}" exec $c sh -c 'cat /proc/sys/kernel/random/boot_id; od -An -tx1 -N16 /dev/urandom; date +%s >&2' >"$T/$c" 2>"$T/then"
	now=$(date +%s)
done
same boot-ids-and-random-numbers-differ 4 "$(cat "$T"/c[12] | sort -u | grep -c .)"
if [ $(($(cat "$T/then") - now)) -le 5 ] && [ $((now - $(cat "$T/then"))) -le 5 ]; then ok clock; else not_ok clock "$(cat "$T/then"), and ours is $now"; fi
expect exec 5 '^out' "${oci[@]}" exec c1 sh -c 'echo out; exit 5'
for c in c1 c2; do
	expect delete-$c 0 '' "${oci[@]}" delete --force $c
done
seen=$(wc -l <"$log")

jq '.process.args = ["sh", "-c", "echo ran; exit 7"]' "$T/config.json" >"$T/new" && mv "$T/new" "$T/config.json"
run=("${oci[@]}" run -b "$T")
expect status 7 '^ran' "${run[@]}" d0
newly used 'level=debug.*goes on from'
# A death before the guest runs is the end of that VM, and not of the container.
(until pkill -9 -x insula-pager; do sleep 0.01; done) &
killer=$!
expect pager-killed 7 '^ran' "${run[@]}" d1
newly pager-killed-is-said 'level=warning.*the VM boots: .*insula-pager'
kill $killer 2>/dev/null
# tests/unit/test_oci_template.c has these as well.
if [ -n "${CHECK_LONG:-}" ]; then
	jq '.linux.resources.memory.limit = 201326592' "$T/config.json" >"$T/new"
	cp "$T/config.json" "$T/old"
	mv "$T/new" "$T/config.json"
	chmod 777 "$templates/${name[0]}"
	expect another-size 7 '^ran' "${run[@]}" d2
	newly another-size-is-said 'level=debug.*288M-.*: the VM boots'
	mv "$T/old" "$T/config.json"
	expect others-may-write 7 '^ran' "${run[@]}" d3
	newly others-may-write-is-said 'level=warning.*mode 0777; expected of user 0, and nobody else may write to it: the VM boots'
	chmod 700 "$templates/${name[0]}"
fi

# podman's log goes there, too.
cat >"$T/oci" <<-SCRIPT
	#!/bin/bash
	args=()
	while [ \$# != 0 ]; do
		case \$1 in --log) shift ;; --log=*) ;; *) args+=("\$1") ;; esac
		shift
	done
	exec "$OCI" --debug --log "$log" "\${args[@]}"
SCRIPT
chmod 755 "$T/oci"
sed -i "s,\"$OCI\",\"$T/oci\"," /etc/containers/containers.conf
podman pod create --share-parent=false --name p >/dev/null
expect pod-first 0 '' podman run -d --pod p --name web bb sleep 1000
newly pod-from-a-template 'level=debug.*goes on from .*-1net/'
expect pod-second 3 'inet 10\.' podman run --rm --pod p bb sh -c 'ip -4 addr show eth0; exit 3'
same pod-one-vm 1 "$(pgrep -c insula-vmm)"
expect kill 0 '' podman kill web
podman wait web >/dev/null
same kill-status 137 "$(podman inspect web --format '{{.State.ExitCode}}')"
podman pod rm -f -t 0 p >/dev/null

expect ls 0 '-0net .* usable$' "$OCI" template ls
also ls-1 '-1net .* usable$'
touch "$BUILD/libexec/insula/insula-init"
expect stale 7 '^ran' "${run[@]}" d4
newly stale-is-said 'level=warning.*insula-init has changed since this template was booted'
expect ls-stale 0 '-0net .*insula-init has changed' "$OCI" template ls
expect rm 0 '' "$OCI" template rm "${name[0]}"
expect rm-again 1 'No such file' "$OCI" template rm "${name[0]}"
expect rm-outside 1 'expected a name' "$OCI" template rm ../templates
same removed "${name[1]}" "$(ls -A $templates)"
podman_nothing_left template
podman_end
