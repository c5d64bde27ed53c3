#!/bin/bash
# Who may include whom: base <- kernels <- engine, base <- agent; across components only include/*.h. An include in
# quotes is looked up as the build would, and must lie in the component itself or in the include/ of one below it.
# Within the engine, http/ and cmd/ use the library by engine.h only; the commands of the assistant use the headers of
# its rooms.
set -u
. tests/tools/sources.sh
status=0

complain() {
	echo "$1 includes \"$2\": $3"
	status=1
}

# The component's own folders that hold headers, and the components below it.
declare -A own=([base]='base/src' [kernels]='kernels' [engine/src]='engine/src' [engine/http]='engine/http'
	[engine/cmd]='engine/cmd engine/http' [agent/src]='agent/src' [agent/cmd]='agent/cmd agent/src'
	[imgtools/src]='imgtools/src' [imgtools/flip]='imgtools/flip imgtools/src'
	[imgtools/cmd]='imgtools/cmd/common imgtools/cmd/slimtrace imgtools/cmd/flip imgtools/src imgtools/flip')
declare -A below=([base]='base' [kernels]='base kernels' [engine]='base kernels engine' [agent]='base agent' [imgtools]='base imgtools')

lookup() { # FILE INCLUDE ROOM COMPONENT: prints where it is found among what is allowed
	local dir
	for dir in "$(dirname "$1")" ${own[$3]:-} $(printf '%s/include ' ${below[$4]}); do
		[[ -e $dir/$2 ]] && realpath --relative-to=. "$dir/$2" && return
	done
	return 1
}

while read -r file; do
	component=${file%%/*}
	[[ -n ${below[$component]:-} ]] || continue
	room=$component
	[[ -n ${own[$component/$(cut -d/ -f2 <<<"$file")]:-} ]] && room=$component/$(cut -d/ -f2 <<<"$file")
	while read -r inc; do
		found=$(lookup "$file" "$inc" "$room" "$component") || { complain "$file" "$inc" "not within its reach"; continue; }
		case $found in
		"$component"/*) ;;
		*/include/*) ;;
		*) complain "$file" "$inc" "$found belongs to another component" ;;
		esac
		case $room:$found in
		engine/http:engine/src/* | engine/cmd:engine/src/*) complain "$file" "$inc" "the library's inside" ;;
		esac
	done < <(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"([^"]+)".*/\1/p' "$file")
done < <(sources c h cu)
exit $status
