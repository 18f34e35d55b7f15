#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Commands in a VM of insulad.exe, by insulactl.exe: output, errors, input, status, the end in order. wine, and the WinHvPlatform.dll that is
# made of KVM.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
BIN=$BUILD/windows/test-bin
PIPE='\\.\pipe\insula-lab-daemon'
export WINE_SESSION=$T/session
[ -e "$BIN/insulactl.exe" ] || { not_ok build "make windows-test-programs was not run"; exit 1; }
[ -e "$BIN/guest/vmlinuz" ] || tools/windows-guest "$BUILD" "$BIN/guest" >"$T/out" 2>&1 || not_ok guest 'tools/windows-guest fails'

wine_() { tests/whp-double/wine "$BUILD" "$@"; }
ctl() { timeout -k 5 300 tests/whp-double/wine "$BUILD" "$BIN/insulactl.exe" --socket "$PIPE" "$@"; }
# same NAME WANT GOT
same() {
	if [ "$2" = "$3" ]; then ok "$1"; else cat "$T/log" >"$T/out"; not_ok "$1" "expected '$2', got '$3'"; fi
}
# run_ ARGUMENT...: insulactl's status, output and errors, as one line
run_() {
	local rc=0
	ctl "$@" >"$T/o" 2>"$T/e" </dev/null || rc=$?
	echo "$rc $(tr -d '\r' <"$T/o" | tr '\n' ' ')/ $(tr -d '\r' <"$T/e" | tr '\n' ' ')"
}

printf '{"socket": "%s", "state_dir": "%s"}' "${PIPE//\\/\\\\}" "Z:${T//\//\\\\}\\\\state" >"$T/insulad.json"
wine_ "$BIN/insulad.exe" --config "Z:${T//\//\\}\\insulad.json" >"$T/log" 2>&1 </dev/null &
for _ in $(seq 100); do
	ctl info >"$T/out" 2>&1 && break
	sleep 0.2
done
ctl create --name a --mem 512M --cpus 2 </dev/null >"$T/out" 2>&1 && ctl start a </dev/null >"$T/out" 2>&1
same start 0 $?
same exec '7 out / err ' "$(run_ exec a -- sh -c 'echo out; echo err >&2; exit 7')"
same exec_environment '0 one /etc 1000 / ' "$(run_ exec -e A=one -w /etc -u 1000 a -- sh -c 'echo $A $(pwd) $(id -u)')"
same exec_missing '127 / insulactl: nope: command not found ' "$(run_ exec a -- nope)"
run_ exec b -- true >"$T/out"
case $(cat "$T/out") in "1 / insulactl: "*b*) ok exec_no_vm ;; *) not_ok exec_no_vm 'no refusal' ;; esac
head -c 1000000 /dev/urandom >"$T/in"
ctl exec -i a -- sh -c 'cat; exit 3' <"$T/in" >"$T/copy" 2>"$T/out"
same exec_input_status 3 $?
if cmp "$T/in" "$T/copy" >"$T/out" 2>&1; then ok exec_every_byte; else not_ok exec_every_byte "$(stat -c %s "$T/copy") bytes"; fi
# A snapshot of it, which goes on beside it: the same boot, with what was in its memory, and another name.
complains='dmesg | grep -cE "soft lockup|rcu.*stall|Call Trace"'
complaints=$(run_ exec a -- sh -c "$complains")
boot=$(run_ exec a -- sh -c 'echo in memory >/run/kept; cat /proc/sys/kernel/random/boot_id')
ctl snapshot a "Z:${T//\//\\}\\snapshot" </dev/null >"$T/out" 2>&1
same snapshot 0 $?
ctl run -d --name b --restore "Z:${T//\//\\}\\snapshot" --identity new -- </dev/null >"$T/out" 2>&1
same restore 0 $?
same restore_same_boot "$boot" "$(run_ exec b -- cat /proc/sys/kernel/random/boot_id)"
same restore_memory '0 in memory 2 b / ' "$(run_ exec b -- sh -c 'cat /run/kept; nproc; hostname')"
same restore_source "$boot" "$(run_ exec a -- cat /proc/sys/kernel/random/boot_id)"
same restore_clock 0 "$(ctl exec b -- sh -c "d=\$((\$(date +%s) - $(date +%s))); [ \$d -ge -5 ] && [ \$d -le 30 ]" </dev/null >"$T/out" 2>&1; echo $?)"
same restore_no_complaint "$complaints" "$(run_ exec b -- sh -c "$complains")"
ctl stop -t 60 b </dev/null >"$T/out" 2>&1
# A machine with other work is slow to begin it.
(for _ in $(seq 30); do
	sleep 1
	! ctl rpc vm.exec.signal '{"id":"a","exec":8,"signal":15}' </dev/null >"$T/signal" 2>&1 || break
done) &
same exec_signal '143 / ' "$(run_ exec a -- sleep 100)"
same run_command '5 said / ' "$(run_ run --mem 512M -- sh -c 'echo said; exit 5')"
stop=$(ctl stop -t 60 a </dev/null 2>"$T/out" | tr -d '\r' | grep -o '"stop":"[a-z]*"')
same stop_in_order '"stop":"clean"' "$stop"
wine_ --end
