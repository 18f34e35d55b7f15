#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A Debian 12 with systemd and its own cloud-init, from nothing but the image: host name, a user with a key, and a command, once by the metadata
# service (data source Ec2) and once by a disk (NoCloud).
. "$(dirname "$0")/lib.sh"
CTL=$BUILD/bin/insulactl
export INSULA_SOCKET=$T/s
KEY='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5Ow0yQwC7m5u0s0d4eXcZJ5vFf0a1b2c3d4e5f6a7b me@example'
host_tap
insulad_up '"cgroup": "off"'

cat >"$T/user-data" <<'YAML'
#cloud-config
users:
  - default
  - name: alice
    groups: sudo
    shell: /bin/bash
write_files:
  - path: /etc/made-by
    content: cloud-init
runcmd:
  - [sh, -c, "echo ran on $(hostname) >/etc/ran"]
YAML
# The same as a tree of EC2's.
python3 -c 'import json, sys
print(json.dumps({"latest": {"meta-data": {"instance-id": "i-tree", "local-hostname": "box", "public-keys": sys.argv[1]}, "user-data": sys.stdin.read()}}))' \
	"$KEY" <"$T/user-data" >"$T/tree"
printf 'instance-id: i-disk\nlocal-hostname: bag\npublic-keys: [%s]\n' "$KEY" >"$T/meta-data"

# configured NAME HOSTNAME SOURCE ID SETTING...: a machine with these settings has become that
configured() {
	local name=$1 host=$2 source=$3 id=$4
	shift 4
	"$CTL" create --name "$name" --mem 768M --rootfs "$BUILD/cloud/image" "$@" >"$T/out" 2>&1 && "$CTL" start "$name" >"$T/out" 2>&1 || not_ok "$name" start
	LIMIT=900 expect "$name-done" 0 '^status: done' "$CTL" exec "$name" -- sh -c 'until systemctl is-system-running --wait >/dev/null 2>&1 || [ -e /run/cloud-init/result.json ]; do sleep 1; done
		cloud-init status --wait; systemctl --failed --no-legend --plain; cat /run/cloud-init/result.json; tail -n 5 /var/log/cloud-init.log'
	also "$name-source" "\"datasource\": \"$source"
	expect "$name-host-name" 0 "^$host\$" "$CTL" exec "$name" -- hostname
	expect "$name-instance" 0 "^$id\$" "$CTL" exec "$name" -- cat /run/cloud-init/.instance-id
	expect "$name-user" 0 'alice.*sudo' "$CTL" exec "$name" -- id alice
	expect "$name-key" 0 "^$KEY\$" "$CTL" exec "$name" -- cat /home/debian/.ssh/authorized_keys
	expect "$name-file" 0 '^cloud-init' "$CTL" exec "$name" -- cat /etc/made-by
	expect "$name-command" 0 "^ran on $host\$" "$CTL" exec "$name" -- cat /etc/ran
	expect "$name-sshd" 0 '^active$' "$CTL" exec "$name" -- systemctl is-active ssh
	"$CTL" rm -f "$name" >/dev/null
}
configured tree box DataSourceEc2 i-tree --net tap=tap0,ip=192.0.2.2/24,gw=192.0.2.1 --metadata "$T/tree,tokens=optional" --append ci.ds=Ec2
configured disk bag DataSourceNoCloud i-disk --cloud-init "user-data=$T/user-data,meta-data=$T/meta-data"
