# SPDX-License-Identifier: BSD-2-Clause
# Completion of insulactl for bash. The words come from insulactl itself.
_insulactl_vms() {
	insulactl --json ps 2>/dev/null | grep -o '"name":"[^"]*"' | cut -d'"' -f4
}
_insulactl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i words
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--socket) i=$((i + 1)) ;;
		-*) ;;
		*) verb=${COMP_WORDS[i]} && break ;;
		esac
	done
	case $prev in
	--socket | --config | --kernel | --initrd | --rootfs | --metrics)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	esac
	case $verb:$cur in
	:*) words="$(insulactl --complete) --socket --json --help --version" ;;
	run:* | create:* | *:-*) words=$(insulactl --complete "$verb") ;;
	rpc:*) words='' ;;
	device:*)
		case $((COMP_CWORD - i)) in
		1) words=restart ;;
		2) words=$(_insulactl_vms) ;;
		*) words='' ;;
		esac
		;;
	*) words=$(_insulactl_vms) ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _insulactl insulactl
