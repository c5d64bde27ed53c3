#!/bin/bash
# The tutorial's kernels: compiled for the host and compared with plain C; compiled for NVIDIA (sm_90a) and AMD where a compiler
# for them is, and run where a device is.
set -u
cd "$(dirname "$0")/../../docs/tutorial/kernels"
fail() { echo "FAILED: $*"; [[ -s $work/log ]] && tail -n 20 "$work/log"; exit 1; }
command -v g++ >/dev/null || { echo "no g++"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

g++ -O1 -g -Wall -Wextra -Werror -fsanitize=undefined -fno-sanitize-recover=all -x c++ vector_add.cu softmax.cu \
	-x c check.c -o "$work/host" -lm >"$work/log" 2>&1 || fail "g++"
"$work/host" >"$work/log" || fail "the kernels are not what plain C says"
# The comparison sees a wrong kernel: no barrier before the groups' results are read; one exchange too few.
for change in 's,__syncthreads(); /\* all groups.*,,' 's,distance > 0,distance > 1,'; do
	sed "$change" softmax.cu >"$work/wrong.cu"
	cmp -s softmax.cu "$work/wrong.cu" && fail "$change changes nothing"
	g++ -O1 -I. -x c++ vector_add.cu "$work/wrong.cu" -x c check.c -o "$work/wrong" -lm >"$work/log" 2>&1 || fail "g++"
	"$work/wrong" >"$work/log" && fail "a wrong kernel passes: $change"
done
told="host"

nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
if [[ $nvcc ]]; then
	"$nvcc" -O2 -gencode arch=compute_90a,code=sm_90a -cudart static vector_add.cu softmax.cu check.c -o "$work/cuda" >"$work/log" 2>&1 ||
		fail "nvcc"
	told+=", sm_90a"
	if nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -qx 9.0; then
		"$work/cuda" >"$work/log" || fail "on the NVIDIA GPU"
		told+=" (run)"
	fi
fi
# hipcc, or any clang that has AMD's device libraries, named by the environment.
hip=${HIPCXX:-$(command -v hipcc)}
if [[ $hip ]]; then
	# shellcheck disable=SC2086 # flags are words
	$hip ${HIPFLAGS:-} -x hip -O2 -fPIC -shared --offload-arch=${HIPARCH:-gfx942} vector_add.cu softmax.cu -o "$work/hip.so" \
		>"$work/log" 2>&1 || fail "$hip"
	told+=", ${HIPARCH:-gfx942}"
fi
echo "tutorial: $told"
