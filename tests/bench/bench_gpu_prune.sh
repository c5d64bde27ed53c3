#!/bin/bash
# How much smaller the CUDA libraries become, packed (zstd -3), when they keep code for one architecture: one JSON line per
# library and one for all. CUDA_LIBS=DIR says where they are, GPU_ARCH which architecture (sm_90). Prints nothing where there are none.
# That the copies compute the same is shown on a machine with a GPU by gpu_prune_run.py, with and without them.
set -euo pipefail
dir=${CUDA_LIBS:-/usr/local/cuda/lib}
arch=${GPU_ARCH:-sm_90}
slimtrace=${BUILD_DIR:-build/release}/bin/slimtrace
shopt -s nullglob
libs=("$dir"/lib{cublasLt,cublas,cufft,curand,cusolver,cusparse}.so.[0-9][0-9] "$dir"/libcudnn_*.so.9)
((${#libs[@]})) || { echo "bench_gpu_prune: no CUDA libraries in $dir" >&2; exit 0; }
command -v zstd >/dev/null || { echo "bench_gpu_prune: no zstd" >&2; exit 0; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$slimtrace" gpu --gpu-arch "$arch" --gpu-ptx needed --drop-ir -o "$work" "${libs[@]}" >/dev/null

line() { # CASE FULL PRUNED
	printf '{"bench":"gpu_prune","case":"%s %s","value":%d,"unit":"bytes","limit":%d,"share":%s,"peer":null,"ratio":null}\n' \
		"$1" "$arch" "$3" "$2" "$(awk "BEGIN { printf \"%.4f\", $3 / $2 }")"
}

full_sum=0 pruned_sum=0
for lib in "${libs[@]}"; do
	full=$(zstd -3 -q -c "$lib" | wc -c)
	pruned=$(zstd -3 -q -c "$work/${lib##*/}" | wc -c)
	line "${lib##*/}" "$full" "$pruned"
	full_sum=$((full_sum + full)) pruned_sum=$((pruned_sum + pruned))
done
line all "$full_sum" "$pruned_sum"
