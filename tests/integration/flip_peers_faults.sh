#!/bin/bash
# Nodes are killed at any moment of a start, and etcd is away while an image starts: FLIP_ETCD_AWAY seconds, a short time here, a
# minute in `make bench-p2p`. All others start, and those that were killed later.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
. "$(dirname "$0")/flip/herd.sh"
begin flip-peers-faults docker-registry skopeo
net_up 6 100mbit

herd_ready 20

# ---- Any of them killed, at any time ----------------------------------------------------------------------------------------

members=$(members_list 6)
for when in ${KILLS:-0.05 0.6}; do
	for i in {1..6}; do
		start_node $i $quiet
	done
	victim=$((RANDOM % 6 + 1))
	(sleep "$when"; kill -9 $(children "${node_pid[victim]}")) 2>/dev/null &
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
start_etcd
members=etcd:$etcd_at
for i in {1..5}; do
	start_node $i $quiet
done
all_come 5 {1..5}
end_child $etcd -9
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
	(($(named_by "$i") == 5)) || fail "node $i has forgotten members while etcd was away"
done
start_etcd
all_come 6 {1..6}
echo "etcd was away for $SECONDS s: $bytes % of the image left the registry for 4 nodes, all have started, and all six know each other again"
end_nodes
