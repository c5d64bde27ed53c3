#!/bin/bash
# Nodes are killed at any moment of a start, and etcd is away while an image starts: FLIP_ETCD_AWAY seconds, a short time here, a
# minute in `make bench-p2p`. All others start, and those that were killed later.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
begin flip-peers-faults docker-registry skopeo
net_up 6 100mbit

python3 $here/herd-tree.py "$work/tree" 20
layout_of "$work/plain" t "$work/tree"
{ echo "flip-prefetch 1"; (cd "$work/tree" && find d* -type f | sort | sed 's,.*,/& 0 -,'); } >"$work/list"
"$flip" convert -f zstd-chunked -p "$work/list" "oci:$work/plain:t" "oci:$work/zstd:t" >/dev/null || fail "convert"
start_cluster_registry
push_to_cluster "$work/zstd" t
packed=$(du -sb "$work/zstd/blobs" | cut -f1)
quiet="FLIP_BACKGROUND_WAIT=3600"

herd() { # I...: $took, in milliseconds
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

# ---- Any of them killed, at any time ----------------------------------------------------------------------------------------

members=$(members_list 6)
for when in ${KILLS:-0.05 0.6}; do
	for i in {1..6}; do
		start_node $i $quiet
	done
	victim=$((RANDOM % 6 + 1))
	(sleep "$when"; kill -9 "${node_pid[victim]}") 2>/dev/null &
	killer=$!
	node_ctl $victim mount "$at_registry/img:t" "$work/mnt$victim" 2>/dev/null &
	herd $(seq 6 | grep -vx $victim)
	wait $killer
	{ wait "${node_pid[victim]}"; } 2>/dev/null
	# What it has begun goes on when it is started again.
	umount -l "$work/mnt$victim" 2>/dev/null
	start_node $victim $quiet
	herd $victim
	end_nodes
done
echo "nodes were killed at any time: all others have started, and they themselves later"

# ---- etcd is away ------------------------------------------------------------------------------------------------------------

command -v etcd >/dev/null || { echo "no etcd here"; exit 0; }
etcd_at=http://10.86.0.250:2379
start_etcd() {
	spawn_in r etcd --data-dir "$work/etcd" --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls $etcd_at \
		--listen-peer-urls http://127.0.0.1:2380 --log-level error >>"$work/etcd.log" 2>&1
	etcd=$spawned
}
all_come() { # N I...: until each node knows N members
	local n=$1 i
	shift
	for i in "$@"; do
		for _ in {1..400}; do
			(($(node_ctl "$i" peers --json | python3 -c 'import json,sys; print(sum(m["named"] for m in json.load(sys.stdin)["members"]))') == n)) && continue 2
			sleep 0.05
		done
		fail "node $i does not find $n members"
	done
}
start_etcd
members=etcd:$etcd_at
for i in {1..5}; do
	start_node $i $quiet
done
all_come 5 {1..5}
kill -9 $etcd
wait $etcd 2>/dev/null
away=${FLIP_ETCD_AWAY:-13} # longer than a lease
SECONDS=0
before=$(out_of_registry)
herd 1 2 3 4
bytes=$((($(out_of_registry) - before) * 100 / packed))
# A node that comes meanwhile knows nobody, and starts with the registry alone.
start_node 6 $quiet
herd 6
((SECONDS >= away)) || sleep $((away - SECONDS))
herd 5
for i in {1..5}; do
	(($(node_ctl "$i" peers --json | python3 -c 'import json,sys; print(sum(m["named"] for m in json.load(sys.stdin)["members"]))') == 5)) ||
		fail "node $i has forgotten members while etcd was away"
done
start_etcd
all_come 6 {1..6}
echo "etcd was away for $SECONDS s: $bytes % of the image left the registry for 4 nodes, all have started, and all six know each other again"
end_nodes
