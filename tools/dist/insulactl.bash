# SPDX-License-Identifier: BSD-2-Clause
# Completion of insulactl for bash.
_insulactl_vms() {
	insulactl --json ps 2>/dev/null | grep -o '"name":"[^"]*"' | cut -d'"' -f4
}
_insulactl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
	local verbs='run create start exec ps info console logs pause resume stop kill device wait rm metrics events rpc'
	local flags='--name --config --detach --kernel --initrd --append --cpus --mem --disk --rootfs --share --console --net --rng --vsock --metrics --timeout -d -i -t -e -w -u'
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
	case $verb in
	'') mapfile -t COMPREPLY < <(compgen -W "$verbs --socket --json --help --version" -- "$cur") ;;
	run | create) mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur") ;;
	rpc) ;;
	device)
		case $((COMP_CWORD - i)) in
		1) mapfile -t COMPREPLY < <(compgen -W restart -- "$cur") ;;
		2) mapfile -t COMPREPLY < <(compgen -W "$(_insulactl_vms)" -- "$cur") ;;
		esac
		;;
	*) mapfile -t COMPREPLY < <(compgen -W "$(_insulactl_vms)" -- "$cur") ;;
	esac
}
complete -F _insulactl insulactl
