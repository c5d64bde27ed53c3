#!/bin/bash
# The task catalogue's commands: the shell can parse them, their tools belong to an RPM system, no wording is in two
# tasks, and no Latin word runs into a group (the matching takes whole words).
set -u
files=(agent/knowledge/*.tasks)
status=0

complain() {
	echo "$1"
	status=1
}

while IFS= read -r command; do
	# Slots become a word; {other braces} are the command's own.
	filled=$(sed -E 's/\{[a-z][a-z0-9_]*(:[a-z0-9_]+)?\}/x1/g' <<<"$command")
	bash -n -c "$filled" 2>/dev/null || complain "the shell refuses: $command"
done < <(sed -n 's/^\$ //p' "${files[@]}")

# Command words: the first of the line, of a pipe's part, of what && or ; or ( begins.
foreign='apt|apt-get|dpkg|pacman|brew|zypper|apk|snap|ifconfig|netstat|route|service|chkconfig'
sed -n 's/^\$ //p' "${files[@]}" | grep -nE "(^|[|;&(] *)($foreign)( |\$)" &&
	complain "a tool that an RPM system of today does not have"

repeated=$(awk '/^\[/ { id = $1 } /^(zh|en) / { lang = $1; sub(/^.. /, ""); n = split($0, w, / ; */)
	for (i = 1; i <= n; i++) if (w[i] != "") { k = lang " " w[i]; if (k in seen && seen[k] != id) print seen[k], id, w[i]; seen[k] = id } }' \
	"${files[@]}")
[[ -z $repeated ]] || complain "wordings of two tasks: $repeated"

fragments=$(grep -nE '^en .*([^\\{:<]|^)[A-Za-z]\([A-Za-z]|^en .*[A-Za-z]\)[A-Za-z]' "${files[@]}" | cut -c1-160)
[[ -z $fragments ]] || complain "a word runs into a group: $fragments"
exit $status
