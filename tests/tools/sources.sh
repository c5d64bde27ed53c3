# Sourced by the checks: lists the tree's files, by git where this is a checkout.

# sources EXT...: files of ours with one of these extensions.
sources() {
	local patterns=("${@/#/*.}")
	if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
		git ls-files -- "${patterns[@]}" | while read -r f; do [[ -e $f ]] && echo "$f"; done
	else
		for p in "${patterns[@]}"; do
			find . -path ./build -prune -o -name "$p" -type f -print | sed 's,^\./,,'
		done
	fi
}

# strip_comments FILE: C source without its comments, lines kept.
strip_comments() {
	gcc -fpreprocessed -dD -E -w -x c - <"$1" 2>/dev/null
}
