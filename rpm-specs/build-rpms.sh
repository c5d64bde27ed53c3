#!/bin/bash
# make rpms: a source package out of this tree, and the packages out of that source package alone. The same tree gives the
# same bytes: times come from the last commit (SOURCE_DATE_EPOCH overrides), owners, host and order are fixed. Where
# namespaces can be had, rpmbuild works without a network and in a folder that always has the same name: debugedit
# rewrites names in debug information, but not without a trace. Nothing is signed here.
#
#   build-rpms.sh [--top DIR] [--release N] [--source] [--srpm FILE] [RPMBUILD-OPTION...]
#
#   --top DIR      where rpmbuild works; packages are in DIR/RPMS and DIR/SRPMS, which are replaced [build/rpms]
#   --release N    the packages' release [1]
#   --source       the source package only
#   --srpm FILE    the packages of that source package; this tree is not looked at
#   --keep         leave what was compiled in DIR/BUILD
#   --again        out of that: another release, say, without compiling anew
set -euo pipefail
cd "$(dirname "$0")/.."

top=build/rpms release=1 source_only= srpm= keep= again= options=()
while (($#)); do
	case $1 in
	--top) top=$2; shift ;;
	--release) release=$2; shift ;;
	--source) source_only=1 ;;
	--srpm) srpm=$(realpath "$2"); shift ;;
	--keep) keep=1 ;;
	--again) again=1 keep=1 ;;
	*) options+=("$1") ;;
	esac
	shift
done
mkdir -p "$top"
top=$(realpath "$top")

version=$(sed -n 's/^VERSION := //p' Makefile)
[[ $(sed -n 's/^Version: *//p' rpm-specs/ocai.spec) == "$version" ]] || {
	echo "make rpms: the Makefile says version $version, rpm-specs/ocai.spec another" >&2
	exit 1
}
is_git() {
	[[ $(git rev-parse --show-toplevel 2>/dev/null) == "$PWD" ]]
}
if [[ -z ${SOURCE_DATE_EPOCH:-} ]]; then
	if is_git; then
		SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
	else # unpacked from a source package: what its changelog says
		SOURCE_DATE_EPOCH=$(date -ud "$(sed -n 's/^\* \(.*[0-9]\{4\}\) .*/\1/p' rpm-specs/ocai.spec | head -n 1)" +%s)
	fi
fi
export SOURCE_DATE_EPOCH LC_ALL=C.UTF-8 TZ=UTC
# A compiler cache may not hand out objects of another folder: the debug information in them names it.
export CCACHE_HASHDIR=1 CCACHE_BASEDIR=

# The tree that is compiled is another one, without what make deps-hip has unpacked into this one.
[[ ${HIP_CXX:-} || ! -x build/deps/hip/clang++ ]] || export HIP_CXX=$PWD/build/deps/hip/clang++

macros=(-D "ocai_release $release"
	-D "_buildhost localhost" -D "use_source_date_epoch_as_buildtime 1" -D "clamp_mtime_to_source_date_epoch 1"
	-D "source_date_epoch_from_changelog 0")
tools=()
if [[ ! -e /usr/lib/rpm/redhat/macros ]]; then
	# The rpm of Debian: it knows nothing of the packages that the spec asks for, which apt installed (make deps).
	echo "make rpms: BuildRequires are not checked: rpm's database does not know what is installed here" >&2
	tools=(--nodeps --load "$PWD/rpm-specs/macros.debian")
fi

make_source_package() {
	local name=ocai-$version list
	mkdir -p "$top/SOURCES" "$top/SPECS"
	list=$top/SOURCES/list
	if is_git; then
		git ls-files -z --cached --others --exclude-standard | while IFS= read -rd "" f; do [[ ! -e $f ]] || printf "%s\0" "$f"; done
	else
		find . -path ./build -prune -o -type f -printf '%P\0'
	fi | LC_ALL=C sort -z >"$list"
	tar --null --no-recursion --files-from="$list" --transform "s,^,$name/,S" --format=gnu --mtime="@$SOURCE_DATE_EPOCH" \
		--owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX -cf - | gzip -n >"$top/SOURCES/$name.tar.gz"
	rm "$list"
	cp rpm-specs/ocai.spec "$top/SPECS/ocai.spec"
	chmod 644 "$top/SPECS/ocai.spec" "$top/SOURCES/$name.tar.gz"
	touch -d "@$SOURCE_DATE_EPOCH" "$top/SPECS/ocai.spec" "$top/SOURCES/$name.tar.gz"
	rm -rf "$top/SRPMS"
	# The package holds the expanded spec, so that it must not hold where we are.
	(cd "$top" && rpmbuild -bs --quiet ${tools[@]+"${tools[@]}"} "${macros[@]}" -D "_topdir ." SPECS/ocai.spec)
	srpm=$(echo "$top"/SRPMS/*.src.rpm)
}

[[ -n $srpm || -n $again ]] || make_source_package
[[ -z $source_only ]] || exit 0

inside=$top alone=()
namespaces=(unshare -n -m --propagation private)
((EUID == 0)) || namespaces+=(-r)
if "${namespaces[@]}" mount --bind "$top" /mnt 2>/dev/null; then
	inside=/mnt
	alone=("${namespaces[@]}" sh -c 'mount --bind "$0" /mnt && cd / && exec "$@"' "$top")
else
	echo "make rpms: no namespaces here: rpmbuild could reach a network, and the folder's name shows in what it makes" >&2
fi
[[ -n $again ]] || { mkdir -p "$top/SRPMS" && { [[ $srpm -ef $top/SRPMS/${srpm##*/} ]] || cp "$srpm" "$top/SRPMS"; }; }
what=(--rebuild "$inside/SRPMS/${srpm##*/}")
rm -rf "$top/RPMS" "$top/BUILDROOT"
if [[ -n $again ]]; then
	# rpmbuild --rebuild has removed them.
	rpm -i --nodeps --nosignature -D "_topdir $top" "$top"/SRPMS/*.src.rpm 2>/dev/null
	what=(-bb --noprep "$inside/SPECS/ocai.spec")
else
	rm -rf "$top/BUILD"
fi
if ! ${alone[@]+"${alone[@]}"} rpmbuild ${tools[@]+"${tools[@]}"} "${macros[@]}" -D "_topdir $inside" ${keep:+--noclean} \
	${options[@]+"${options[@]}"} "${what[@]}" >"$top/log" 2>&1; then
	tail -n 40 "$top/log" >&2
	echo "make rpms: rpmbuild failed; all it said is in $top/log" >&2
	exit 1
fi
find "$top/RPMS" -name '*.rpm' -printf '%s %p\n' | sort -k 2
