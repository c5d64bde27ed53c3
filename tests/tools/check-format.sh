#!/bin/bash
# The tree is formatted. Releases of clang-format differ in details, so only the one in use for this tree decides.
set -u
. tests/tools/sources.sh
release=14
tool=$(command -v clang-format-$release || command -v clang-format)
if [[ -z $tool ]] || ! "$tool" --version | grep -q "version $release\."; then
	echo "clang-format $release is not installed"
	exit 77
fi
sources c h | xargs -r "$tool" --dry-run -Werror
