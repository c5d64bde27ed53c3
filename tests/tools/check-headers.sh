#!/bin/bash
# Each public header compiles alone, as C by gcc and by clang, and twice in one unit.
set -u
. tests/tools/sources.sh
status=0
includes=(-I.)
for dir in */include; do
	includes+=("-I$dir")
done
read -ra pkg < <(pkg-config --cflags jansson libcurl libmicrohttpd libcrypto libpcre2-8 libutf8proc inih)

while read -r header; do
	[[ $header == */include/* ]] || continue
	for cc in gcc clang; do
		printf '#include "%s"\n#include "%s"\nint tu_is_not_empty;\n' "$header" "$header" |
			$cc -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-parameter -Werror "${includes[@]}" ${pkg[@]+"${pkg[@]}"} \
				-fsyntax-only -x c - || { echo "$header does not stand alone with $cc"; status=1; }
	done
done < <(sources h)
exit $status
