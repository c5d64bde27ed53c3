#!/bin/bash
# libfuse >= 3.18 (passthrough, io_uring) where the system's is older: built once from Debian's own source package of
# a newer suite into a private prefix, ${XDG_CACHE_HOME:-~/.cache}/ocai/fuse3-VERSION, to which build/deps/fuse3 links.
# The system's apt is read (which mirror, which keys) and not touched: lists and downloads go to a temporary folder.
# The library is static, with the archives of the libraries it needs beside it: a program that is linked with it needs
# nothing at run time from a cache folder.
#
#   fuse3.sh             sees to it; fails with a message when it cannot
#   fuse3.sh --is-needed exit 0 when a build has to be done
#
# A failed attempt is not repeated for a day, so that a machine without network does not wait for it each time.
set -euo pipefail
cd "$(dirname "$0")/.."

want=3.18
suite=sid
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ocai
failed=$cache/fuse3-failed

# The newest of our own that is new enough and static.
built_prefix() {
	local d
	for d in "$cache"/fuse3-[0-9]*; do
		if [[ -e $d/lib/libfuse3.a ]] && PKG_CONFIG_LIBDIR=$d/lib/pkgconfig pkg-config --atleast-version=$want fuse3 2>/dev/null; then
			echo "$d"
		fi
	done | sort -V | tail -n 1
}

link_prefix() {
	mkdir -p build/deps
	ln -sfn "$1" build/deps/fuse3
}

is_needed() {
	! pkg-config --atleast-version=$want fuse3 2>/dev/null && [[ -z $(built_prefix) ]] &&
		[[ -z $(find "$failed" -mtime -1 2>/dev/null) ]]
}

if [[ ${1:-} == --is-needed ]]; then
	is_needed
	exit
fi
pkg-config --atleast-version=$want fuse3 2>/dev/null && exit 0
prefix=$(built_prefix)
if [[ -n $prefix ]]; then
	link_prefix "$prefix"
	exit 0
fi
is_needed || exit 1

mkdir -p "$cache"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

give_up() {
	echo "libfuse $want: $*" >&2
	[[ -e $tmp/log ]] && tail -n 20 "$tmp/log" >&2
	touch "$failed"
	exit 1
}

command -v apt-get >/dev/null || give_up "the system's is older, and building it needs Debian's source packages"

# Where this machine gets Debian from, and the keys of Debian's archive.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -e $keys ]] || keys= # then apt's own
[[ -n $mirror ]] || give_up "this machine's apt knows no Debian mirror"

mkdir -p "$tmp"/lists/partial "$tmp"/cache/archives/partial "$tmp"/src
echo "deb-src ${keys:+[signed-by=$keys]} $mirror $suite main" >"$tmp/sources.list"
private_apt() {
	# Shorter time-outs than the default: this is an extra. A mirror that lags behind is fine: the signature is
	# checked all the same, and so is the version.
	apt-get -qq -o Dir::Etc::sourcelist="$tmp/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::lists="$tmp/lists" -o Dir::Cache="$tmp/cache" -o APT::Sandbox::User="$(id -un)" \
		-o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o Acquire::Retries=1 \
		-o Acquire::Check-Valid-Until=false "$@"
}

get_source() {
	private_apt update &&
		cd "$tmp/src" &&
		private_apt source --download-only fuse3 &&
		dpkg-source -x fuse3_*.dsc fuse3
}

# archive PACKAGE: its static library, which the linker then finds before the shared one.
archive() {
	local name=${1#lib}
	echo "$(pkg-config --variable=libdir "$1")/lib$name.a"
}

# build PREFIX: moved there in one step, so that an interrupted run leaves nothing that looks finished.
build() {
	cd "$tmp/src/fuse3" &&
		meson setup b --buildtype=release --prefix="$1" --libdir=lib \
			-Ddefault_library=static -Dutils=false -Dexamples=false -Dtests=false -Duseroot=false &&
		ninja -C b &&
		DESTDIR=$tmp/dest ninja -C b install &&
		cp "$(archive liburing)" "$(archive numa)" "$tmp/dest$1/lib/" &&
		rm -rf "$1" &&
		mv "$tmp/dest$1" "$1"
}

echo "make deps: building libfuse >= $want from Debian's source package"
(get_source) >"$tmp/log" 2>&1 || give_up "cannot get the source package"
version=$(sed -nE 's/^Version: ([0-9]+:)?([0-9.]+).*/\2/p' "$tmp"/src/fuse3_*.dsc | head -n 1)
[[ -n $version ]] || give_up "the source package does not tell its version"
(build "$cache/fuse3-$version") >"$tmp/log" 2>&1 || give_up "cannot build $version"
[[ -n $(built_prefix) ]] || give_up "$version was built, but that is older"
link_prefix "$(built_prefix)"
