#!/bin/bash
# What an archive exports carries its component's prefix.
set -u
declare -A prefix=([base]='base_|opt_|err_' [kernels]='kn_' [engine]='eng_' [engine_http]='eng_' [imgtools]='img_' [agent]='ag_')
status=0

for archive in "$BUILD_DIR"/lib/lib*.a; do
	name=$(basename "$archive" .a)
	name=${name#lib}
	if [[ -z ${prefix[$name]:-} ]]; then
		echo "$archive: no prefix is known for it (tests/tools/check-symbols.sh)"
		status=1
		continue
	fi
	# Sanitizers add names that begin with two underscores.
	nm --defined-only --extern-only "$archive" | awk 'NF == 3 { print $3 }' | grep -vE "^(${prefix[$name]}|__)" |
		sed "s,^,$archive: no prefix ${prefix[$name]}: ," | grep . && status=1
done
exit $status
