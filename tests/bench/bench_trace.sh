#!/bin/bash
# What tracing costs: `import numpy` in a root of real packages, plain (chroot), traced by slimtrace (with its namespaces
# and overlay), and by `strace -f --seccomp-bpf` as the peer, in turns. One JSON object a line; value is the time relative to
# plain, of the fastest of the rounds each, peer that of strace. With source files only, as packages bring them, and with
# byte code, where there is less work to hide the cost behind.
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

# fastest FILE: the least of its numbers.
fastest() { sort -g "$1" | head -n 1; }

# timed NAME COMMAND...: adds the milliseconds it took to NAME's file.
timed() {
	local name=$1 begin end
	shift
	begin=$(date +%s%N)
	"$@" >/dev/null 2>&1
	end=$(date +%s%N)
	echo $(((end - begin) / 1000)) >>"$work/$name"
}

measure() { # CASE ROOT
	local root=$2 i peer=null ratio=null value
	rm -f "$work"/{plain,traced,strace}
	for ((i = 0; i < rounds; i++)); do
		timed plain chroot "$root" "${command[@]}"
		timed traced "$SLIMTRACE" trace -q -o "$work/t" --root "$root" -- "${command[@]}"
		if command -v strace >/dev/null; then
			timed strace strace -f --seccomp-bpf -e 'trace=%file,chdir' -o "$work/log" chroot "$root" "${command[@]}"
		fi
	done
	value=$(awk -v a="$(fastest "$work/traced")" -v b="$(fastest "$work/plain")" 'BEGIN { printf "%.3f", a / b }')
	if [[ -e $work/strace ]]; then
		peer=$(awk -v a="$(fastest "$work/strace")" -v b="$(fastest "$work/plain")" 'BEGIN { printf "%.3f", a / b }')
		ratio=$(awk -v a="$peer" -v b="$value" 'BEGIN { printf "%.3f", a / b }')
	fi
	printf '{"bench": "trace", "case": "%s", "value": %s, "unit": "x plain time", "limit": 1, "share": %s, "peer": %s, "ratio": %s}\n' \
		"$1" "$value" "$(awk -v v="$value" 'BEGIN { printf "%.3f", 1 / v }')" "$peer" "$ratio"
}

measure "import numpy" "$FULL"
cp -a "$FULL" "$work/root"
chroot "$work/root" /usr/bin/python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.11 >/dev/null 2>&1 || true
measure "import numpy, byte code" "$work/root"
