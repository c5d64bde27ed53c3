#!/bin/bash
# The .conf files that are installed show every key of the programs' tables, in its section, with its default, and no
# other: what a file says when its lines are uncommented is what the program says without any file.
set -u
status=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# section.key=value of commented-out settings. What stands behind a commented-out [section] is an example.
of_file() {
	awk '/^\[/ { section = substr($0, 2, length($0) - 2); example = 0 } /^#\[/ { example = 1 }
		!example && /^#[a-z-]+ *=/ { line = substr($0, 2); key = line; sub(/ *=.*/, "", key); sub(/^[^=]*= */, "", line)
			print section "." key "=" line }' "$1"
}
# The same of --show-config, which must have found no file.
of_program() {
	awk '/^\[/ { section = substr($0, 2, length($0) - 2); next } / ; / {
		key = $1; value = $0; sub(/^[^=]*= ?/, "", value); where = value; sub(/.* ; /, "", where); sub(/ *; .*/, "", value)
		if (where != "built-in") { print "not built-in: " $0; next }
		print section "." key "=" value }'
}
# 16M -> 16777216
in_bytes() {
	awk -v CONVFMT=%.17g -F= '{ n = $2; if (n ~ /^[0-9]+[KMGT]$/) { u = index("KMGT", substr(n, length(n))); n = substr(n, 1, length(n) - 1) * 1024 ^ u }
		printf "%s=%s\n", $1, n ~ /^[0-9.]+$/ ? sprintf("%.0f", n) : n }' | sort
}

# compare FILE COMMAND...
compare() {
	local conf=$1
	shift
	[[ -x $1 ]] || return
	# No configuration of this machine, no variables of this caller.
	env -i HOME="$work" PATH="$PATH" ${ASAN_OPTIONS:+ASAN_OPTIONS="$ASAN_OPTIONS"} ${LSAN_OPTIONS:+LSAN_OPTIONS="$LSAN_OPTIONS"} "$@" >"$work/shown" || { echo "$* failed"; status=1; }
	of_file "$conf" | in_bytes >"$work/file"
	of_program <"$work/shown" | in_bytes >"$work/program"
	[[ -s $work/program ]] || { echo "$*: shows nothing"; status=1; }
	diff "$work/file" "$work/program" >"$work/diff" && return
	if grep -q 'not built-in' "$work/program"; then
		echo "$conf: this machine has a configuration of its own"
		return
	fi
	echo "$conf (<) is not what $* says (>):"
	grep '^[<>]' "$work/diff"
	status=1
}
bin=$BUILD_DIR/bin
compare engine/cmd/engine.conf "$bin/ocai-engine" serve --show-config
compare agent/cmd/ocai.conf "$bin/ocai" config
compare agent/cmd/kb.conf "$bin/ocai" kb --show-config
compare imgtools/cmd/flip/flip.conf "$bin/flip" snapshotter --show-config

# Each says where it is installed.
for conf in */cmd/*.conf */cmd/*/*.conf; do
	dir=ocai
	[[ $conf == */flip/* ]] && dir=flip
	head -n 4 "$conf" | grep -q "/etc/$dir/${conf##*/}" || { echo "$conf: does not name /etc/$dir/${conf##*/}"; status=1; }
done
exit $status
