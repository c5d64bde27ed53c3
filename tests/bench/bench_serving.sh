#!/bin/bash
# Serving under load (bench_serving.py): 16 clients with one long prompt, cold and warm; what speculation costs when it
# does not hit. With LLAMA_SERVER=PROGRAM the clients ask llama.cpp's server too.
#
#   BENCH_SHAPE=0.6b|1.7b  LLAMA_SERVER=PROGRAM  BENCH_THREADS=N [all cores]  BENCH_SERVING_TYPE=q8_0  BENCH_ROUNDS=N [3]  BENCH_MODELS=FOLDER of qwen3-SHAPE-TYPE.gguf [made]
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=$(realpath "${BUILD_DIR:-build/release}")/bin/ocai-engine
shape=qwen3-${BENCH_SHAPE:-0.6b}
threads=${BENCH_THREADS:-$(nproc)}
mkdir -p build
work=$(mktemp -d build/bench-XXXXXX)
trap 'rm -rf "$work"' EXIT
file=${BENCH_MODELS:-$work}/$shape-${BENCH_SERVING_TYPE:-q8_0}.gguf
if [ -z "${BENCH_MODELS:-}" ]; then
	"$engine" quantize --random "$shape" --type "${BENCH_SERVING_TYPE:-q8_0}" --output "$work/plain.gguf" >&2
	python3 tests/bench/gguf_vocab.py "$work/plain.gguf" "$file" 151936
fi
python3 tests/bench/bench_serving.py "$engine" "$file" engine/models/mini/ocai-mini.gguf "$threads" "$shape"
