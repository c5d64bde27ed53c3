#!/bin/bash
# What is loaded at run time, when it is first used, is not linked: a short command such as --help would pay for it.
# slimtrace is made of librpm, which costs it half a millisecond.
set -u
# flip is a daemon that fetches, and its commands ask it over HTTP.
declare -A lazy=([slimtrace]='libsystemd|libnvidia-ml|libcurl|libarchive' [flip]='libsystemd|libnvidia-ml|librpm')
usual='libcurl|librpm|libsystemd|libnvidia-ml'
status=0

for prog in "$BUILD_DIR"/bin/*; do
	readelf -d "$prog" | grep -oE "NEEDED.*\[(${lazy[${prog##*/}]:-$usual})\.so[^]]*\]" |
		sed "s,^NEEDED[^[]*,$prog is linked with ," | grep . && status=1
done
exit $status
