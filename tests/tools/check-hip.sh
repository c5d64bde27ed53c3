#!/bin/bash
# The plugin for AMD's GPUs, as make has built it where the compiler is there (make deps-hip): every kernel in it for every
# target, on the matrix units where it multiplies, nothing of ROCm needed to be linked, and nothing undefined but the
# runtime's functions. test_plugin.c loads it.
set -u
plugin=$BUILD_DIR/plugins/libocai-engine-hip.so
archs=$(${MAKE:-make} --no-print-directory -s BUILD_DIR="$BUILD_DIR" print-hip-archs)
[[ ${BUILD_DIR##*/} == release ]] || { echo "plugins are of the release build"; exit 77; }
[[ $archs ]] || { echo "no compiler for AMD's GPUs: make deps-hip"; exit 77; }
[[ -e $plugin ]] || { echo "$plugin was not built"; exit 1; }
hip=build/deps/hip/root/usr/lib/llvm-21/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
fail() {
	echo "$*"
	status=1
}

needed=$(readelf -d "$plugin" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vE '^(libc|libm|libstdc\+\+|libgcc_s|libdl|libpthread|ld-linux-x86-64)\.so')
[[ -z $needed ]] || fail "needs $needed"
undefined=$(nm -D --undefined-only "$plugin" | awk '{ print $NF }' | grep -vE '@|^(hip|__hip)[A-Z]|^(__gmon_start__|_ITM_|__cxa_)')
[[ -z $undefined ]] || fail "undefined and not the runtime's: $undefined"
exported=$(nm -D --defined-only "$plugin" | awk '{ print $NF }' | grep -vE '^(kn_plugin_entry)(@|$)|^__hip_')
[[ -z $exported ]] || fail "exports $exported"

# Kernels of each source file, by the names that its host side registers, in the code object of each target.
if [[ -x $hip/clang-offload-bundler ]]; then
	for cu in kernels/gpu/*.cu; do
		[[ $cu == *_sm90.cu ]] && continue
		object=$BUILD_DIR/obj/hip/$cu.o
		[[ -e $object ]] || { fail "$cu was not compiled"; continue; }
		objcopy -O binary --only-section=.hip_fatbin "$object" "$work/bundle" 2>/dev/null
		[[ -s $work/bundle ]] || continue # no kernels, or linked later
		have=$("$hip/clang-offload-bundler" --list --type=o --input="$work/bundle" 2>/dev/null | sed -n 's/.*--\(gfx[0-9a-f]*\).*/\1/p' | sort -u)
		for arch in $archs; do
			grep -qx "$arch" <<<"$have" || fail "$cu: no code for $arch"
		done
	done
	((status != 0)) || tests/tools/hip_kernels.py "$hip" "$BUILD_DIR/obj/hip/kernels/gpu" $archs || status=1
fi

# What we declare of hipBLASLt is what its header says.
prefix=build/deps/hip
if [[ -e $prefix/rocm/include/hipblaslt ]]; then
	"$prefix/clang++" -x c++ -std=c++17 -fsyntax-only -Wno-unused-command-line-argument -D__HIP_PLATFORM_AMD__ \
		-isystem $prefix/rocm/include -Ikernels tests/unit/gpu_host/hipblaslt_abi.cc || fail "hipblaslt_abi.h is not what hipBLASLt's header says"
fi

# With the runtime that came with the compiler, which wants its own C library, and without a device: that is what is said.
lib=$PWD/$prefix/root/usr/lib/x86_64-linux-gnu
if [[ -e $lib/libamdhip64.so.6 && ! -e /dev/kfd ]]; then
	said=$(OCAI_PLUGIN_DIR=$(realpath "$BUILD_DIR/plugins") "$lib/ld-linux-x86-64.so.2" --library-path "$lib:/usr/lib/x86_64-linux-gnu" \
		"$BUILD_DIR/bin/ocai-engine" run --backend hip --model tests/fixtures/models/qwen3 x 2>&1)
	[[ $said == *"backend hip: no ROCm-capable device is detected"* ]] || fail "without a device it says: $said"
fi
[[ $status != 0 ]] || echo "$(stat -c %s "$plugin") bytes for $archs"
exit $status
