# shellcheck shell=bash disable=SC2016
# SPDX-License-Identifier: BSD-2-Clause
# The cases of tests/container/suite: one function each.

case_plain() {
	new plain
	script 'echo "$A pid $$ $(cat /proc/sys/kernel/hostname)"; echo err >&2; exit 42'
	add hostname=inside domainname=dom
	go
	is plain 42 '^b pid 1 inside$'
	yes plain-stderr grep -qx err "$T/err"
	yes plain-started grep -qE '^started [0-9]+$' "$S/plain/status"
	yes plain-empty test "$(cat /sys/fs/cgroup/insula/plain/cgroup.procs)" = ''
	"$P" delete plain
	no plain-deleted test -e /sys/fs/cgroup/insula/plain
	no plain-host-name test "$(hostname)" = inside
}

case_config_errors() {
	local i=0 want
	while IFS='|' read -r record want; do
		new bad
		args true
		add "$record"
		go
		failed "refuses-$((i++))" 125 "$want"
	done <<-'END'
		colour=red|unknown key "colour"
		hostname|expected key=value
		uid=-1|uid=-1: expected
		uid=4294967295|expected a decimal
		mount.type=x y|mount.type=x y: expected it once
		device.type=c|expected device= before it
		hook.arg=x|expected hook= before it
		device=/dev/x|device.type= is missing
		rlimit=16 0 0|expected "NUMBER SOFT HARD"
		devrule=allow c 1 3|expected "allow
		devrule=permit c 1 3 r|expected "allow
		ns=net|expected mount, pid
		ns=pid|each type once
		ns=user|go together
		cgroup=../x=1|own group
		seccomp=../x|letters
		cap.bounding=xyz|hexadecimal
		readonly=2|0 or 1
		mount=relative|absolute path
		masked=proc|absolute path
		umask=512|decimal number
		propagation=1|MS_SHARED
	END
	new bad
	go
	failed refuses-no-arg 125 'arg= is missing'
	new bad
	args true
	printf 'arg=x' >>"$S/bad/config"
	go
	failed refuses-no-nul 125 'no NUL'
	rec bad/config version=2 id=bad
	go
	failed refuses-version 125 'version=1'
	rm "$S/bad/config"
	mkfifo "$S/bad/config"
	go
	failed refuses-fifo 125 'not a regular file'
	rm "$S/bad/config"
	ln -s /etc/passwd "$S/bad/config"
	go
	failed refuses-link 125 'open .*config: .*(link|loop)'
}

case_program() {
	new prog
	args nothere
	go
	failed not-found 127 'exec: "nothere": executable file not found in \$PATH$'
	new prog
	args /bin/nothere
	go
	failed not-found-path 127 'exec: "/bin/nothere": stat /bin/nothere: no such file or directory$'
	new prog
	args /etc/passwd
	go
	failed not-executable 126 'exec: "/etc/passwd": permission denied$'
	new prog
	args /etc
	go
	failed directory 126 'exec: "/etc": is a directory'
	new prog
	printf '#!/no/such/interpreter\n' >"$R/bin/script"
	chmod +x "$R/bin/script"
	args script
	go
	failed no-interpreter 127 'interpreter'
}

case_identity() {
	new user
	add uid=1000 gid=1001 addgid=7 addgid=8 umask=63
	script 'id -u; id -g; id -G; umask; echo "$HOME"; (echo x >/etc/x) 2>/dev/null && echo wrote; true'
	go
	is user 0 '^1000$'
	yes user-groups grep -qx '1001 7 8' "$T/out"
	yes user-umask grep -qx 0077 "$T/out"
	yes user-home grep -qx /home/ann "$T/out"
	no user-rights grep -qx wrote "$T/out"
	new user
	add uid=1000
	script 'echo through >/dev/stdout'
	timeout 20 "$P" run user </dev/null 2>"$T/err" | cat >"$T/out"
	yes user-stdout grep -qx through "$T/out"
}

case_passwd_fifo() {
	new fifo
	rm "$R/etc/passwd"
	mkfifo "$R/etc/passwd"
	script 'echo "$HOME"'
	go
	is fifo-passwd 0 '^/$'
}

case_caps() {
	new caps
	script 'grep Cap /proc/self/status'
	go
	is caps 0 '^CapEff:.00000000a80425fb$'
	yes caps-bound grep -qE '^CapBnd:.00000000a80425fb$' "$T/out"
	new caps
	add uid=1000 cap.bounding=ffffffffffffffff cap.permitted=ffffff0000000400 cap.inheritable=400 cap.effective=400 cap.ambient=400
	script 'grep Cap /proc/self/status'
	go
	is caps-ambient 0 '^CapAmb:.0000000000000400$'
	yes caps-ambient-effective grep -qE '^CapEff:.0000000000000400$' "$T/out"
	new caps
	add cap.ambient=400 cap.permitted=0 cap.effective=0
	script 'grep Cap /proc/self/status'
	go
	is caps-not-inheritable 0 '^CapAmb:.0000000000000000$'
}

case_limits() {
	new limits
	add 'rlimit=7 100 200' oom=500 nnp=1
	script 'ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status'
	go
	is limits 0 '^100$'
	yes limits-hard grep -qx 200 "$T/out"
	yes limits-oom grep -qx 500 "$T/out"
	yes limits-nnp grep -qE 'NoNewPrivs:.1' "$T/out"
}

case_cwd() {
	new cwd
	add cwd=/made/here
	sed -i 's/cwd=\/\x00//' "$S/cwd/config"
	script pwd
	go
	is cwd-made 0 '^/made/here$'
}

case_devices() {
	new dev
	add device=/dev/extra device.type=c device.major=1 device.minor=5 device.mode=640 device.uid=3 device.gid=4 \
		device=/dev/pipe device.type=p device.mode=600
	script 'cd /dev; for d in null zero full random urandom tty; do test -c $d && stat -c "%n %t:%T %a" $d; done; stat -c "%n %t:%T %a %u:%g" extra
		test -p pipe && echo pipe; readlink fd; readlink stdin; readlink ptmx; test -c ptmx && echo ptmx; head -c 3 extra | wc -c'
	go
	is devices 0 '^null 1:3 666$'
	for want in 'urandom 1:9 666' 'tty 5:0 666' 'extra 1:5 640 3:4' pipe /proc/self/fd pts/ptmx ptmx 3; do
		yes "devices-$want" grep -qx -- "$want" "$T/out"
	done
}

case_devrules() {
	new rules
	add 'devrule=deny a -1 -1 rwm' 'devrule=allow c 1 11 r' 'devrule=allow b 7 -1 rw' 'devrule=deny b 7 3 w'
	add "cap.bounding=$ALL" "cap.effective=$ALL" "cap.permitted=$ALL"
	script 'mknod /tmp/kmsg c 1 11; mknod /tmp/mem c 1 1; mknod /tmp/loop b 7 0; mknod /tmp/loop3 b 7 3
		try() { if (: $1 $2) 2>/tmp/e; then echo "$3 open"; else grep -q "not permitted" /tmp/e && echo "$3 refused"; fi; }
		exec 3</tmp/kmsg && echo kmsg read; (exec 3>/tmp/kmsg) 2>&1 | grep -q "not permitted" && echo kmsg no write
		(exec 3</tmp/mem) 2>&1 | grep -q "not permitted" && echo mem no
		(exec 3<>/tmp/loop3) 2>&1 | grep -q "not permitted" && echo loop3 no; (exec 3</tmp/loop3) 2>&1 | grep -q "not permitted" || echo loop3 read
		(exec 3<>/dev/null) && echo null'
	go
	is devrules 0 '^kmsg read$'
	for want in 'kmsg no write' 'mem no' 'loop3 no' 'loop3 read' null; do yes "devrules-$want" grep -qx "$want" "$T/out"; done
	new rules
	add 'devrule=deny a -1 -1 rwm' 'devrule=allow a -1 -1 rwm' "cap.bounding=$ALL" "cap.effective=$ALL" "cap.permitted=$ALL"
	script 'mknod /tmp/kmsg c 1 11; exec 3<>/tmp/kmsg && echo all'
	go
	is devrules-all 0 '^all$'
}

case_mounts() {
	new mounts
	mkdir "$T/dir" "$R/full"
	echo there >"$T/dir/file"
	echo kept >"$R/full/old"
	chmod 711 "$R/full"
	ln -s file "$T/dir/link"
	add mount=/vol mount.type=bind "mount.source=$T/dir" mount.flags=4096 \
		mount=/nolink mount.type=bind "mount.source=$T/dir" mount.flags=4352 \
		mount=/ro/deep mount.type=none "mount.source=$T/dir" mount.flags=20481 \
		mount=/etc/one/file mount.type=bind "mount.source=$T/dir/file" mount.flags=4097 \
		mount=/full mount.type=tmpfs mount.flags=6 mount.copyup=1 \
		mount=/rotmp mount.type=tmpfs mount.flags=1 \
		mount=/dev/mqueue mount.type=mqueue mount.flags=14 \
		mount=/sys mount.type=sysfs mount.flags=15 \
		mount=/sys/fs/cgroup mount.type=cgroup mount.flags=15
	script 'cat /vol/file; echo new >/vol/new; cat /vol/link >/dev/null && echo link; cat /nolink/link; (echo x >/ro/deep/x) 2>&1 | grep -o Read-only; (echo x >/etc/one/file) 2>&1 | grep -o Read-only
		cat /full/old; stat -c %a /full; echo x >/full/y; (echo x >/rotmp/x) 2>&1 | grep -o Read-only; ls -d /dev/mqueue
		grep " /full " /proc/mounts; ls /sys/class >/dev/null && echo sys; cat /sys/fs/cgroup/cgroup.procs | head -1; cat /proc/self/cgroup'
	go
	is mounts 0 '^there$'
	yes mounts-written test "$(cat "$T/dir/new")" = new
	yes mounts-read-only test "$(grep -c Read-only "$T/out")" = 3
	for want in link kept 711 sys 1 0::/; do yes "mounts-$want" grep -qx "$want" "$T/out"; done
	yes mounts-nosymfollow grep -qE 'nolink/link.*(link|loop)' "$T/err"
	yes mounts-flags grep -qE '^tmpfs /full tmpfs rw,nosuid,nodev' "$T/out"
	no mounts-copy test -e "$R/full/y"
	new mounts
	add mount=/vol mount.type=bind mount.source=/no/such/thing mount.flags=4096
	args true
	go
	failed mounts-source-gone 125 'mount /vol: open /no/such/thing: No such file'
	new mounts
	add mount=/x mount.type=nosuchfs
	args true
	go
	failed mounts-unknown-type 125 'mount /x: nosuchfs: No such device'
	new mounts
	add mount=/tmp/.. mount.type=tmpfs
	args true
	go
	failed mounts-root 125 'this is the root itself'
	new mounts
	ln -s "$T/dir" "$T/link"
	add mount=/vol mount.type=bind "mount.source=$T/link" mount.flags=4096
	args true
	go
	failed mounts-source-link 125 'mount /vol: open .*link: .*(link|loop)'
}

case_no_cgroupns() {
	new nocg
	sed -i 's/ns=cgroup\x00//' "$S/nocg/config"
	add mount=/sys mount.type=sysfs mount.flags=15 mount=/sys/fs/cgroup mount.type=cgroup mount.flags=15
	script 'ls /sys/fs/cgroup/insula 2>&1; cat /sys/fs/cgroup/cgroup.procs'
	go
	is no-cgroup-namespace 0 'insula: No such'
}

case_hostile() {
	mkdir -p "$T/outside"
	echo secret >"$T/outside/file"
	new evil
	rm -r "$R/proc"
	ln -s /tmp "$R/proc"
	args true
	go
	failed evil-proc-link 125 'mount /proc: destination'
	new evil
	rm -r "$R/dev"
	ln -s / "$R/dev"
	args true
	go
	failed evil-dev-link 125 'mount /dev: this is the root itself'
	new evil
	ln -s "../../../../../../..$T/outside" "$R/up"
	mkdir "$T/v"
	add mount=/up/new mount.type=bind "mount.source=$T/v" mount.flags=4096
	script "ls -d $T/outside/new"
	go
	is evil-dest-up 0 "^$T/outside/new$"
	no evil-dest-up-outside test -e "$T/outside/new"
	new evil
	ln -s "$T/outside/file" "$R/etc/resolv.conf"
	echo mine >"$T/mine"
	add mount=/etc/resolv.conf mount.type=bind "mount.source=$T/mine" mount.flags=4096
	script 'cat /etc/resolv.conf'
	go
	is evil-dangling-file 0 '^mine$'
	yes evil-dangling-outside test "$(cat "$T/outside/file")" = secret
	new evil
	ln -s "$T/outside" "$R/maskme"
	ln -s ../../../../../../../../etc "$R/roetc"
	add masked=/maskme/file masked=/nothing/there ro_path=/roetc masked=/tmp
	script '(echo x >/etc/y) 2>&1; ls -A /tmp | wc -l'
	go
	is evil-masked-link 0 'Read-only'
	yes evil-masked-outside test "$(cat "$T/outside/file")" = secret
	new evil
	rm "$R/etc/passwd"
	mkfifo "$R/etc/hosts"
	echo mine >"$T/mine"
	add mount=/etc/hosts mount.type=bind "mount.source=$T/mine" mount.flags=4096
	script 'cat /etc/hosts'
	go
	is evil-fifo-dest 0 '^mine$'
	new evil
	ln -s loop2 "$R/loop1"
	ln -s loop1 "$R/loop2"
	add mount=/loop1/x mount.type=tmpfs
	args true
	go
	failed evil-loop 125 'make /loop1/x: .*(link|loop)'
	new evil
	sed -i 's/cwd=\/\x00//' "$S/evil/config"
	ln -s "$T/outside/cwd" "$R/cwd"
	add cwd=/cwd
	script pwd
	go
	is evil-cwd 0 ''
	no evil-cwd-outside test -e "$T/outside/cwd"
	new evil
	rm -r "$R/dev"
	mkdir "$R/dev"
	ln -s "$T/outside/null" "$R/dev/null"
	sed -i 's/mount=\/dev\x00mount.type=tmpfs\x00mount.flags=2\x00mount.data=[^\x00]*\x00//' "$S/evil/config"
	args true
	go
	no evil-device-link test -e "$T/outside/null"
	new evil
	touch "$R/file"
	add mount=/file/x mount.type=tmpfs
	args true
	go
	failed evil-file-parent 125 'make /file/x: Not a directory'
}

case_escape() {
	new neighbour
	echo secret >"$R/secret"
	new escape
	add "cap.bounding=$ALL" "cap.effective=$ALL" "cap.permitted=$ALL" 'devrule=allow a -1 -1 rwm'
	script 'find / -xdev -name secret; ls /run/insula 2>/dev/null; cut -d" " -f5 /proc/self/mountinfo
		mkdir /j; chroot /j /bin/true 2>/dev/null; cd /; i=0; while [ $i -lt 9 ]; do cd ..; i=$((i+1)); done; ls -d run/insula 2>/dev/null
		umount -l /; ls -d /run/insula /secret 2>/dev/null; nsenter --mount=/proc/1/ns/mnt ls / 2>/dev/null; true'
	go
	no escape-files grep -qE 'secret|insula' "$T/out"
	yes escape-ran test "$got" = 0
}

# An image that has the runtime executed inside, and writes to it: CVE-2019-5736 of another one.
case_exe() {
	local sum
	sum=$(sha256sum <"$P")
	new exe1
	printf '#!/proc/self/exe\n' >"$R/bin/entry"
	chmod 755 "$R/bin/entry"
	add "cap.bounding=$ALL" "cap.effective=$ALL" "cap.permitted=$ALL"
	args entry
	go
	is exe-inside 125 ''
	yes exe-inside-ran grep -q 'insula-container: unknown command "/bin/entry"' "$T/err"
	new exe2
	add "cap.bounding=$ALL" "cap.effective=$ALL" "cap.permitted=$ALL"
	script 'while :; do for p in /proc/[0-9]*; do [ "$p" = /proc/1 ] || { exec 7<$p/exe; } 2>/dev/null && readlink /proc/self/fd/7 | grep container >>/seen && echo x >>/proc/self/fd/7 2>>/why; done; done 2>/dev/null'
	start
	for i in 1 2 3 4 5 6; do
		rec exe2/exec-$i version=1 arg=true env=PATH=/bin
		"$P" exec exe2 exec-$i </dev/null >"$T/out" 2>&1
	done
	"$P" kill exe2 9
	wait "$pid"
	yes exe-same test "$(sha256sum <"$P")" = "$sum"
}

case_masked() {
	new masked
	add masked=/proc/kcore masked=/proc/acpi masked=/proc/keys ro_path=/proc/sys ro_path=/proc/sysrq-trigger readonly=1
	script 'wc -c </proc/keys; (echo 1 >/proc/sys/kernel/domainname) 2>&1; (echo x >/x) 2>&1; test -c /proc/keys && echo null; echo ok >/dev/null && echo dev'
	go
	is masked 0 '^0$'
	yes masked-null grep -qx null "$T/out"
	yes masked-ro test "$(grep -c Read-only "$T/out")" = 2
	yes masked-dev grep -qx dev "$T/out"
}

case_sysctl() {
	new sysctl
	add sysctl=kernel.msgmax=12345 sysctl=kernel/shmmni=99
	script 'cat /proc/sys/kernel/msgmax /proc/sys/kernel/shmmni'
	go
	is sysctl 0 '^12345$'
	no sysctl-machine test "$(cat /proc/sys/kernel/msgmax)" = 12345
	new sysctl
	add sysctl=kernel.nosuch=1
	args true
	go
	failed sysctl-unknown 125 'sysctl kernel.nosuch=1: No such file'
}

# The filter: mkdir(2) (83) gives EPERM, everything else is allowed.
filter() { printf '\x20\0\0\0\0\0\0\0\x15\0\0\1\x53\0\0\0\x06\0\0\0\x01\0\x05\0\x06\0\0\0\0\0\xff\x7f' >"$1"; }

case_seccomp() {
	local nnp
	for nnp in 1 0; do
		new seccomp
		filter "$S/seccomp/seccomp"
		add seccomp=seccomp "nnp=$nnp"
		script 'grep -E "^(Seccomp|NoNew|CapEff)" /proc/self/status; mkdir /tmp/made'
		go
		is "seccomp-$nnp" 1 '^Seccomp:.2$'
		yes "seccomp-$nnp-caps" grep -qE '^CapEff:.00000000a80425fb' "$T/out"
	done
	new seccomp
	add seccomp=seccomp
	args true
	go
	failed seccomp-missing 125 'open .*seccomp: No such file'
	new seccomp
	printf 1234567 >"$S/seccomp/seccomp"
	add seccomp=seccomp
	args true
	go
	failed seccomp-odd 125 '7 bytes are no filter'
	new seccomp
	printf '\0\0\0\0\0\0\0\0' >"$S/seccomp/seccomp"
	add seccomp=seccomp
	args true
	go
	failed seccomp-refused 125 'seccomp filter seccomp .*: Invalid argument'
}

case_userns() {
	new user
	chown -R 100000:100000 "$R"
	mkdir "$T/uvol"
	chmod 700 "$S/user" "$S"
	add ns=user 'uidmap=0 100000 65536' 'gidmap=0 100000 65536' mount=/sys mount.type=sysfs mount.flags=15 \
		mount=/sys/fs/cgroup mount.type=cgroup mount.flags=15 mount=/vol mount.type=bind "mount.source=$T/uvol" mount.flags=4096
	script 'id -u; cat /proc/self/uid_map; stat -c %u /etc/passwd; echo x >/dev/null && echo null; (: >/vol/x) 2>&1; test -c /dev/tty && echo tty; ls /sys/class >/dev/null && echo sys'
	go
	chmod 755 "$S"
	is userns 0 '^0$'
	for want in null tty sys; do yes "userns-$want" grep -qx "$want" "$T/out"; done
	yes userns-map grep -qE '0 +100000 +65536' "$T/out"
	yes userns-volume grep -q 'Permission denied' "$T/out"
	new user
	chown -R 100000:100000 "$R"
	add ns=user 'uidmap=0 100000 65536' 'gidmap=0 100000 65536' uid=1000 gid=1000
	script 'while :; do sleep 1; done'
	start
	rec user/exec-1 version=1 arg=sh arg=-c 'arg=id -u; cat /proc/self/uid_map; echo $$' env=PATH=/bin uid=5
	"$P" exec user exec-1 </dev/null >"$T/out" 2>"$T/err"
	got=$?
	is userns-exec 0 '^5$'
	yes userns-exec-map grep -qE '0 +100000 +65536' "$T/out"
	"$P" kill user 9
	wait "$pid"
}

case_hooks() {
	new hook
	add hook=/bin/sh hook.arg=sh hook.arg=-c 'hook.arg=cat >/tmp/hooked; echo $X >>/tmp/hooked; echo $$ >>/tmp/hooked' hook.env=PATH=/bin hook.env=X=y 'hook.input={"id":"hook"}'
	script 'cat /tmp/hooked'
	go
	is hook 0 '^\{"id":"hook"\}'
	yes hook-env grep -qE '(^|\})y$' "$T/out"
	new hook
	add hook=/bin/false
	args true
	go
	failed hook-fails 125 'hook /bin/false: exit status 1'
	new hook
	add hook=/bin/sleep hook.arg=sleep hook.arg=60 hook.timeout=1
	args true
	go
	failed hook-hangs 125 'hook /bin/sleep: not done after 1 s'
}

case_signals() {
	new sig
	script 'trap "echo term; exit 7" TERM; trap "echo usr" USR1; echo up; while :; do sleep 0.1; done'
	start
	sleep 0.3
	kill -USR1 "$pid"
	sleep 0.4
	kill -TERM "$pid"
	wait "$pid"
	got=$?
	is signals 7 '^term$'
	yes signals-usr grep -qx usr "$T/out"
	new sig
	script 'trap "echo kill; exit 8" HUP; while :; do sleep 0.1; done'
	start
	sleep 0.3
	"$P" kill sig 1
	wait "$pid"
	got=$?
	is signals-command 8 '^kill$'
	no signals-after "$P" kill sig 15 2>"$T/err"
	yes signals-after-text grep -q 'container sig is not running' "$T/err"
	new sig
	script 'kill -9 $$; sleep 1; (sleep 100 &) ; exit 0'
	go
	is signals-own-kill 0 ''
}

alive() { [ -n "$(cat "/sys/fs/cgroup/insula/$1/cgroup.procs" 2>/dev/null)" ]; }
gone() {
	for _ in $(seq 100); do
		alive "$1" || return 0
		sleep 0.05
	done
	return 1
}

case_death() {
	new death
	sed -i 's/ns=pid\x00//' "$S/death/config"
	add uid=1000
	script '(trap "" TERM HUP; sleep 1000) & sleep 1000'
	start
	yes death-runs alive death
	kill -9 "$pid"
	wait "$pid" 2>/dev/null
	yes death-of-run gone death
	new death
	sed -i 's/ns=pid\x00//' "$S/death/config"
	script '(setsid sleep 1000 &); exit 3'
	go
	is death-leftovers 3 ''
	yes death-leftovers-gone gone death
	"$P" delete death
	no death-twice "$P" kill death 9 all 2>"$T/err"
	yes death-no-container grep -q 'container death does not exist' "$T/err"
}

case_exec() {
	new exe
	add hostname=exe
	script 'echo marker >/tmp/marker; while :; do sleep 0.2; done'
	start
	rec exe/exec-1 version=1 arg=sh arg=-c 'arg=cat /tmp/marker; hostname; ls -d /proc/[0-9]* | wc -l; cat /proc/self/cgroup; grep CapEff /proc/self/status; exit 9' env=PATH=/bin cap.bounding=3 cap.permitted=3 cap.effective=3
	sleep 0.3
	"$P" exec exe exec-1 </dev/null >"$T/out" 2>"$T/err"
	got=$?
	is exec 9 '^marker$'
	for want in exe 0::/ 'CapEff:.0000000000000003'; do yes "exec-$want" grep -qE "^$want$" "$T/out"; done
	yes exec-started grep -qE '^started [0-9]+$' "$S/exe/exec-1.status"
	rec exe/exec-2 version=1 arg=nothere env=PATH=/bin
	"$P" exec exe exec-2 </dev/null >"$T/out" 2>&1
	got=$?
	is exec-not-found 127 ''
	yes exec-not-found-text grep -q '^failed 127 exec: "nothere": executable file not found in $PATH' "$S/exe/exec-2.status"
	rec exe/exec-3 version=1 arg=sh arg=-c 'arg=trap "exit 5" TERM; while :; do sleep 0.1; done' env=PATH=/bin
	"$P" exec exe exec-3 </dev/null >"$T/out" 2>&1 &
	local x=$!
	sleep 0.4
	kill -TERM $x
	wait $x
	yes exec-signal test $? = 5
	rec exe/exec-4 version=1 arg=sleep arg=1000 env=PATH=/bin
	"$P" exec exe exec-4 </dev/null >"$T/out" 2>&1 &
	x=$!
	sleep 0.4
	kill -9 $x
	wait $x 2>/dev/null
	sleep 0.3
	yes exec-killed test "$("$P" ps exe | grep -o '[0-9]\+' | while read -r p; do tr '\0' ' ' <"/proc/$p/cmdline"; done | grep -c 'sleep 1000')" = 0
	"$P" pause exe
	yes pause grep -q 'frozen 1' /sys/fs/cgroup/insula/exe/cgroup.events
	"$P" resume exe
	yes resume grep -q 'frozen 0' /sys/fs/cgroup/insula/exe/cgroup.events
	yes ps test "$("$P" ps exe | grep -cE '^\{"pids": \[[0-9]+(, [0-9]+)*\]\}$')" = 1
	yes stats test "$("$P" stats exe | grep -cE '^\{"memory": -?[0-9]+, .*"oom_kill": -?[0-9]+\}$')" = 1
	"$P" run exe </dev/null >"$T/out" 2>&1
	got=$?
	yes twice test $got = 125
	yes twice-runs alive exe
	"$P" kill exe 9 all
	wait "$pid"
	yes kill-all test $? = 137
	rec exe/exec-5 version=1 arg=true
	"$P" exec exe exec-5 </dev/null >"$T/out" 2>&1
	yes exec-not-running grep -q '^failed 125 container exe is not running' "$S/exe/exec-5.status"
}

case_shared_pid() {
	new one
	script 'while :; do sleep 1; done'
	start
	local first=$pid
	new two
	sed -i 's/ns=pid\x00/ns=pid:one\x00/; s/ns=ipc\x00/ns=ipc:one\x00/' "$S/two/config"
	script 'echo pid $$; tr "\0" " " </proc/1/cmdline; kill -9 $$'
	sed -i 's/ns=uts\x00/ns=uts:one\x00/' "$S/two/config"
	add hostname=renamed
	go
	is shared-pid 137 '^pid [2-9]'
	yes shared-uts test "$(nsenter -t "$(sed -n 's/started //p' "$S/one/status")" -u hostname)" = renamed
	yes shared-pid-sees grep -q '^sh -c while' "$T/out"
	new three
	sed -i 's/ns=pid\x00/ns=pid:nobody\x00/' "$S/three/config"
	args true
	go
	failed shared-pid-none 125 'container nobody is not running'
	"$P" kill one 9
	wait "$first"
	for ID in one two three; do "$P" delete $ID; done
}

case_terminal() {
	new tty
	add terminal=1
	script 'test -t 0 && echo terminal; test -c /dev/console && echo console >/dev/console; echo tty >/dev/tty; trap "echo int; exit 4" INT; while :; do sleep 0.1; done'
	python3 - "$P" >"$T/out" <<-'END'
		import os, pty, sys, time
		pid, fd = pty.fork()
		if pid == 0:
		    os.execv(sys.argv[1], [sys.argv[1], "run", "tty"])
		out = b""
		sent = False
		while True:
		    try:
		        data = os.read(fd, 4096)
		    except OSError:
		        break
		    if not data:
		        break
		    out += data
		    if b"tty\r\n" in out and not sent:
		        time.sleep(0.3)
		        os.write(fd, b"\x03")
		        sent = True
		print(out.decode().replace("\r", ""))
		print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
	END
	for want in terminal console tty '^Cint' 'status 4'; do yes "terminal-${want#^C}" grep -qFx "$want" "$T/out"; done
}

case_connect() {
	python3 - "$P" >"$T/out" 2>&1 <<-'END'
		import socket, subprocess, sys, threading
		for family, addr in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
		    s = socket.socket(family)
		    try:
		        s.bind((addr, 0))
		    except OSError:
		        print("echoed", family == socket.AF_INET6 and "no IPv6 here")
		        continue
		    s.listen()
		    def serve():
		        c, _ = s.accept()
		        data = b""
		        while True:
		            d = c.recv(65536)
		            if not d:
		                break
		            data += d
		        c.sendall(data[::-1])
		        c.close()
		    t = threading.Thread(target=serve)
		    t.start()
		    sent = bytes(range(256)) * 4096
		    r = subprocess.run([sys.argv[1], "connect", str(s.getsockname()[1])], input=sent, capture_output=True)
		    print("echoed", r.returncode == 0 and r.stdout == sent[::-1])
		    port = s.getsockname()[1]
		    s.close()
		r = subprocess.run([sys.argv[1], "connect", str(port)], input=b"", capture_output=True)
		print("refused", r.returncode, r.stderr.decode())
	END
	yes connect test "$(grep -cE '^echoed (True|no IPv6)' "$T/out")" = 2
	yes connect-refused grep -q '^refused 125 insula-container: connect to port' "$T/out"
}

case_usage() {
	"$P" >"$T/out" 2>&1
	yes usage test $? = 125
	"$P" run ../x >"$T/out" 2>&1
	yes usage-id grep -q 'container "../x": expected letters' "$T/out"
	"$P" kill x 65 >"$T/out" 2>&1
	yes usage-signal grep -q 'signal "65": expected 1 to 64' "$T/out"
}
