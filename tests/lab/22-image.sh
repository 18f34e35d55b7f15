#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Container images: three layers packed in three ways, their configuration, the cache, archives, an ordinary user.
. "$(dirname "$0")/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
export XDG_CACHE_HOME=$T/cache
make=$(dirname "$0")/../image/make
store=$T/cache/insula/images
chmod 755 "$T"
python3 "$make" "$T/img" "$BUILD/libexec/insula/busybox" || exit
I=oci:$T/img

expect check-only 0 'nothing was started' "$RUN" -n --image "$I"
if [ -z "$(ls "$store" 2>/dev/null | grep -E '^(layer|image)-')" ]; then ok check-only-makes-nothing; else not_ok check-only-makes-nothing "$(ls "$store")"; fi
expect entry-point-and-command 0 '^entry cmd$' "$RUN" --image "$I:latest"
expect command-replaces 0 '^entry mine two$' "$RUN" --image "$I" -- mine two

# All about the file system in one guest.
cat >"$T/look" <<'LOOK'
echo "root $(mount | grep -c '^overlay on / type overlay')"
echo "a $(ls /a | tr '\n' ' ')"
echo "b $(ls /b | tr '\n' ' ')"
echo "c $(ls /c | tr '\n' ' ')"
echo "links $(stat -c %h /h1) $(cat /h2)"
[ "$(stat -c %i /h1)" = "$(stat -c %i /h2)" ] && echo same inode
echo "home $(stat -c %u:%g:%a /home/u)"
echo "null $(stat -c '%F %t:%T' /null)"
echo "pipe $(stat -c %F /pipe)"
echo "many $(ls /many | wc -l) $(cat /many/01499)"
echo "zeros $(stat -c %s /zeros) $(head -c 3000000 /dev/zero | sha256sum | head -c 8) $(sha256sum </zeros | head -c 8)"
echo "pattern $(sha256sum </pattern | head -c 16)"
echo "top $(cat /etc/top)"
echo "suid $(stat -c %a /bin/suid-id)"
echo "cwd $(pwd)"
echo "env $FOO $MINE $PATH"
echo new >/a/new && echo "written $(cat /a/new)"
LOOK
expect file-system 0 '^root 1$' "$RUN" --image "$I" --entrypoint /bin/sh -e MINE=yes -- -c "$(cat "$T/look")"
also whiteout '^a kept $'
also opaque '^b new $'
also whiteout-and-new-directory '^c y $'
also hard-links '^links 2 hard$'
also hard-links-are-one '^same inode$'
also owners '^home 1000:1000:700$'
also device '^null character special file 1:3$'
also fifo '^pipe fifo$'
also many-names '^many 1500 1499$'
also zeros "^zeros 3000000 ([0-9a-f]{8}) \\1$"
also content "^pattern $(python3 -c 'import hashlib; print(hashlib.sha256(bytes(range(256)) * 8000).hexdigest()[:16])')$"
also top-layer '^top top$'
also setuid '^suid 4755$'
also directory-is-made '^cwd /work/dir$'
also environment '^env image yes /bin$'
also written '^written new$'
expect written-is-gone 0 '^kept $' "$RUN" --image "$I" --entrypoint /bin/sh -- -c "ls /a | tr '\\n' ' '"
expect flags-win 0 '^1000:1000 /tmp other$' "$RUN" --image "$I" --entrypoint /bin/sh -u u -w /tmp -e FOO=other -- \
	-c 'echo "$(id -u):$(id -g) $(pwd) $FOO"'
# A program with a capability has it: the attribute is there, in the form that the kernel takes.
expect file-capability 0 'CapEff:.0000000000000400' "$RUN" --image "$I" --entrypoint /bin/busybox-cap -u 1000 -- grep CapEff /proc/self/status
expect status 9 '' "$RUN" --image "$I" --entrypoint /bin/sh -- -c 'exit 9'
expect streams 0 '^in$' bash -c 'echo in | "$0" --image "$1" --entrypoint /bin/cat' "$RUN" "$I"
expect disk-above 0 '^disk (29|3[0-2])[0-9]{3} 20000000$' "$RUN" --image "$I" --rootfs-size 32M --entrypoint /bin/sh -- -c \
	'head -c 20000000 /dev/zero >/f && echo "disk $(df -k / | tail -n1 | tr -s " " | cut -d" " -f2) $(wc -c </f)"'
expect disk-above-is-full 1 'No space left' "$RUN" --image "$I" --rootfs-size 16M --entrypoint /bin/sh -- -c 'cat /zeros /zeros /zeros /zeros /zeros /zeros >/f'
if [ -z "$(ls -A "$store" | grep -vE '^(lock|layer-|merged-|image-|ref-)')" ]; then ok disk-above-is-gone; else not_ok disk-above-is-gone "$(ls -A "$store")"; fi

# A second run starts nothing but the VM.
strace -f -qq -e trace=execve,execveat -o "$T/trace" "$RUN" --image "$I" >"$T/out" 2>&1
if grep -q insula-vmm "$T/trace" && ! grep -qE 'skopeo|insula-layer|mke2fs' "$T/trace"; then ok second-run-starts-only-the-vm; else not_ok second-run-starts-only-the-vm "$(grep -E 'skopeo|layer|mke2fs' "$T/trace" | head -1)"; fi

# Archives, through skopeo.
python3 "$make" "$T/gz" "$BUILD/libexec/insula/busybox" gzip
skopeo copy -q "oci:$T/img:latest" "oci-archive:$T/a.tar:latest" && skopeo copy -q "oci:$T/gz:latest" "docker-archive:$T/d.tar:busy:1"
expect oci-archive 0 '^entry cmd$' "$RUN" --image "oci-archive:$T/a.tar"
expect docker-archive 0 '^entry cmd$' "$RUN" --image "docker-archive:$T/d.tar:busy:1"
strace -f -qq -e trace=execve -o "$T/trace" "$RUN" --image "docker-archive:$T/d.tar:busy:1" >"$T/out" 2>&1
if grep -q '^entry cmd$' "$T/out" && ! grep -q skopeo "$T/trace"; then ok archive-is-remembered; else not_ok archive-is-remembered "skopeo was asked again"; fi
if [ -z "$(ls -A "$store" | grep -E '^\.(pull|new)-')" ]; then ok nothing-left; else not_ok nothing-left "$(ls -A "$store")"; fi

# Refusals: one line, status 2, nothing started.
python3 "$make" "$T/nocmd" "$BUILD/libexec/insula/busybox" Entrypoint=null 'Cmd=[]'
expect no-command 2 '^insula-run: --image: no command, and the image has none' "$RUN" --image "oci:$T/nocmd"
expect no-entry-point 2 'the image has none' "$RUN" --image "$I" --entrypoint ''
expect unknown-tag 2 'no image with the tag x' "$RUN" --image "$I:x"
expect not-there 2 'No such file' "$RUN" --image "oci:$T/nowhere"
expect never 2 'not in the cache, and --pull is never' "$RUN" --image "containers-storage:nothing" --pull never
python3 "$make" "$T/user" "$BUILD/libexec/insula/busybox" 'User="nobody-here"'
expect unknown-user 126 'nobody-here: not in the guest' "$RUN" --image "oci:$T/user"

# An ordinary user has a cache of their own, and everything comes out right.
for_user
chmod -R a+rX "$T/img"
expect ordinary-user 0 '^1000:1000:700 b new $' env -u XDG_CACHE_HOME "${AS_USER[@]}" "$RUN" --image "$I" --entrypoint /bin/sh -- \
	-c 'echo "$(stat -c %u:%g:%a /home/u) b $(ls /b | tr "\n" " ")"'
