#!/bin/bash
# Long contexts, batches, a stolen core, the start, memory, deterministic mode, the prompt cache on disk (bench_targets.py), with
# llama.cpp beside us when LLAMA_BENCH and LLAMA_SERVER name its programs.
#
#   BENCH_SHAPE=0.6b|1.7b  BENCH_THREADS=N [all cores]  BENCH_ROUNDS=N [3]
#   BENCH_MODELS=FOLDER of qwen3-SHAPE-TYPE.gguf for q8_0, q4_0, bf16, with a vocabulary [made]
#   BENCH_CASES="depth batch stolen start resident deterministic disk"
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=$(realpath "${BUILD_DIR:-build/release}")/bin/ocai-engine
threads=${BENCH_THREADS:-$(nproc)}
shape=qwen3-${BENCH_SHAPE:-0.6b}
cases=${BENCH_CASES:-depth batch stolen start resident deterministic disk}
mkdir -p build
work=$(mktemp -d build/bench-XXXXXX)
trap 'rm -rf "$work"' EXIT
for type in q8_0 q4_0 bf16; do
	[ -z "${BENCH_MODELS:-}" ] || break
	"$engine" quantize --random "$shape" --type "$type" --output "$work/plain.gguf" >&2
	python3 tests/bench/gguf_vocab.py "$work/plain.gguf" "$work/$shape-$type.gguf" 151936
	rm "$work/plain.gguf"
done
python3 tests/bench/bench_targets.py "$engine" "${BENCH_MODELS:-$work}" "$threads" "$shape" "$cases"
