#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# On this machine, in turn: an image of one layer, from its tar in an OCI layout to the EROFS file in the cache (insula-run with an empty cache,
# until the image's record is there); mkfs.erofs alone of the same tree; and what would have to be done with it: sha256sum, tar, mkfs.erofs. All
# without compression, from the page cache into memory (/dev/shm); on a disk ours also waits until the file is stable. Elapsed time, and the
# processor time of all processes, which says more on a machine that has other work.
# tests/bench/pack.sh BUILD DIR [ROUNDS]     DIR: a root file system
set -eu
. "$(dirname "$0")/lib.sh"
build=$1 dir=$2 rounds=${3:-5}
T=$(mktemp -d)
M=$(mktemp -d /dev/shm/pack.XXXXXX)
trap 'rm -rf "$T" "$M"' EXIT
tar -C "$dir" --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* -cf "$T/layer.tar" .
mkdir "$T/tree"
tar -C "$T/tree" -xf "$T/layer.tar"
python3 - "$T" <<'PY'
import hashlib, json, os, sys
T = sys.argv[1]
os.makedirs(T + "/oci/blobs/sha256")
def blob(data):
    name = hashlib.sha256(data).hexdigest()
    open(T + "/oci/blobs/sha256/" + name, "wb").write(data)
    return {"digest": "sha256:" + name, "size": len(data)}
layer = blob(open(T + "/layer.tar", "rb").read())
config = blob(json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode())
v = "application/vnd.oci.image."
manifest = blob(json.dumps({"schemaVersion": 2, "mediaType": v + "manifest.v1+json", "config": dict(config, mediaType=v + "config.v1+json"),
                            "layers": [dict(layer, mediaType=v + "layer.v1.tar")]}).encode())
json.dump({"schemaVersion": 2, "manifests": [dict(manifest, mediaType=v + "manifest.v1+json", annotations={"org.opencontainers.image.ref.name": "t"})]}, open(T + "/oci/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(T + "/oci/oci-layout", "w"))
PY

ours() {
	local t0 pid
	rm -rf "$M/cache"
	t0=$(now_ns)
	XDG_CACHE_HOME=$M/cache "$build/bin/insula-run" --image "oci:$T/oci:t" -- true >"$T/out" 2>&1 </dev/null &
	pid=$!
	until [ -n "$(find "$M/cache" -name 'image-*' 2>/dev/null)" ]; do
		kill -0 $pid 2>/dev/null || { cat "$T/out"; exit 1; }
		sleep 0.005
	done
	echo $((($(now_ns) - t0) / 1000000)) >>"$T/ours"
	awk '{ print ($14 + $15 + $16 + $17) * 10 }' "/proc/$pid/stat" >>"$T/ours.cpu" # of its children, too
	kill $pid
	wait $pid 2>/dev/null || :
}
peer() { # NAME COMMAND
	TIMEFORMAT='%R %U %S'
	{ time sh -c "$2" >/dev/null 2>&1; } 2>"$T/time"
	awk '{ print $1 * 1000 }' "$T/time" >>"$T/$1"
	awk '{ print ($2 + $3) * 1000 }' "$T/time" >>"$T/$1.cpu"
}
for i in $(seq 0 "$rounds"); do
	ours
	peer alone "mkfs.erofs $M/alone $T/tree"
	peer whole "sha256sum $T/layer.tar; mkdir $M/tree; tar -C $M/tree -xf $T/layer.tar; mkfs.erofs $M/whole $M/tree"
	rm -rf "$M/tree" "$M/alone" "$M/whole"
	[ "$i" != 0 ] || rm "$T"/{ours,alone,whole}{,.cpu} # what all read is in the page cache
done
m() { median <"$T/$1"; }
head_row "$(du -sm "$T/tree" | cut -f1) MiB, $(find "$T/tree" | wc -l) files"
row "layer's tar to EROFS / mkfs.erofs of its tree" "$(m ours)" "$(m alone)" "<= 1.0" " ms"
row "the same, processor time" "$(m ours.cpu)" "$(m alone.cpu)" "" " ms"
row "the same / sha256sum, tar, mkfs.erofs" "$(m ours)" "$(m whole)" "" " ms"
row "the same, processor time" "$(m ours.cpu)" "$(m whole.cpu)" "" " ms"
