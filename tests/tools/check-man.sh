#!/bin/bash
# Each program has a manual page that scdoc accepts and that names every subcommand and option of its tables (each in the
# part of its subcommand, and none that is in no table), every environment variable that the program reads, every key of its
# configuration, and its exit codes. What a program is made of is told by its debug information, so that a
# variable that a shared source reads has to be in the page of each program that is linked with it.
set -u
status=0
shopt -s nullglob
. tests/tools/sources.sh

complain() {
	echo "$*"
	status=1
}

# names PAGE WORD: the page has it as a word of its own.
names() {
	grep -qE -- "(^|[^a-zA-Z0-9_-])$2([^a-zA-Z0-9_-]|\$)" "$1" && return
	# _WORD_ is scdoc's underlining.
	grep -qE -- "(^|[^a-zA-Z0-9_-])_$2_([^a-zA-Z0-9_-]|\$)" "$1"
}

# Where getenv() gets no literal, and how the names look there. A new place has to be added, or say the name itself.
declare -A indirect=(
	[base/src/config.c]='' # the names in tables of keys, which are read below
	[agent/src/flow/settings.c]='names\[\] = \{[^}]*\}'
	[agent/src/term/term_look.c]='names\[\] = \{[^}]*\}|number_from_env\("[A-Z]+"'
	[agent/cmd/cmd_sys.c]='nonempty_env\("[A-Z_]+"\)'
	[imgtools/src/registry/auth.c]='\{ "[A-Z_]+", "[^"]*" \}'
)
# Linked, and not read by this program: it has no configuration of the user's, and it does not write times.
not_read=' ocai-engine:XDG_CONFIG_HOME ocai-engine:HOME flip:XDG_CONFIG_HOME flip:SOURCE_DATE_EPOCH '
key_row='(\{|KEY\() ?"[a-z]+", "[a-z-]+", ("[A-Z_]+"|NULL),'

variables= # lines FILE VARIABLE
keys=      # lines FILE SECTION KEY
while read -r file; do
	grep -qE 'getenv\(|"[a-z]+", "[a-z-]+", ("[A-Z_]+"|NULL), ?(OPT_|$)' "$file" || continue
	code=$(strip_comments "$file")
	found=$(grep -oE 'getenv\("[A-Za-z_]+"\)' <<<"$code" | grep -oE '"[^"]+"')
	# An array may take several lines; a prototype has no call's argument.
	if grep -qE '[^_a-z](secure_)?getenv\([^")]' <<<"$code"; then
		if [[ ! -v indirect[$file] ]]; then
			complain "$file: getenv() of a name that is no literal: tell tests/tools/check-man.sh where the names are"
		elif [[ ${indirect[$file]} ]]; then
			more=$(tr '\n' ' ' <<<"$code" | grep -oE "${indirect[$file]}" | grep -oE '"[A-Z_]+"')
			[[ $more ]] || complain "$file: no names by the pattern of tests/tools/check-man.sh"
			found+=$'\n'$more
		fi
	fi
	rows=$(tr '\n' ' ' <<<"$code" | grep -oE "$key_row")
	found+=$'\n'$(grep -oE '"[A-Z_]+"' <<<"$rows")
	for v in $found; do
		variables+="$file ${v//\"/}"$'\n'
	done
	[[ $rows ]] && keys+=$(sed -E "s,^[^\"]*\"([a-z]+)\"\, \"([a-z-]+)\".*,$file \1 \2," <<<"$rows")$'\n'
done < <(sources c | grep -E '^(base|kernels|engine|agent|imgtools)/')
(($(grep -c . <<<"$variables") > 60 && $(grep -c . <<<"$keys") > 50)) || complain "this check finds too little: $variables $keys"

for prog in "$BUILD_DIR"/bin/*; do
	name=${prog##*/}
	page=docs/man/$name.1.scd
	if [[ ! -e $page ]]; then
		complain "$page is missing"
		continue
	fi
	options=$("$prog" --option-names) || complain "$prog --option-names failed"
	while read -r option; do
		grep -qE -- "(^|[^a-zA-Z0-9-])$option([^a-zA-Z0-9-]|\$)" "$page" || complain "$page does not name $option"
	done <<<"$options"

	if command -v python3 >/dev/null; then
		python3 tests/tools/man_options.py "$prog" "$page" || status=1
	fi

	made_of=$(strings -a "$prog" | grep -xE '[a-z]+/[a-z0-9_/]+\.c' | sort -u)
	[[ $made_of ]] || complain "$prog does not tell its sources"
	while read -r file variable; do
		[[ $variable ]] && grep -qx "$file" <<<"$made_of" || continue
		[[ $not_read == *" $name:$variable "* ]] || names "$page" "$variable" || complain "$page does not name the variable $variable ($file)"
	done <<<"$variables"
	while read -r file section key; do
		[[ $key ]] && grep -qx "$file" <<<"$made_of" || continue
		names "$page" "$key" || complain "$page does not name the key $key of [$section] ($file)"
		grep -qF "[$section]" "$page" || grep -qF "[$section\\]" "$page" || grep -qF "\\[$section]" "$page" ||
			complain "$page does not name the section [$section] ($file)"
	done <<<"$keys"

	exits=$(sed -n '/^# EXIT STATUS/,/^# [A-DF-Z]/p' "$page")
	for code in 0 1 2; do
		grep -qE "(^|[^0-9])$code([^0-9]|\$)" <<<"$exits" || complain "$page: EXIT STATUS does not name $code"
	done
	"$prog" --no-such-option >/dev/null 2>&1
	(($? == 2)) || complain "$prog: wrong usage does not exit with 2"
done

# The shell's integration is a program's, too.
for v in $(grep -ohE '\bOCAI_[A-Z_]+' agent/shell/* | sort -u); do
	names docs/man/ocai.1.scd "$v" || complain "docs/man/ocai.1.scd does not name the variable $v (agent/shell)"
done

for page in docs/man/*.scd; do
	scdoc <"$page" >/dev/null || complain "$page: scdoc refuses it"
done
exit $status
