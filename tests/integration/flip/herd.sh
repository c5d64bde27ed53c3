# Sourced after peers.sh by what starts one image on several nodes at the same moment.
#
#   herd_ready MB [OPTION...]   a tree of MB MiB of small files and an image of it, as herd_image makes it
#   herd_image [OPTION...]      of $work/tree, made lazily loadable with these options of `flip convert` (none: with a list of all its
#                               files), in the cluster's registry: $at_registry/img:t, its layout $work/zstd, $packed what it weighs
#   herd I...       nodes I start it at once and read all of it; every byte is compared, every store checked; $took, in milliseconds;
#                   `tag=g herd I...` another tag of the same tree
quiet="FLIP_BACKGROUND_WAIT=3600"
tag=t

herd_ready() {
	python3 $here/herd-tree.py "$work/tree" "$1"
	herd_image "${@:2}"
}
herd_image() {
	local how=("$@")
	layout_of "$work/plain" t "$work/tree"
	if ((!$#)); then
		{ echo "flip-prefetch 1"; (cd "$work/tree" && find d* -type f | sort | sed 's,.*,/& 0 -,'); } >"$work/list"
		how=(-p "$work/list")
	fi
	"$flip" convert -f zstd-chunked "${how[@]}" "oci:$work/plain:t" "oci:$work/zstd:t" >/dev/null || fail "convert"
	start_cluster_registry
	push_to_cluster "$work/zstd" t
	packed=$(du -sb "$work/zstd/blobs" | cut -f1)
}

herd() {
	local i pids=() start
	start=$(date +%s%N)
	for i in "$@"; do
		{ node_ctl "$i" mount "$at_registry/img:$tag" "$work/mnt$i" && cat "$(shown_by "$i")"/*/* >/dev/null; } 2>>"$work/out" &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" || fail "a node has not started: $(tail -n 3 "$work/out"; tail -n 3 "$work"/n*.log)"
	done
	took=$((($(date +%s%N) - start) / 1000000))
	for i in "$@"; do
		diff -r "$work/tree" "$(shown_by "$i")" >"$work/out" || fail "node $i shows other bytes: $(head -n 3 "$work/out")"
		node_ctl "$i" fsck >"$work/out" || fail "node $i: $(<"$work/out")"
	done
}
