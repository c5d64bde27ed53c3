# shellcheck shell=bash disable=SC2154
# Sourced by build.sh: where the packages of the images come from. Each function leaves .rpm files in a folder.
#
#   base_repository DIR SOURCE OURS RECIPE...   the distribution; prints the folder of a repository
#   our_packages DIR [CUDA]                     ocai-engine, ocai-model-mini, ocai-agent, oc-slimtrace, oc-flip, ocai-engine-cuda
#   cuda_packages DIR HOME NAME...              of CUDA's folder: cuda-libcublas, cuda-toolkit, ... and cuda-config

die() {
	echo "build.sh: $*" >&2
	exit 1
}

# rpm_of DIR SPEC ROOT NAME LEVEL [OPTION...]: binary packages of a spec whose files lie in ROOT. Same files, same bytes.
rpm_of() {
	local top macros=
	# What systems that the spec is written for know of themselves.
	[[ $(rpm -E %_sysusersdir) == /* ]] || macros="--load $here/../rpm-specs/macros.debian"
	top=$(mktemp -d "$work/rpm.XXXXXX")
	printf '%s\n' "$2" >"$top/$4.spec"
	# shellcheck disable=SC2086 # none or two words
	LC_ALL=C.UTF-8 rpmbuild -bb --quiet --nodeps $macros \
		--define "_topdir $top/top" --define "_rpmdir $top/rpms" --define "_tmppath $top" --define "_dbpath $top/db" \
		--define "root $3" --define "_build_id_links none" --define "debug_package %{nil}" \
		--define "_buildhost localhost" --define "use_source_date_epoch_as_buildtime 1" \
		--define "clamp_mtime_to_source_date_epoch 1" --define "_binary_payload w$5.zstdio" \
		--define "__os_install_post %{nil}" "${@:6}" \
		"$top/$4.spec" >"$top/log" 2>&1 || { tail -n 5 "$top/log" >&2; die "rpmbuild cannot make $4"; }
	find "$top/rpms" -name '*.rpm' -exec mv -t "$1" {} +
	rm -rf "$top"
}

# ---- The distribution -----------------------------------------------------------------------------------------

# A folder as it is. Of an address: what the recipes name, what our packages require, and what those require, by dnf.
base_repository() { # DIR SOURCE OURS RECIPE...
	local dir=$1 source=$2 ours=$3 wanted
	shift 3
	if [[ -d $source/repodata ]]; then
		realpath "$source"
		return
	fi
	[[ $source == *://* ]] || die "$source: no repository (repodata is missing)"
	mapfile -t wanted < <(for recipe in "$@"; do recipe_files "$recipe"; done | sort -u | xargs -d '\n' sed -n '/^\[layers\]/,/^\[/s/^[a-z-]* = //p' |
		tr ' ' '\n' | grep -vE '^(ocai-|oc-|cuda-|/usr/local/)|[*$]|^$' | sed '/^[^/]/s/_[a-z]*$//' | sort -u)
	mkdir -p "$dir" "$work/none"
	# The last three are what `generate` works on: certificates, accounts, a locale.
	dnf -q -y --installroot="$work/none" --releasever=1 --repofrompath="base,$source" --repo=base --setopt=reposdir=/dev/null \
		--setopt=cachedir="$work/dnf" --setopt=install_weak_deps=0 --nogpgcheck --downloadonly --downloaddir="$dir" \
		install "${wanted[@]}" ca-certificates /etc/passwd /usr/lib/locale/C.utf8/LC_CTYPE "$ours"/*.rpm >&2 || die "dnf cannot fetch from $source"
	createrepo_c -q "$dir" >&2 || die "createrepo_c"
	echo "$dir"
}

# The folder of shared libraries of a repository: /usr/lib64, or Debian's with the machine's name.
library_folder() {
	local lists
	lists=$(python3 - "$1" <<'PY'
import glob, gzip, os, subprocess, sys, xml.etree.ElementTree as xml
repo = sys.argv[1]
ns = "{http://linux.duke.edu/metadata/repo}"
for data in xml.parse(repo + "/repodata/repomd.xml").getroot().iter(ns + "data"):
    if data.get("type") == "filelists":
        path = os.path.join(repo, data.find(ns + "location").get("href"))
        read = {".gz": ["gzip", "-dc"], ".zst": ["zstd", "-dc"], ".xz": ["xz", "-dc"]}[os.path.splitext(path)[1]]
        for line in subprocess.run(read + [path], stdout=subprocess.PIPE, check=True).stdout.decode().splitlines():
            if line.strip().endswith("/libc.so.6</file>") and "32" not in line:
                print(os.path.dirname(line.strip()[len("<file>"):-len("</file>")]))
                sys.exit()
PY
	) || return 1
	[[ $lists == /* ]] && echo "$lists"
}

# What a compiler for C++ is, in the names of the distribution; "" where it has none.
compiler_slices() {
	local gcc tools="/usr/bin/make /usr/bin/as /usr/bin/ld /usr/bin/ar /usr/bin/nm /usr/bin/ranlib /usr/bin/strip /usr/bin/objcopy"
	gcc=$(compgen -G "$1/gcc-[0-9][0-9]-*.rpm" | sed -n 's,.*/gcc-\([0-9]*\)-.*,\1,p' | head -n 1)
	if [[ $gcc ]]; then
		echo "$tools gcc_bins gcc-${gcc}_bins gcc-${gcc}_plugins g++_bins g++-${gcc}_bins cpp-${gcc}_bins libc6-dev libc6-dev_devel" \
			"libgcc-$gcc-dev libgcc-$gcc-dev_devel libstdc++-$gcc-dev_devel linux-libc-dev_devel"
	else
		echo "$tools gcc gcc_devel gcc-c++ cpp glibc-devel glibc-devel_devel libstdc++-devel_devel kernel-headers_devel"
	fi
}

# ---- Ours -----------------------------------------------------------------------------------------------------

# The packages of rpm-specs/ (make rpms). With STAGED_PACKAGES=1 the same packages, by the same spec, of the programs in
# BUILD_DIR instead of a build of their own: quicker, for tests.
our_packages() {
	local dir=$1 made=$top/build/rpms/RPMS with=() without=(NVCC=)
	[[ -z ${2:-} ]] || { with=(--with cuda) without=(); }
	if [[ -z ${STAGED_PACKAGES:-} ]]; then
		[[ -e $(compgen -G "$made/*/ocai-engine-[0-9]*.rpm") && (-z ${2:-} || -e $(plugin_package)) ]] ||
			"${MAKE:-make}" --no-print-directory -C "$top" rpms ${2:+WITH=cuda} >&2 || die "make rpms"
		find "$made" -name '*.rpm' ! -name '*-debuginfo-*' ! -name '*-debugsource-*' -exec cp -t "$dir" {} +
		return
	fi
	rm -rf "$work/stage"
	"${MAKE:-make}" --no-print-directory -s -C "$top" -o all "${without[@]}" HIP_CXX= install DESTDIR="$work/stage" PREFIX=/usr SYSCONFDIR=/etc >&2 || die "make install"
	strip "$work"/stage/usr/bin/*
	rpm_of "$dir" "$(staged_spec)" "$work/stage" ocai 3 "${with[@]}"
}

# The package of the plugin that make rpms has made; "" when it has not.
plugin_package() {
	compgen -G "$top/build/rpms/RPMS/*/ocai-engine-cuda-[0-9]*.rpm" | head -n 1
}

# The spec with nothing to compile: files come from the stage; scriptlets, which slimtrace does not run, are left out.
staged_spec() {
	awk -v top="$top" '
		/^%(prep|build|check|post|preun|postun)( |$)/ { skip = 1 }
		/^%(install|files|changelog)( |$)/ { skip = 0 }
		/^%prep$/ { print "%prep\n%setup -c -T\ncp -a " top "/LICENSE " top "/README.md .\ncp -a --parents -t . docs/*.md engine/models/mini/README.md"; next }
		/set_build_flags|__make/ && !skip { next }
		!skip { print }
		/^%install$/ { print "cp -a %{root}/. %{buildroot}/" }
	' "$top/rpm-specs/ocai.spec" | sed "s,^cp -a --parents -t \. ,cd $top \&\& cp -a --parents -t %{_builddir}/%{name}-%{version} ,"
}

# ---- CUDA -----------------------------------------------------------------------------------------------------

# cuda-libcublas is libcublas.so.N with its real version where the folder tells it; cuda-toolkit is nvcc, headers, static
# libraries and the links that ld wants; cuda-config says to the dynamic linker where all that is.
cuda_packages() {
	local dir=$1 cuda=$2 name file
	shift 2
	for name in "$@"; do
		if [[ $name == cuda-toolkit ]]; then
			cuda_toolkit "$dir" "$cuda" "$@"
			continue
		fi
		file=$(cuda_file "$cuda" "$name") || die "CUDA_HOME=$cuda has no ${name#cuda-}"
		cuda_library "$dir" "$cuda" "$file" "$name"
	done
	mkdir -p "$work/cuda-config/etc/ld.so.conf.d"
	echo /usr/local/cuda/lib64 >"$work/cuda-config/etc/ld.so.conf.d/000_cuda.conf"
	rpm_of "$dir" "Name: cuda-config
Version: $(cuda_release "$cuda")
Release: 1
Summary: CUDA: where the dynamic linker finds it
License: Apache-2.0
BuildArch: noarch
%description
%install
cp -a %{root}/. %{buildroot}/
%files
/etc/ld.so.conf.d/000_cuda.conf" "$work/cuda-config" cuda-config 3
}

# cuda-libcublas -> .../libcublas.so.13: the shortest name is the one that programs ask for.
cuda_file() {
	compgen -G "$1/lib64/${2#cuda-}.so.[0-9]*" | awk '{ print length, $0 }' | sort -n | head -n 1 | cut -d' ' -f2- | grep .
}

# "13.1.0.3" of the component that has the file, by pip's records; else the toolkit's version.
cuda_version() {
	local cuda=$1 file=$2 record
	record=$(grep -ls "/$(basename "$file")," "$cuda"/dist-info/*/RECORD 2>/dev/null | head -n 1)
	if [[ $record ]]; then
		sed -n 's/^Version: //p' "${record%/RECORD}/METADATA" | head -n 1
	else
		cuda_release "$cuda"
	fi
}

cuda_release() {
	sed -n 's/^#define CUDART_VERSION *\([0-9]*\)$/\1/p' "$1/include/cuda_runtime_api.h" | awk '{ printf "%d.%d\n", $1 / 1000, $1 % 1000 / 10 }'
}

cuda_licence() {
	local cuda=$1 file=$2 record
	record=$(grep -ls "/$(basename "$file")," "$cuda"/dist-info/*/RECORD 2>/dev/null | head -n 1)
	find "${record%/RECORD}" -iname '*license*' -type f 2>/dev/null | head -n 1
}

cuda_library() { # DIR CUDA FILE NAME
	local root real base
	root=$(mktemp -d "$work/cuda.XXXXXX")
	base=$(basename "$3") real=$(realpath "$3")
	mkdir -p "$root/usr/local/cuda/lib64" "$root/usr/share/licenses/$4"
	cp --reflink=auto "$real" "$root/usr/local/cuda/lib64/$base"
	chmod 755 "$root/usr/local/cuda/lib64/$base"
	# What ld looks for is in the development image only.
	local licence
	licence=$(cuda_licence "$2" "$3")
	cp "${licence:-/dev/null}" "$root/usr/share/licenses/$4/LICENSE"
	rpm_of "$1" "Name: $4
Version: $(cuda_version "$2" "$3")
Release: 1
Summary: CUDA: $base
License: LicenseRef-NVIDIA
%description
$base as it is in the CUDA toolkit.
%install
cp -al %{root}/. %{buildroot}/ || cp -a %{root}/. %{buildroot}/
%files
%license /usr/share/licenses/$4
/usr/local/cuda/lib64/$base" "$root" "$4" 1
	rm -rf "$root"
}

cuda_toolkit() { # DIR CUDA NAME...: with the links that ld looks for, to the libraries of these names
	local root part file
	root=$(mktemp -d "$work/cuda.XXXXXX")
	mkdir -p "$root/usr/local/cuda/lib64"
	for part in bin nvvm include; do
		[[ -e $2/$part ]] && cp -a --reflink=auto "$(realpath "$2/$part")" "$root/usr/local/cuda/$part"
	done
	cp -a "$2"/lib64/*.a "$root/usr/local/cuda/lib64/" 2>/dev/null
	cp -a "$2"/lib64/stubs "$root/usr/local/cuda/lib64/" 2>/dev/null
	for part in "${@:3}"; do
		file=$(cuda_file "$2" "$part") || continue
		ln -s "${file##*/}" "$root/usr/local/cuda/lib64/${part#cuda-}.so"
	done
	rpm_of "$1" "Name: cuda-toolkit
Version: $(cuda_release "$2")
Release: 1
Summary: CUDA: compiler, headers, static libraries
License: LicenseRef-NVIDIA
AutoReqProv: no
%description
nvcc with what it runs, the headers, and the static libraries.
%install
cp -al %{root}/. %{buildroot}/ || cp -a %{root}/. %{buildroot}/
%files
/usr/local/cuda" "$root" cuda-toolkit 1
	rm -rf "$root"
}
