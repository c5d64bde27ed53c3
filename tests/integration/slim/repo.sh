# Sourced by tests that need RPM packages: a repository of real software, made once and kept in build/fixtures.
#
#   slim_repo            sets REPO to its folder; skips the test (77) where the tools or the packages are missing
#   slim_root DIR CMD..  runs a command in a root by chroot, with the few devices that programs expect;
#                        SLIM_USER=UID:GID: as that user
#   slim_size DIR        bytes of the files below, hard links once
#   slim_rpm DIR ARG...  rpm on the root's database
#   fail WORDS...        ends the test

BUILD_DIR=${BUILD_DIR:-build/release}
SLIMTRACE=$BUILD_DIR/bin/slimtrace
slim_packages=(busybox bash coreutils libc-bin base-files base-passwd python3 python3-numpy openssl curl ca-certificates)
slim_tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

fail() {
	echo "FAIL: $*"
	exit 1
}

skip() {
	echo "$*"
	exit 77
}

slim_repo() {
	local tool make=$slim_tests/fixtures/make-rpm-repo top=$slim_tests/../build/fixtures key dir
	for tool in apt-get apt-cache dpkg-deb rpmbuild createrepo_c python3; do
		command -v "$tool" >/dev/null || skip "$tool is missing: no RPM packages to test with"
	done
	key=$({ cat "$make"; echo "${slim_packages[@]}"; } | sha256sum | cut -c1-16)
	dir=$top/rpm-repo/$key
	mkdir -p "$top/rpm-repo"
	# Tests run side by side: the first one builds, the others wait.
	exec 9>"$top/rpm-repo/lock"
	flock 9
	if [[ ! -e $dir/packages.txt ]]; then
		rm -rf "$dir.new" "$dir"
		if ! "$make" --cache "$top/debs" --jobs "$(nproc)" "$dir.new" "${slim_packages[@]}" >"$top/rpm-repo/log" 2>&1; then
			exec 9>&-
			tail -n 3 "$top/rpm-repo/log"
			skip "make-rpm-repo cannot make packages (no package lists, no network?)"
		fi
		mv "$dir.new" "$dir"
	fi
	exec 9>&-
	REPO=$dir
}

slim_need_root() {
	((EUID == 0)) || skip "not root: roots cannot be run by chroot"
}

slim_root() {
	local root=$1 mount
	shift
	# In a mount namespace of its own, so that nothing is left behind in the root.
	mount='mount -t tmpfs none "$0/dev" && for d in null zero random urandom; do
		: >"$0/dev/$d" && mount --bind "/dev/$d" "$0/dev/$d" || exit 125; done
		exec chroot ${SLIM_USER:+--userspec=$SLIM_USER} "$0" "$@"'
	mkdir -p "$root/dev"
	timeout 300 unshare -m --propagation private sh -c "$mount" "$root" "$@"
}

slim_size() {
	find "$1" -type f -printf '%i %s\n' | sort -u | awk '{ n += $2 } END { print n + 0 }'
}

slim_rpm() {
	local root
	root=$(cd "$1" && pwd)
	shift
	rpm --root "$root" --dbpath /var/lib/rpm "$@"
}
