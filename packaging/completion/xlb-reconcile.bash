# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of xlb-reconcile(8) for bash, and for zsh by way of bashcompinit.
# tests/unit/manual_test.py compares the table with the program's own.

# What each verb takes: options, then @NAME for the words after it.
_xlb_reconcile_verbs='
run --once --timeout --manual --dry-run --json --out --drift-only --detailed-exitcode
plan --json --out --drift-only --dry-run --detailed-exitcode
diff --json --out --drift-only --dry-run --detailed-exitcode
apply --timeout --dry-run --json --drift-only --detailed-exitcode @file
approve --timeout --dry-run --json --drift-only --detailed-exitcode @plan
check --print
status --json --check
history --json --since --kind @service
drain --for --dry-run --json --drift-only --detailed-exitcode @backend
undrain --dry-run --json --drift-only --detailed-exitcode @backend
refresh --dry-run --json --drift-only --detailed-exitcode
pause --dry-run --json --drift-only --detailed-exitcode @service
resume --dry-run --json --drift-only --detailed-exitcode @service
unprotect --dry-run --json --drift-only --detailed-exitcode @service
trace --vip --from --protocol --length --ttl --json --live --service --rate --count --for
destroy --dry-run --yes --timeout
'
_xlb_reconcile_common='-f -v --state-dir --bpffs --interface --hook --libvirt --help --version'

_xlb_reconcile_takes() {
	local line
	while read -r line; do
		case $line in
		"$1" | "$1 "*) echo "${line#"$1"}" ;;
		esac
	done <<<"$_xlb_reconcile_verbs"
}

# Names that the file declares; $1: service or backend.  A file that is wrong
# has none.
_xlb_reconcile_names() {
	local file=() i
	for ((i = 1; i < ${#COMP_WORDS[@]} - 1; i++)); do
		[ "${COMP_WORDS[i]}" != -f ] || file=(-f "${COMP_WORDS[i + 1]/#\~/$HOME}")
	done
	"${COMP_WORDS[0]}" "${file[@]}" check --print 2>/dev/null | awk -v what="$1" '
		/^services:/ { on = 1; next }
		/^[^ ]/ { on = 0 }
		!on { next }
		/^  - name: / { service = $3; if (what == "service") print service }
		what != "backend" { next }
		/^      - \{name: / { sub(/,$/, "", $3); gsub(/"/, "", $3); print service "/" $3 }
		/^    pool: \{/ {
			max = $0; sub(/.* max: /, "", max); sub(/[,}].*/, "", max)
			for (i = 1; i <= max && i <= 64; i++) print service "/" service "-" i
		}'
}

_xlb_reconcile() {
	local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
	local verb='' i takes words=''

	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-f | --state-dir | --bpffs | --interface | --hook | --libvirt | \
			--timeout | --since | --kind | --for | --out | \
			--vip | --from | --protocol | --length | --ttl | --service | --rate | --count) i=$((i + 1)) ;;
		-*) ;;
		*)
			verb=${COMP_WORDS[i]}
			break
			;;
		esac
	done
	takes=$(_xlb_reconcile_takes "$verb")
	case $before in
	-f | --out) words=@file ;;
	--state-dir | --bpffs) words=@folder ;;
	--interface) words=$(cd /sys/class/net && echo *) ;;
	--hook) words='auto xdp xdp_generic tc' ;;
	--kind) words='scaling change vm health revision' ;;
	--libvirt) words='qemu:///system lxc:///system' ;;
	--timeout | --since | --for) words='30s 5m 1h 1d' ;;
	*)
		case $current in
		-*) words="$_xlb_reconcile_common ${takes%%@*}" ;;
		*)
			if [ -z "$verb" ]; then
				words=$(awk '{ print $1 }' <<<"$_xlb_reconcile_verbs")
			else
				case $takes in
				*@service) words=$(_xlb_reconcile_names service) ;;
				*@backend) words=$(_xlb_reconcile_names backend) ;;
				*@file) words=@file ;;
				esac
			fi
			;;
		esac
		;;
	esac
	case $words in
	@file) words=$(compgen -f -- "$current") ;;
	@folder) words=$(compgen -d -- "$current") ;;
	*) words=$(tr -s ' ' '\n' <<<"$words") ;;
	esac
	while read -r i; do
		case $i in
		'') ;;
		"$current"*) COMPREPLY+=("$i") ;;
		esac
	done <<<"$words"
	# Names of files go on with a slash where they are folders.
	case $before in
	-f | --out | --state-dir | --bpffs) ! type compopt >/dev/null 2>&1 || compopt -o filenames 2>/dev/null ;;
	esac
	return 0
}

complete -F _xlb_reconcile xlb-reconcile
