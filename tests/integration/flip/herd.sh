# Sourced after peers.sh by what starts one image on several nodes at the same moment.
#
#   herd_ready MB   an image of MB MiB of small files, lazily loadable, in the cluster's registry: $at_registry/img:t; its tree is
#                   $work/tree, $packed what it weighs
#   herd I...       nodes I start it at once and read all of it; every byte is compared, every store checked; $took, in milliseconds
quiet="FLIP_BACKGROUND_WAIT=3600"

herd_ready() {
	python3 $here/herd-tree.py "$work/tree" "$1"
	layout_of "$work/plain" t "$work/tree"
	{ echo "flip-prefetch 1"; (cd "$work/tree" && find d* -type f | sort | sed 's,.*,/& 0 -,'); } >"$work/list"
	"$flip" convert -f zstd-chunked -p "$work/list" "oci:$work/plain:t" "oci:$work/zstd:t" >/dev/null || fail "convert"
	start_cluster_registry
	push_to_cluster "$work/zstd" t
	packed=$(du -sb "$work/zstd/blobs" | cut -f1)
}

herd() {
	local i pids=() start
	start=$(date +%s%N)
	for i in "$@"; do
		{ node_ctl "$i" mount "$at_registry/img:t" "$work/mnt$i" && cat "$work/mnt$i"/*/* >/dev/null; } 2>>"$work/out" &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" || fail "a node has not started: $(tail -n 3 "$work/out"; tail -n 3 "$work"/n*.log)"
	done
	took=$((($(date +%s%N) - start) / 1000000))
	for i in "$@"; do
		diff -r "$work/tree" "$work/mnt$i" >"$work/out" || fail "node $i shows other bytes: $(head -n 3 "$work/out")"
		node_ctl "$i" fsck >"$work/out" || fail "node $i: $(<"$work/out")"
	done
}
