#!/bin/bash
# Four nodes, each with a containerd, a daemon and a store of its own in a network namespace behind a link of 200 Mbit/s: an image
# that all of them start at once, through containerd and runc; a daemon killed in the middle of a start; the cluster cut in two;
# the registry away after the first copy. Every container starts and reads what it should.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
begin flip-peers-ctr containerd ctr runc docker-registry skopeo gcc
net_up 4 200mbit

gcc -static -O -o "$work/read-all" $here/read-all.c 2>/dev/null || skip "no static programs can be made here"
for image in a b; do
	python3 $here/herd-tree.py "$work/tree-$image" "$([[ $image == a ]] && echo 24 || echo 16)"
	mkdir "$work/tree-$image/bin"
	cp "$work/read-all" "$work/tree-$image/bin/"
	echo $image >"$work/tree-$image/d0/name"
	layout_of "$work/plain-$image" t "$work/tree-$image"
	"$flip" convert -f zstd-chunked "oci:$work/plain-$image:t" "oci:$work/zstd-$image:$image" >/dev/null || fail "convert"
	(cd "$work/tree-$image" && "$work/read-all" d0 d1 d2 d3 d4 d5 d6) >"$work/expected.$image" || fail "read-all"
done
start_cluster_registry
push_to_cluster "$work/zstd-a" a
push_to_cluster "$work/zstd-b" b
packed=$(du -sb "$work/zstd-a/blobs" | cut -f1)
quiet="FLIP_BACKGROUND_WAIT=3600"

# start_on ROUND IMAGE I...: a container on each node at once; all must print what the image's tree says.
start_on() {
	local round=$1 image=$2 i pids=()
	shift 2
	for i in "$@"; do
		run_on "$i" "$round-$i" "$at_registry/img:$image" /bin/read-all /d0 /d1 /d2 /d3 /d4 /d5 /d6 >"$work/out.$i" 2>&1 &
		pids[i]=$!
	done
	for i in "$@"; do
		wait "${pids[i]}" || fail "$round: no container on node $i: $(tail -n 3 "$work/out.$i" "$work/n$i.log")"
		# The shim writes it, perhaps after ctr has ended.
		until_true cmp -s "$work/expected.$image" "$work/said.$round-$i" || fail "$round: node $i: $(<"$work/said.$round-$i"), not $(<"$work/expected.$image")"
	done
}
all_up() {
	local i
	for i in 1 2 3 4; do
		start_node $i $quiet
		start_node_containerd $i
	done
}
all_down() {
	end_node_containerds
	end_nodes
}
members=$(members_list 4)

# ---- At once -----------------------------------------------------------------------------------------------------------

all_up
before=$(out_of_registry)
start_on herd a 1 2 3 4
bytes=$(($(out_of_registry) - before))
came_once $bytes $packed 110 "4 nodes with containerd at once" 1 2 3 4

# ---- A daemon is killed while its node starts a container ----------------------------------------------------------------

# The others' containers start. Its own waits for the daemon, which is started again as systemd would.
start_on_and_kill() { # ROUND IMAGE VICTIM SECONDS
	local round=$1 image=$2 victim=$3 killer
	(sleep "$4"; kill -9 $(children "${node_pid[$3]}")) 2>/dev/null &
	killer=$!
	run_on "$victim" "$round-$victim" "$at_registry/img:$image" /bin/read-all /d0 /d1 >/dev/null 2>&1 &
	keep $!
	start_on "$round" "$image" $(seq 4 | grep -vx "$victim")
	wait $killer
	wait "${node_pid[victim]}" 2>/dev/null
	start_node "$victim" $quiet
	# containerd dials again after a pause of its own.
	until_true node_ctr "$victim" snapshots --snapshotter flip ls >/dev/null || fail "$round: containerd of node $victim does not find its daemon"
	until_true eval "run_on $victim $round-again $at_registry/img:$image /bin/read-all /d0 /d1 /d2 /d3 /d4 /d5 /d6 >$work/out.$victim 2>&1"
	until_true cmp -s "$work/expected.$image" "$work/said.$round-again" || fail "$round: node $victim after its daemon was killed: $(tail -n 3 "$work/out.$victim")"
}
start_on_and_kill kill-late b 3 0.5
all_down
for when in ${KILLS:-0.1 1}; do
	all_up
	start_on_and_kill "kill-$when" a $((RANDOM % 4 + 1)) "$when"
	all_down
done
echo "daemons were killed in the middle: every container has started"

# ---- The cluster falls into two halves, both of which see the registry -----------------------------------------------------

all_up
cut_in_two() { for i in 1 2; do for k in 3 4; do "$1" $i $k || return; done; done; }
cut_in_two part || skip "packets cannot be dropped by rules here"
start_on parted a 1 2 3 4
cut_in_two heal
start_on healed b 1 2 3 4
all_down
all_up
(sleep 0.4; cut_in_two part) &
cutter=$!
start_on cut-meanwhile a 1 2 3 4
wait $cutter
cut_in_two heal
for i in 1 2 3 4; do
	node_ctl $i fsck >"$work/out" || fail "node $i: $(<"$work/out")"
done
all_down
echo "the cluster was cut in two: every container has started"

# ---- The registry is away after the first copy -----------------------------------------------------------------------------

all_up
start_on first a 1
until_true has_noted 1 config || fail "node 1 does not keep the configuration"
until_true has_noted 1 public 1 || fail "node 1 does not ask whether the image is public"
stop_registry
start_on alone a 2 3 4
for i in 1 2 3 4; do
	(($(node_stat $i reads bad_chunks) == 0)) || fail "node $i has seen wrong bytes"
done
all_down
echo "the registry was away: containers have started on three more nodes"
