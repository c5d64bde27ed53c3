# Sourced by the tests of the packages: a base system made of RPM packages, and machines that run on copies of it.
#
#   base_root            sets BASE to the root of a small RPM system and BASE_REPO to the repository it came from, both made
#                        once and kept in build/fixtures/packages: dnf, rpm, systemd, and the libraries that ours need, out
#                        of Debian's packages. Skips (77) where the tools or the packages are missing
#   in_machine FOLDER SCRIPT [ARG...]
#                        runs a script of this folder in a copy of BASE (upper layer in FOLDER, kept from call to call),
#                        without a network, as root; $WORK/srv is /srv there, this folder /mnt
#   machine_boot FOLDER  the same copy, started by systemd as process 1; MACHINE is what leads to it: $MACHINE COMMAND...
#   machine_halt         ends it
#   WORK                 a folder of this test's own, removed at the end
#   fail WORDS...  ok WORDS...

packages_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
packages_top=$(cd "$packages_dir/../.." && pwd)
base_packages=(dnf rpm systemd bash coreutils base-files base-passwd passwd ca-certificates libc-bin grep sed findutils procps util-linux
	curl man-db libcmark0.30.2 libinih1 libisal2 libdeflate0 libjansson4 libmicrohttpd12 libnghttp2-14 libpcre2-8-0
	libprotobuf-c1 librpm9 libseccomp2 libsqlite3-0 libutf8proc2 libfuse3-3 libcurl4 libarchive13 libexpat1)
# The libraries are left to whoever installs ours: that is what their dependencies are for.
base_installed=("${base_packages[@]:0:17}")

fail() {
	echo "FAIL: $*"
	exit 1
}

ok() {
	echo "ok $*"
}

skip() {
	echo "$*"
	exit 77
}

base_root() {
	local tool make=$packages_top/tests/fixtures/make-rpm-repo fixtures=$packages_top/build/fixtures key dir home
	((EUID == 0)) || skip "not root: no roots and no namespaces"
	for tool in apt-get apt-cache dpkg-deb rpmbuild rpmsign createrepo_c python3 dnf gpg unshare nsenter; do
		command -v $tool >/dev/null || skip "$tool is missing"
	done
	key=$({ cat "$make"; echo "${base_packages[@]}"; declare -f base_root; } | sha256sum | cut -c1-16)
	dir=$fixtures/packages/$key
	mkdir -p "$fixtures/packages"
	exec 9>"$fixtures/packages/lock"
	flock 9
	if [[ ! -e $dir/repo/packages.txt ]]; then
		rm -rf "$dir"
		mkdir -p "$dir"
		# Debian's downloads are shared with the other tests.
		"$make" --cache "$fixtures/debs" --jobs "$(nproc)" "$dir/repo.new" "${base_packages[@]}" >"$dir/log" 2>&1 || {
			tail -n 3 "$dir/log"
			skip "make-rpm-repo cannot make packages (no package lists, no network?)"
		}
		mv "$dir/repo.new" "$dir/repo"
	fi
	if [[ ! -e $dir/root ]]; then
		rm -rf "$dir/root.new"
		home=$(mktemp -d)
		echo '%_dbpath /var/lib/rpm' >"$home/.rpmmacros"
		HOME=$home dnf -y --refresh --installroot="$dir/root.new" --releasever=12 --repofrompath="base,file://$dir/repo" --repo=base \
			--nogpgcheck --setopt=reposdir=/dev/null --setopt=cachedir="$home/cache" --setopt=install_weak_deps=0 \
			install "${base_installed[@]}" >"$dir/log" 2>&1 || { tail -n 3 "$dir/log"; fail "dnf cannot install the base system"; }
		rm -rf "$home"
		# What differs from an RPM distribution: Debian's rpm has its database elsewhere, and there is no yum.
		mkdir -p "$dir/root.new/etc/rpm" "$dir/root.new/etc/yum.repos.d"
		echo '%_dbpath /var/lib/rpm' >"$dir/root.new/etc/rpm/macros"
		ln -s dnf "$dir/root.new/usr/bin/yum"
		printf '[base]\nname=base\nbaseurl=file:///srv/base\ngpgcheck=0\n' >"$dir/root.new/etc/yum.repos.d/base.repo"
		# As RPM distributions have it: what is installed is not started before somebody says so.
		mkdir -p "$dir/root.new/usr/lib/systemd"/{system,user}-preset
		echo 'disable *' | tee "$dir/root.new/usr/lib/systemd/system-preset/99-default-disable.preset" \
			>"$dir/root.new/usr/lib/systemd/user-preset/99-default-disable.preset"
		echo 'LANG=C.UTF-8' >"$dir/root.new/etc/locale.conf"
		mv "$dir/root.new" "$dir/root"
	fi
	exec 9>&-
	BASE=$dir/root BASE_REPO=$dir/repo
}

# Everything of a machine is in namespaces of its own: when its first process ends all others do, and no mount is left.
in_machine() {
	local folder=$1
	shift
	mkdir -p "$folder"/{upper,work,root}
	timeout 300 unshare -m -n -p -u -i --fork --kill-child=KILL bash "$packages_dir/machine.sh" "$BASE" "$BASE_REPO" "$folder" "$WORK/srv" \
		chroot "$@" </dev/null
}

machine_boot() {
	local folder=$1 n
	mkdir -p "$folder"/{upper,work,root}
	: >"$folder/console"
	setsid unshare -m -n -p -u -i --fork --kill-child=KILL bash "$packages_dir/machine.sh" "$BASE" "$BASE_REPO" "$folder" "$WORK/srv" \
		boot </dev/null >"$folder/console.err" 2>&1 &
	machine_pid=$!
	for ((n = 0; n < 300; n++)); do
		machine_init=$(pgrep -P $machine_pid 2>/dev/null)
		MACHINE="nsenter -t $machine_init -m -n -p -u -i -C env -i PATH=/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8"
		[[ -n $machine_init ]] && $MACHINE systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded' && return
		kill -0 $machine_pid 2>/dev/null || break
		sleep 0.1
	done
	cat "$folder/console.err" "$folder/console"
	return 1
}

machine_halt() {
	[[ " $(jobs -pr | tr '\n' ' ')" != *" ${machine_pid:-none} "* ]] || kill -KILL "$machine_pid" 2>/dev/null
	[[ -z ${machine_pid:-} ]] || wait "$machine_pid" 2>/dev/null
	machine_pid=
	unshare -m bash "$packages_dir/machine.sh" cgroups
}
