# Sourced after repo.sh: a root with whole packages installed, made once and kept in build/fixtures.
#
#   slim_full_root       sets FULL to its folder; skips the test (77) where dnf is missing

slim_full_root() {
	local dir=$slim_tests/../build/fixtures/full-root/${REPO##*/} home
	command -v dnf >/dev/null || skip "dnf is missing: no root with whole packages"
	mkdir -p "${dir%/*}"
	exec 9>"${dir%/*}/lock"
	flock 9
	if [[ ! -e $dir/usr/bin/python3 ]]; then
		rm -rf "$dir.new" "$dir"
		home=$(mktemp -d)
		echo '%_dbpath /var/lib/rpm' >"$home/.rpmmacros"
		HOME=$home dnf -y --refresh --installroot="$dir.new" --releasever=12 --repofrompath="mini,file://$REPO" --repo=mini \
			--nogpgcheck --setopt=reposdir=/dev/null --setopt=cachedir="$home/cache" --setopt=install_weak_deps=0 \
			install "${slim_packages[@]}" >"${dir%/*}/log" 2>&1 || { tail -n 3 "${dir%/*}/log"; fail "dnf cannot install the root"; }
		rm -rf "$home"
		mv "$dir.new" "$dir"
	fi
	exec 9>&-
	FULL=$(realpath "$dir")
}
