#!/bin/bash
# Ten nodes behind links of 100 Mbit/s, three of which are none: they send noise, lie, stall, say "wait" for ever. How long the
# seven others take, and how many questions they asked in vain, is printed; that all have every byte, that the bad ones are left out
# and nothing wrong was given on, is what is tested.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
begin flip-peers-bad docker-registry skopeo
net_up 10 100mbit

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

# ---- Three of ten are none -----------------------------------------------------------------------------------------------

members=$(members_list 10)
for kinds in ${KINDS:-good,good,good noise,lie,cut stall,stall,stall wait,error,lie}; do
	kinds=${kinds//,/ } bad=() k=8
	for how in $kinds; do
		if [[ $how == good ]]; then
			start_node $k $quiet
		else
			spawn_in $k python3 $here/bad-peer.py 8422 $how
			bad+=($spawned)
		fi
		k=$((k + 1))
	done
	for i in {1..7}; do
		start_node $i $quiet
	done
	for pid in ${bad[@]+"${bad[@]}"}; do
		kill -0 $pid || fail "a bad peer has ended by itself"
	done
	before=$(out_of_registry)
	if [[ $kinds == good* ]]; then
		herd {1..10}
		echo "10 good ones: all have everything after $took ms"
	else
		herd {1..7}
		bytes=$((($(out_of_registry) - before) * 100 / packed))
		for k in 8 9 10; do
			found=0
			for i in {1..7}; do
				was_left_out $i "$(member $k)" && found=$((found + 1))
			done
			((found > 0)) || fail "$kinds: nobody has left out $(member $k)"
		done
		failures=$(for i in {1..7}; do node_ctl $i peers --json; done | python3 -c '
import json, sys
d, s, n = json.JSONDecoder(), sys.stdin.read().strip(), 0
while s:
    o, at = d.raw_decode(s)
    n += sum(m["failures"] for m in o["members"])
    s = s[at:].lstrip()
print(n)')
		echo "of 10, three are $kinds: the others have everything after $took ms, $failures questions in vain, $bytes % of the image left the registry"
	fi
	for pid in ${bad[@]+"${bad[@]}"}; do
		kill $pid
		wait $pid 2>/dev/null
	done
	end_nodes
done
