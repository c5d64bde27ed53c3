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
unformatted=$(sources c h | xargs -r "$tool" --dry-run 2>&1 | sed -nE 's/^([^ ]+):[0-9]+:[0-9]+: .*/\1/p' | sort -u)
[[ -z $unformatted ]] && exit
echo "to be formatted by: clang-format -i" $unformatted
exit 1
