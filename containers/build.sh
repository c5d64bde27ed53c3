#!/bin/bash
# Builds images out of packages by slimtrace: no Docker engine, no root. Same packages, same bytes.
#
#   containers/build.sh [IMAGE]...       all of containers/*/image.conf when none is named
#
# One JSON line for each image on standard output, with its sizes beside published ones of its peers.
#
#   OUT=DIR            where images go: an OCI layout with one tag for each image, and DIR/IMAGE.spdx.json [build/images]
#   BASE_REPO=WHERE    the distribution: a folder made by createrepo_c, or the address of a repository, from which dnf
#                      fetches what is needed
#   STAGED_PACKAGES=1  our packages out of BUILD_DIR, not by make rpms
#   BUILD_DIR=DIR      our programs [build/release]
#   CUDA_HOME=DIR      CUDA's libraries and nvcc [/usr/local/cuda]; without them its images are left out, which is said
#   GPU_ARCH=LIST      also IMAGE-LIST for each CUDA image, with code for these GPUs only (sm_90,sm_100)
#   LEVEL=N            of compression [9]
#   VERSION, REVISION, SOURCE, BASE      for the labels
set -euo pipefail
shopt -s nullglob
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
build=$(realpath "${BUILD_DIR:-$top/build/release}")
slimtrace=$build/bin/slimtrace
out=${OUT:-$top/build/images}
version=${VERSION:-$(sed -n 's/^VERSION := //p' "$top/Makefile")}
cuda=${CUDA_HOME:-/usr/local/cuda}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct 2>/dev/null || echo 1700000000)}
export TZ=UTC LC_ALL=C.UTF-8
work=$(mktemp -d "${TMPDIR:-/var/tmp}/images.XXXXXX")
trap 'rm -rf "$work"' EXIT
. "$here/packages.sh"

[[ -x $slimtrace ]] || die "no $slimtrace: make"
[[ ${BASE_REPO:-} ]] || die "BASE_REPO names no repository of the distribution"
if ((!$#)); then
	set -- "$here"/*/image.conf
	set -- "${@%/image.conf}"
	set -- "${@##*/}"
fi

# The folder of an image: a name of ours, or any folder with an image.conf.
folder_of() {
	[[ -e $here/$1/image.conf ]] && echo "$here/$1" && return
	[[ -e $1/image.conf ]] && realpath "$1" && return
	die "$1: there is no such image"
}

# A recipe and what it includes, one path per line.
recipe_files() {
	local included
	echo "$1"
	while read -r included; do
		[[ $included == /* ]] || included=$(dirname "$1")/$included
		recipe_files "$included"
	done < <(sed -n 's/^include *= *//p' "$1")
}

# Names of CUDA packages that recipes ask for: cuda-libcublas, cuda-toolkit.
cuda_names() {
	recipe_files "$1" | xargs -d '\n' grep -hoE '\bcuda-(lib[A-Za-z_-]+|toolkit)' | sort -u
}

# Whether a recipe asks for the plugin.
wants_plugin() {
	recipe_files "$1" | xargs -d '\n' grep -qE '^[a-z-]+ *= .*\bocai-engine-cuda\b'
}

images=() names=() plugin=
for image in "$@"; do
	folder=$(folder_of "$image")
	if wants_plugin "$folder/image.conf"; then
		if [[ ! -e $cuda/bin/nvcc && ! -e $(plugin_package) ]]; then
			echo "build.sh: $(basename "$folder") is left out: no package ocai-engine-cuda, and CUDA_HOME=$cuda has no nvcc" >&2
			continue
		fi
		plugin=1
	fi
	wanted=$(cuda_names "$folder/image.conf" || true)
	if [[ $wanted && ! -e $cuda/lib64 ]]; then
		echo "build.sh: $(basename "$folder") is left out: CUDA_HOME=$cuda has no lib64" >&2
		continue
	fi
	images+=("$folder")
	names+=($wanted)
done

mkdir -p "$out" "$work/ours" "$work/cuda"
our_packages "$work/ours" $plugin
repo=$(base_repository "$work/base" "$BASE_REPO" "$work/ours" "${images[@]/%//image.conf}")
libdir=$(library_folder "$repo") || die "$repo: no package has libc.so.6"
((!${#names[@]})) || cuda_packages "$work/cuda" "$cuda" $(printf '%s\n' "${names[@]}" | sort -u)

defines=(-D "VERSION=$version" -D "LIBDIR=$libdir" -D "REVISION=${REVISION:-$(git -C "$top" rev-parse HEAD 2>/dev/null || echo unknown)}"
	-D "SOURCE=${SOURCE:-https://opencloudos.org}" -D "BASE=${BASE:-opencloudos}" -D "LICENSES=Apache-2.0")
if [[ ${#names[@]} != 0 || $plugin ]]; then
	release=$(cuda_release "$cuda")
	defines+=(-D "CUDA_VERSION=$release" -D "CUDA_MAJOR=${release%%.*}" -D "COMPILER=$(compiler_slices "$repo")")
fi

# finish NAME: bill of materials, and the line.
finish() {
	"$slimtrace" sbom --compact --no-files -o "$out/$1.spdx.json" "oci:$out/oci:$1" || die "$1: sbom"
	python3 "$here/sizes.py" "$out/oci" "$1" "$work/$1.json" "$here/published.json"
}

for folder in "${images[@]}"; do
	name=$(basename "$folder")
	packages=(--rpm "$work/ours")
	compgen -G "$work/cuda/*.rpm" >/dev/null && packages+=(--rpm "$work/cuda")
	"$slimtrace" cut --recipe "$folder/image.conf" "${defines[@]}" --repo "$repo" "${packages[@]}" --no-gpg --json \
		${LEVEL:+--level "$LEVEL"} --out "oci:$out/oci:$name" >"$work/$name.json" || die "$name is not built"
	finish "$name"
	[[ ${GPU_ARCH:-} && $(cuda_names "$folder/image.conf" | grep -vx cuda-libcudart) ]] || continue
	cut=$name-${GPU_ARCH//,/-}
	"$slimtrace" slim -q --image "oci:$out/oci:$name" --keep / --keep '/**' --layers keep --gpu-arch "$GPU_ARCH" --gpu-ptx needed \
		--drop-ir ${LEVEL:+--level "$LEVEL"} --json --out "oci:$out/oci:$cut" >"$work/$cut.json" || die "$cut is not built"
	finish "$cut"
done
