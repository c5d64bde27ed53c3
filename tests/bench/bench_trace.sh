#!/bin/bash
# What tracing costs: `import numpy` in a root of real packages, plain (chroot), traced by slimtrace (with its namespaces
# and overlay), by its stops alone, and by `strace -f --seccomp-bpf` as the peer, in turns. One JSON object a line; value is
# the median of the times relative to plain in the same round, peer that of strace. Not the fastest round: by luck tracer and
# command share a processor for all of it once in a while, which is no measure of the others. With source files only, as
# packages bring them, and with byte code, where there is less work to hide the cost behind.
#
#   BENCH_ROUNDS=N [15]
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/integration/slim/repo.sh
. tests/integration/slim/root.sh
((EUID == 0)) || { echo "bench_trace: not root" >&2; exit 0; }
(slim_repo && slim_full_root) >&2 || { echo "bench_trace: no root to trace in" >&2; exit 0; }
slim_repo
slim_full_root
rounds=${BENCH_ROUNDS:-15}
mkdir -p build
work=$(mktemp -d "$PWD/build/bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
command=(/usr/bin/python3 -B -c 'import numpy')

# ratio NAME: the median of its times over the plain ones of the same round; null without any.
ratio() {
	[[ -e $work/$1 ]] || { echo null; return; }
	paste "$work/$1" "$work/plain" | awk '{ printf "%.4f\n", $1 / $2 }' | sort -g | awk '{ v[NR] = $1 }
		END { printf "%.3f", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# timed NAME COMMAND...: adds the milliseconds it took to NAME's file.
timed() {
	local name=$1 begin end
	shift
	begin=$(date +%s%N)
	"$@" >/dev/null 2>&1
	end=$(date +%s%N)
	echo $(((end - begin) / 1000)) >>"$work/$name"
}

report() { # CASE VALUE PEER
	awk -v c="$1" -v v="$2" -v p="$3" 'BEGIN {
		printf "{\"bench\": \"trace\", \"case\": \"%s\", \"value\": %s, \"unit\": \"x plain time\", \"limit\": 1, ", c, v
		printf "\"share\": %.3f, \"peer\": %s, \"ratio\": %s}\n", 1 / v, p, p == "null" ? p : sprintf("%.3f", p / v) }'
}

measure() { # CASE ROOT
	local root=$2 i
	rm -f "$work"/{plain,traced,stops,strace}
	for ((i = 0; i < rounds; i++)); do
		timed plain chroot "$root" "${command[@]}"
		timed traced "$SLIMTRACE" trace -q -o "$work/t" --root "$root" -- "${command[@]}"
		timed stops "$SLIMTRACE" trace -q -m stops -o "$work/t" --root "$root" -- "${command[@]}"
		if command -v strace >/dev/null; then
			timed strace strace -f --seccomp-bpf -e 'trace=%file,chdir' -o "$work/log" chroot "$root" "${command[@]}"
		fi
	done
	report "$1" "$(ratio traced)" "$(ratio strace)"
	report "$1, by stops" "$(ratio stops)" "$(ratio strace)"
}

measure "import numpy" "$FULL"
cp -a "$FULL" "$work/root"
chroot "$work/root" /usr/bin/python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.11 >/dev/null 2>&1 || true
measure "import numpy, byte code" "$work/root"
