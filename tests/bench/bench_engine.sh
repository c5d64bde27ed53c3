#!/bin/bash
# Prefill and decode of a shape (random weights, one GGUF file per type), with llama.cpp beside it when
# LLAMA_BENCH names its llama-bench: both read the same file, in turns, so that a busy moment of the machine falls on
# both. One JSON object a line, medians over the rounds; peer and ratio are null without LLAMA_BENCH.
#
#   BENCH_SHAPE=0.6b|1.7b  LLAMA_BENCH=PROGRAM  BENCH_THREADS=N [all cores]  BENCH_TYPES="bf16 q8_0 q4_0"  BENCH_ROUNDS=N [3]
#   BENCH_MODELS=FOLDER of qwen3-SHAPE-TYPE.gguf [made]  BENCH_REPS=N [3, within a round]  BENCH_PROMPT=N [512]  BENCH_GEN=N [128]
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=$(realpath "${BUILD_DIR:-build/release}")/bin/ocai-engine
threads=${BENCH_THREADS:-$(nproc)}
rounds=${BENCH_ROUNDS:-3}
shape=qwen3-${BENCH_SHAPE:-0.6b}
reps=${BENCH_REPS:-3}
prompt=${BENCH_PROMPT:-512}
gen=${BENCH_GEN:-128}
peer=${LLAMA_BENCH:-}
mkdir -p build
work=$(mktemp -d build/bench-XXXXXX)
trap 'rm -rf "$work"' EXIT

# field NAME < JSON line: its number; nothing when it is null.
field() { grep -o "\"$1\": *[0-9.eE+-]\+" | head -n 1 | sed 's/.*: *//' || true; }

# median FILE: of the numbers in it, one a line; "null" when there are none.
median() {
	[ -s "$1" ] || { echo null; return; }
	sort -g "$1" | awk '{ v[NR] = $1 } END { printf "%.2f\n", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# quotient A B: to three places, or null when either is.
quotient() {
	awk -v a="$1" -v b="$2" 'BEGIN { if (a == "null" || b == "null" || b == 0) print "null"; else printf "%.3f\n", a / b }'
}

run_ours() { # FILE
	local line test
	"$engine" bench --model "$1" -p "$prompt" -n "$gen" -t "$threads" --reps "$reps" --json >"$work/out"
	while read -r line; do
		for test in "pp$prompt" "tg$gen"; do
			case $line in *" $test\""*)
				field value <<<"$line" >>"$work/$test.value"
				field limit <<<"$line" >>"$work/$test.limit"
			esac
		done
	done <"$work/out"
}

run_peer() { # FILE
	local line
	"$peer" -m "$1" -p "$prompt" -n "$gen" -t "$threads" -r "$reps" -o jsonl >"$work/out" 2>"$work/peer.log" ||
		{ cat "$work/peer.log" >&2; return 1; }
	while read -r line; do
		case $line in
		*'"n_gen": 0,'*) field avg_ts <<<"$line" >>"$work/pp$prompt.peer" ;;
		*'"n_prompt": 0,'*) field avg_ts <<<"$line" >>"$work/tg$gen.peer" ;;
		esac
	done <"$work/out"
}

report() { # TYPE TEST
	local value limit theirs
	value=$(median "$work/$2.value") limit=$(median "$work/$2.limit") theirs=$(median "$work/$2.peer")
	[ "$value" != null ] || { echo "bench_engine: no figure for $1 $2" >&2; return 1; }
	printf '{"bench":"engine","case":"%s %s %s t%s","value":%s,"unit":"tok/s","limit":%s,"share":%s,"peer":%s,"ratio":%s}\n' \
		"$shape" "$1" "$2" "$threads" "$value" "$limit" "$(quotient "$value" "$limit")" "$theirs" "$(quotient "$value" "$theirs")"
}

for type in ${BENCH_TYPES:-bf16 q8_0 q4_0}; do
	file=${BENCH_MODELS:-$work}/$shape-$type.gguf
	[ -n "${BENCH_MODELS:-}" ] || "$engine" quantize --random "$shape" --type "$type" --output "$file" >&2
	rm -f "$work"/*.value "$work"/*.limit "$work"/*.peer
	touch "$work/pp$prompt".{value,limit,peer} "$work/tg$gen".{value,limit,peer}
	for _ in $(seq "$rounds"); do
		[ -z "$peer" ] || run_peer "$file"
		run_ours "$file"
	done
	report "$type" "pp$prompt"
	report "$type" "tg$gen"
	rm -f "$work/$shape-$type.gguf"
done
