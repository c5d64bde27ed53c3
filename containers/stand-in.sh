#!/bin/bash
# A repository of the distribution where none is at hand: Debian's packages as RPMs (tests/fixtures/make-rpm-repo), made
# once and kept in build/fixtures. Prints its folder. `small`: what ocai-engine and ocai-agent need, and nothing else.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")/build/fixtures
make=$(dirname "$here")/tests/fixtures/make-rpm-repo

small=(base-files base-passwd libc-bin ca-certificates bash coreutils libjansson4 libmicrohttpd12 libssl3 libpcre2-8-0 libutf8proc2
	libinih1 libsqlite3-0 libcmark0.30.2 zlib1g libcurl4 libsystemd0 libexpat1 librpm9 libstdc++6 libgcc-s1)
all=("${small[@]}" findutils grep sed mawk tar gzip procps iproute2 iputils-ping curl openssl less jq strace util-linux gcc g++ make
	binutils libc6-dev libnghttp2-14 libprotobuf-c1 libarchive13 libelf1 libseccomp2 libdeflate0 libisal2 libfuse3-3)
packages=("${all[@]}")
[[ ${1:-} == small ]] && packages=("${small[@]}")

key=$({ cat "$make"; echo "${packages[@]}"; } | sha256sum | cut -c1-16)
dir=$top/base-repo/$key
mkdir -p "$top/base-repo"
# Builds run side by side: the first one makes it, the others wait.
exec 9>"$top/base-repo/lock"
flock 9
if [[ ! -e $dir/packages.txt ]]; then
	rm -rf "$dir.new" "$dir"
	"$make" --cache "$top/debs" --jobs "$(nproc)" "$dir.new" "${packages[@]}" >"$top/base-repo/log" 2>&1 9>&- || {
		tail -n 3 "$top/base-repo/log" >&2
		echo "stand-in.sh: make-rpm-repo cannot make packages (no package lists, no network?)" >&2
		exit 1
	}
	mv "$dir.new" "$dir"
fi
realpath "$dir"
