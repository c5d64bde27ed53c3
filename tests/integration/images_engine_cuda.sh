#!/bin/bash
# The images of the engine for NVIDIA's GPUs: the plugin is all they have more, in a layer of its own on top of the layers
# that all engines share; labels, health check, bill of materials. On a machine without a GPU the engine says why it takes
# the processor, and answers from it. With cuBLASLt, cut to one architecture, it is little more than half of it.
set -u
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD_DIR:-build/release}")
slimtrace=$build/bin/slimtrace
cuda=${CUDA_HOME:-/usr/local/cuda}
skip() { echo "$*"; exit 77; }
fail() {
	echo "FAIL: $*"
	for log in "$work"/err "$work"/log; do
		[[ -s $log ]] && tail -n 5 "$log"
	done
	exit 1
}
((EUID == 0)) || skip "not root: the images cannot be run"
for tool in python3 rpmbuild createrepo_c curl; do
	command -v $tool >/dev/null || skip "$tool is missing"
done
[[ ${build##*/} == san-* ]] && skip "images hold programs as they are shipped"
[[ -e $build/plugins/libocai-engine-cuda.so ]] || skip "no plugin for CUDA was built"
BASE_REPO=$(containers/stand-in.sh small 2>&1) || skip "$BASE_REPO"
export BASE_REPO LEVEL=1 SOURCE_DATE_EPOCH=1700000000 REVISION=test STAGED_PACKAGES=1 BUILD_DIR=$build CUDA_HOME=$cuda

work=$(mktemp -d /var/tmp/images-engine-cuda.XXXXXX)
finish() {
	kill $(jobs -pr) 2>/dev/null
	wait 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
# The image, and one with the embedded model, which answers by itself.
mkdir "$work/sample"
cat >"$work/sample/image.conf" <<CONF
[recipe]
include = $PWD/containers/ocai-engine-cuda/image.conf
[files]
request = ocai-model-mini_licenses
[layers]
model = ocai-model-mini
CONF
images=(ocai-engine ocai-engine-cuda "$work/sample")
blas=
if [[ ${IMAGES_BLAS:-} ]]; then # half a gigabyte is packed: when asked for
	compgen -G "$cuda/lib64/libcublasLt.so.[0-9]*" >/dev/null || skip "no cuBLASLt in $cuda"
	blas=1 images+=(ocai-engine-cuda-blas)
	export GPU_ARCH=sm_90
fi
OUT=$work/out containers/build.sh "${images[@]}" >"$work/json" 2>"$work/err" || fail "build.sh"
python3 - "$work" "$blas" <<'PY' || fail "not what the images are to be"
import json, sys
work, blas = sys.argv[1:]
lines = {d["image"]: d for d in map(json.loads, open(work + "/json"))}
cpu, gpu, sample = (lines[n] for n in ("ocai-engine", "ocai-engine-cuda", "sample"))
layers = lambda d: [(l["name"], l["digest"]) for l in d["layers"]]
assert layers(gpu)[:2] == layers(cpu)[:2] == layers(sample)[:2], (layers(cpu), layers(gpu))
assert [n for n, _ in layers(gpu)][:3] == ["base", "engine", "engine-cuda"], layers(gpu)
assert layers(gpu)[:3] == layers(sample)[:3], layers(sample)
assert gpu["peer_bytes"] and gpu["bytes"] < gpu["peer_bytes"] / 100, gpu
def blob(d):
    return json.load(open(f"{work}/out/oci/blobs/" + d.replace(":", "/")))
run = blob(blob(gpu["digest"])["config"]["digest"])["config"]
assert run["User"] == "65532:65532" and run["Entrypoint"] == ["/usr/bin/ocai-engine"], run
assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(run["Env"]), run
assert run["Healthcheck"]["Test"] == ["CMD", "/usr/bin/ocai-engine", "health"], run
assert run["Labels"]["org.opencontainers.image.title"] == "ocai-engine-cuda" and "GPU" in run["Labels"]["org.opencontainers.image.description"], run
packages = {p["name"]: p for p in json.load(open(work + "/out/ocai-engine-cuda.spdx.json"))["packages"]}
assert packages.keys() >= {"ocai-engine", "ocai-engine-cuda", "libc6"}, packages.keys()
assert not any("cuda-" in n or "nvidia" in n.lower() for n in packages if n != "ocai-engine-cuda"), packages.keys()
print(f"ocai-engine-cuda: {gpu['packed_bytes'] / 1e6:.1f} MB as it travels, {gpu['bytes'] / 1e6:.1f} MB unpacked, "
      f"{(gpu['bytes'] - cpu['bytes']) / 1e6:.1f} MB more than ocai-engine; {gpu['peer']}: {gpu['peer_bytes'] / 1e9:.1f} GB")
if blas:
    full, cut = lines["ocai-engine-cuda-blas"], lines["ocai-engine-cuda-blas-sm_90"]
    assert layers(full)[:3] == layers(gpu)[:3] and "cuda-blas" in dict(layers(full)), layers(full)
    assert cut["packed_bytes"] < 0.6 * full["packed_bytes"], (cut["packed_bytes"], full["packed_bytes"])
    print(f"with cuBLASLt {full['packed_bytes'] / 1e6:.1f} MB, for sm_90 {cut['packed_bytes'] / 1e6:.1f} MB")
PY

in_image() { # IMAGE COMMAND...
	"$slimtrace" trace -q --image "oci:$work/out/oci:$1" --fresh-tmp -o "$work/trace" -- "${@:2}" 2>"$work/err"
}
in_image ocai-engine-cuda /usr/bin/ocai-engine --version | grep -q ocai-engine || fail "the program does not start"
if compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
	echo "there is a GPU: what the image does without one is not tested"
	exit 0
fi
in_image sample /usr/bin/ocai-engine run --backend cuda hello >"$work/log" && fail "--backend cuda without a GPU"
grep -q 'backend cuda: ' "$work/err" || fail "it does not say why there is no GPU"
port=$((20000 + RANDOM % 20000))
"$slimtrace" trace -q --image "oci:$work/out/oci:sample" --fresh-tmp -o "$work/trace" -e OCAI_ENGINE_PORT=$port -e OCAI_ENGINE_HOST=127.0.0.1 -- \
	/usr/bin/ocai-engine serve >"$work/log" 2>&1 &
server=$!
for _ in {1..200}; do
	curl -fsS "http://127.0.0.1:$port/health" >/dev/null 2>&1 && break
	kill -0 $server 2>/dev/null || fail "the server ended"
	sleep 0.1
done
curl -fsS "http://127.0.0.1:$port/v1/chat/completions" -d '{"messages":[{"role":"user","content":"show free memory"}],"max_tokens":16}' \
	>"$work/answer" 2>"$work/err" || fail "no answer"
python3 -c 'import json, sys; assert json.load(open(sys.argv[1]))["choices"][0]["message"]["content"].strip()' "$work/answer" || fail "an empty answer"
in_image sample /usr/bin/ocai-engine health --host 127.0.0.1 --port $port >/dev/null || fail "the health check: $(<"$work/err")"
grep -q 'backend cuda: ' "$work/log" || fail "the log does not say why there is no GPU"
grep -o 'backend cuda: .*' "$work/log" | head -n 1
