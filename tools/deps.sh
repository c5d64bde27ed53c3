#!/bin/bash
# make deps: installs what building and testing need, by apt-get or dnf, whichever the system has. Asks the package
# database first, so a machine that has everything needs neither root nor network; a stamp keyed on this script's own
# text makes the next run immediate. libfuse of a newer suite comes last and can only warn: the
# system's serves too, without passthrough and io_uring.
# With --tests also what only the tests drive: package tools, container run time, registry, shells, terminals.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=
[[ ${1:-} == --tests ]] && tests=-tests
stamp=build/deps/stamp$tests
key=$(cat tools/deps.sh tools/fuse3.sh /etc/os-release 2>/dev/null | sha256sum)
[[ -e $stamp && $(<"$stamp") == "$key" ]] && exit 0

apt_packages=(gcc libc6-dev make binutils pkg-config clang clang-format llvm
	libjansson-dev libcurl4-openssl-dev libmicrohttpd-dev libssl-dev libpcre2-dev libutf8proc-dev libinih-dev
	libcmocka-dev libzstd-dev zlib1g-dev libarchive-dev libsqlite3-dev libcmark-dev libgnutls28-dev librpm-dev libsystemd-dev
	libelf-dev libseccomp-dev libexpat1-dev libnghttp2-dev libprotobuf-c-dev protobuf-c-compiler libdeflate-dev libisal-dev
	libfuse3-dev libfabric-dev curl scdoc python3-minimal)
dnf_packages=(gcc glibc-devel make binutils pkgconf-pkg-config clang clang-tools-extra compiler-rt llvm diffutils findutils
	jansson-devel libcurl-devel libmicrohttpd-devel openssl-devel pcre2-devel utf8proc-devel inih-devel
	libcmocka-devel libzstd-devel zlib-devel libarchive-devel sqlite-devel cmark-devel gnutls-devel rpm-devel systemd-devel
	elfutils-libelf-devel libseccomp-devel expat-devel libnghttp2-devel protobuf-c-devel protobuf-c-compiler libdeflate-devel
	isa-l-devel fuse3-devel libfabric-devel curl scdoc python3)
if [[ $tests ]]; then
	apt_packages+=(chromium chromium-driver) # the page at /
	apt_packages+=(tmux zsh xz-utils g++ python3-jsonschema python3-yaml strace attr libcap2-bin)
	apt_packages+=(rpm createrepo-c dnf fakeroot gnupg rpmlint debugedit elfutils)
	apt_packages+=(runc containerd docker-registry skopeo umoci erofs-utils openssl iproute2 procps etcd-server nginx-light dnsmasq-base)
	apt_packages+=(systemd systemd-journal-remote dbus-daemon python3-dbus python3-gi)
	dnf_packages+=(tmux zsh xz gcc-c++ python3-jsonschema python3-pyyaml strace attr libcap)
	dnf_packages+=(systemd-journal-remote dbus-daemon python3-dbus python3-gobject-base)
	dnf_packages+=(rpm-build rpm-sign createrepo_c dnf gnupg2 rpmlint)
	dnf_packages+=(runc containerd skopeo erofs-utils openssl iproute systemd procps-ng dnsmasq)
	# The client test runs the official JavaScript client; whatever brought `node` here is fine.
	command -v node >/dev/null || {
		apt_packages+=(nodejs npm)
		dnf_packages+=(nodejs npm)
	}
fi

fail() {
	echo "make deps: $*" >&2
	exit 1
}

# as_root COMMAND...
as_root() {
	if ((EUID == 0)); then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		fail "these packages are missing and installing them needs root or sudo: ${missing[*]}"
	fi
}

apt_is_installed() {
	[[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

apt_install() {
	# A lock of another apt is waited for; recommended packages are not needed.
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 update
	# clang's run-time library for the sanitizers has a package of its own only in newer releases.
	apt_is_installed libclang-rt-dev || { apt-cache show libclang-rt-dev >/dev/null 2>&1 && missing+=(libclang-rt-dev); } || true
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
		install -y --no-install-recommends "${missing[@]}" >/dev/null
}

missing=()
if command -v apt-get >/dev/null; then
	tools/fuse3.sh --is-needed && apt_packages+=(dpkg-dev xz-utils patch meson ninja-build liburing-dev libnuma-dev)
	for p in "${apt_packages[@]}"; do
		apt_is_installed "$p" || missing+=("$p")
	done
	if ((${#missing[@]})); then
		echo "make deps: installing ${missing[*]}"
		apt_install
	fi
elif command -v dnf >/dev/null; then
	for p in "${dnf_packages[@]}"; do
		rpm -q --whatprovides "$p" >/dev/null 2>&1 || missing+=("$p")
	done
	if ((${#missing[@]})); then
		echo "make deps: installing ${missing[*]}"
		as_root dnf -y -q --setopt=install_weak_deps=False install "${missing[@]}" ||
			fail "dnf cannot install all of: ${missing[*]} (some distributions keep -devel packages in a repository that must be enabled first, such as CRB or EPEL)"
	fi
else
	fail "neither apt-get nor dnf is here; these are needed: ${apt_packages[*]}"
fi

for pc in jansson libcurl libmicrohttpd libcrypto libpcre2-8 libutf8proc inih cmocka sqlite3 libcmark zlib libarchive libzstd rpm libelf libseccomp expat libnghttp2 libprotobuf-c libdeflate libisal fuse3; do
	pkg-config --exists "$pc" || fail "$pc is still not found by pkg-config"
done

mkdir -p build/deps
if tools/fuse3.sh; then
	echo "$key" >"$stamp"
else
	echo "make deps: warning: no libfuse >= 3.18: flip works with the system's, without passthrough and io_uring" >&2
fi
