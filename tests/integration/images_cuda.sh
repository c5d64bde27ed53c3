#!/bin/bash
# Images with CUDA, by a small one: the runtime library and one library with GPU code, as packages made of CUDA_HOME; the
# dynamic linker of the image finds both; cut to one architecture it is smaller, keeps its base layer, and still loads.
set -u
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD_DIR:-build/release}")
slimtrace=$build/bin/slimtrace
cuda=${CUDA_HOME:-/usr/local/cuda}
skip() { echo "$*"; exit 77; }
fail() {
	echo "FAIL: $*"
	[[ -s $work/err ]] && tail -n 5 "$work/err"
	exit 1
}
((EUID == 0)) || skip "not root: the images cannot be run"
for tool in python3 rpmbuild createrepo_c; do
	command -v $tool >/dev/null || skip "$tool is missing"
done
compgen -G "$cuda/lib64/libcurand.so.[0-9]*" >/dev/null || skip "no libraries of CUDA in $cuda (CUDA_HOME)"
[[ ${build##*/} == san-* ]] && skip "images hold programs as they are shipped"
BASE_REPO=$(containers/stand-in.sh small 2>&1) || skip "$BASE_REPO"
export BASE_REPO LEVEL=1 SOURCE_DATE_EPOCH=1700000000 REVISION=test STAGED_PACKAGES=1 BUILD_DIR=$build CUDA_HOME=$cuda GPU_ARCH=sm_90

work=$(mktemp -d /var/tmp/images-cuda.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir "$work/cuda-sample"
cat >"$work/cuda-sample/image.conf" <<CONF
[recipe]
include = $PWD/containers/cuda-base/image.conf
[layers]
random = cuda-libcurand
CONF
OUT=$work/out containers/build.sh "$work/cuda-sample" >"$work/json" 2>"$work/err" || fail "build.sh"
python3 - "$work" "$cuda" <<'PY' || fail "not what the images are to be"
import json, re, sys
work, cuda = sys.argv[1:]
full, cut = map(json.loads, open(work + "/json"))
assert (full["image"], cut["image"]) == ("cuda-sample", "cuda-sample-sm_90"), (full, cut)
names = [l["name"] for l in full["layers"]]
assert [l["name"] for l in cut["layers"]] == names and names[:5] == ["base", "cxx", "shell", "cuda-base", "random"], (names, cut)
same = [a["digest"] == b["digest"] for a, b in zip(full["layers"], cut["layers"])]
assert same[:3] == [True] * 3 and not same[4], same
assert cut["packed_bytes"] < 0.95 * full["packed_bytes"], (full["packed_bytes"], cut["packed_bytes"])
def blob(d):
    return json.load(open(f"{work}/out/oci/blobs/" + d.replace(":", "/")))
version = re.search(r"#define CUDART_VERSION\s+(\d+)", open(cuda + "/include/cuda_runtime_api.h").read()).group(1)
version = f"{int(version) // 1000}.{int(version) % 1000 // 10}"
for d in full, cut:
    run = blob(blob(d["digest"])["config"]["digest"])["config"]
    assert f"CUDA_VERSION={version}" in run["Env"] and "NVIDIA_VISIBLE_DEVICES=all" in run["Env"], run
    assert run["User"] == "65532:65532" and run["Labels"]["cuda.version"] == version, run
packages = {p["name"]: p for p in json.load(open(work + "/out/cuda-sample.spdx.json"))["packages"]}
assert packages["cuda-libcurand"]["versionInfo"][0].isdigit() and "cuda-libcudart" in packages, packages.keys()
print(f"{full['packed_bytes'] / 1e6:.1f} MB, for one architecture {cut['packed_bytes'] / 1e6:.1f} MB")
PY
# The linker finds them by name: nothing says where they are but the image's own ld.so.cache.
for image in cuda-sample cuda-sample-sm_90; do
	out=$("$slimtrace" trace -q --image "oci:$work/out/oci:$image" --env "LD_PRELOAD=libcurand.so.10 libcudart.so.13" -o "$work/trace" -- \
		/usr/bin/bash -c 'while read -r line; do [[ $line == */libcurand* || $line == */libcudart* ]] && echo "${line##*/}"; done </proc/self/maps' 2>"$work/err")
	[[ $out == *libcurand.so.10* && $out == *libcudart.so.13* ]] || fail "$image: libraries that are loaded: $out"
done
