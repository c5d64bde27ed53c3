#!/bin/bash
# Serving under load (bench_serving.py): 16 clients with one long prompt, cold and warm; what speculation costs when it
# does not hit; what deterministic mode costs. With LLAMA_SERVER=PROGRAM the clients ask llama.cpp's server too.
#
#   LLAMA_SERVER=PROGRAM  BENCH_THREADS=N [all cores]  BENCH_SERVING_TYPE=q8_0  BENCH_ROUNDS=N [3]
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=$(realpath "${BUILD_DIR:-build/release}")/bin/ocai-engine
threads=${BENCH_THREADS:-$(nproc)}
mkdir -p build
work=$(mktemp -d build/bench-XXXXXX)
trap 'rm -rf "$work"' EXIT
"$engine" quantize --random qwen3-0.6b --type "${BENCH_SERVING_TYPE:-q8_0}" --output "$work/qwen3-0.6b.gguf" >&2
python3 tests/bench/bench_serving.py "$engine" "$work/qwen3-0.6b.gguf" engine/models/mini/ocai-mini.gguf "$threads"
