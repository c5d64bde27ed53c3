#!/bin/bash
# Members that ask each other by libfabric (its tcp provider), each in a network namespace behind a link of 200 Mbit/s: an image that
# all start at once, right to the byte and out of the registry once; beside members that have only HTTP; one killed in the middle; one
# with another secret; one whose address for libfabric leads nowhere; and where libfabric is missing.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
. "$(dirname "$0")/flip/herd.sh"
begin flip-peers-fabric docker-registry skopeo
net_up 4 200mbit

herd_ready 16 --no-prefetch
fabric="FLIP_PEERS_TRANSPORT=fabric"
export FI_PROVIDER=tcp # the others of libfabric's would look for their cards

sum_of() { # NAME I...
	local name=$1 sum=0 i
	shift
	for i in "$@"; do
		sum=$((sum + $(node_peers "$i" "$name")))
	done
	echo $sum
}
# Whether no question of theirs went by HTTP in libfabric's place. It may where a step of a connection took more than 1.5 s, as on a
# machine that stands still, and for no other reason.
only_late() { # I...
	local i
	(($(sum_of fabric_fell_back "$@") > 0)) || return 0
	for i in "$@"; do
		grep ": libfabric: " "$work/n$i.log" | grep -vE "libfabric: (no connection|has not answered);" && fail "questions of node $i went by HTTP"
	done
	echo "$(sum_of fabric_fell_back "$@") questions went by HTTP: connections took more than a second"
	return 1
}
way_of() { node_ctl "$1" peers --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["transport"])'; }
# As etcd would tell it: where each listens for libfabric, 8423 unless it is said otherwise.
fabric_list() { # [PORT OF NODE 2]
	echo "static:$(member 1)+8423,$(member 2)+${1:-8423},$(member 3)+8423,$(member 4)+8423"
}

# ---- All by libfabric, members by etcd --------------------------------------------------------------------------------

members=$(fabric_list)
if command -v etcd >/dev/null; then
	start_etcd
	members=etcd:$etcd_at
fi
for i in 1 2 3 4; do
	start_node $i $quiet $fabric
done
[[ $(way_of 1) == fabric ]] || skip "no libfabric here: $(grep -h libfabric "$work/n1.log" | head -n 1)"
where_all_listen() { # I
	node_ctl "$1" peers --json | python3 -c 'import json,sys; sys.exit(sum(m["named"] and m.get("fabric", "").endswith(":8423") for m in json.load(sys.stdin)["members"]) != 4)'
}
for i in 1 2 3 4; do
	until_true where_all_listen $i || fail "node $i does not learn where members listen: $(node_ctl "$i" peers --json)"
done
before=$(out_of_registry)
herd 1 2 3 4
bytes=$(($(out_of_registry) - before))
came_once $bytes $packed 120 "4 nodes at once by libfabric" 1 2 3 4
received=$(sum_of received 1 2 3 4)
((received > packed)) || fail "members gave each other only $received bytes"
if only_late 1 2 3 4; then # and nothing by HTTP
	# What ends an answer comes, and is counted twice, when its pieces have been given already.
	all_by_fabric() { (($(sum_of fabric_received 1 2 3 4) == $(sum_of received 1 2 3 4))); }
	until_true all_by_fabric || fail "of $(sum_of received 1 2 3 4) bytes $(sum_of fabric_received 1 2 3 4) came by libfabric"
fi
node_ctl 1 peers | grep -q "^libfabric at $(address 1):8423: [1-9]" || fail "flip peers does not tell of libfabric: $(node_ctl 1 peers)"
node_ctl 1 stat --metrics | grep -q '^flip_peer_fabric_asked_total [1-9]' || fail "no metrics of libfabric"
echo "4 nodes at once by libfabric: $received bytes between members"
end_nodes

# ---- Beside those that have it not; one killed ----------------------------------------------------------------------------

members=static:$(member 1)+8423,$(member 2)+8423,$(member 3)+8423,$(member 4)
for i in 1 2 3; do
	start_node $i $quiet $fabric
done
start_node 4 $quiet
herd 1 2 3 4
by_http=$(($(sum_of received 1 2 3) - $(sum_of fabric_received 1 2 3)))
((by_http > 0 && $(sum_of fabric_received 1 2 3) > 0)) || fail "with one member without libfabric $by_http bytes came by HTTP, $(sum_of fabric_received 1 2 3) by libfabric"
only_late 1 2 3
(($(node_peers 4 received) > 0 && $(node_peers 4 fabric_asked) == 0)) || fail "a member without libfabric was tried by it"
! grep -h "peer $(member 4): libfabric" "$work"/n[123].log || fail "a member without libfabric was tried by it"
echo "a member without libfabric: asks, and is asked, by HTTP"
end_nodes

members=$(fabric_list)
for i in 1 2 3 4; do
	start_node $i $quiet $fabric
done
node_ctl 4 mount "$at_registry/img:t" "$work/mnt4" || fail "mount"
(sleep 0.3; kill -9 "${node_pid[4]}") &
killer=$!
herd 1 2 3
wait $killer
end_nodes
echo "a node was killed in the middle: the others have everything"

# ---- Another secret -----------------------------------------------------------------------------------------------------

(umask 077; head -c 32 /dev/urandom | base64 >"$work/token2")
for i in 1 2 3; do
	start_node $i $quiet $fabric
done
start_node 4 $quiet $fabric FLIP_PEERS_TOKEN_FILE="$work/token2"
herd 1 2 3
herd 4
(($(node_peers 4 received) == 0)) || fail "who has another secret got $(node_peers 4 received) bytes"
until_true grep -q "libfabric is refused: not of this cluster" "$work"/n[123].log || fail "nobody says whom it refused: $(tail -n 3 "$work"/n[123].log)"
echo "another secret: refused by libfabric and by HTTP, and named"
end_nodes

# ---- What leads nowhere --------------------------------------------------------------------------------------------------

members=$(fabric_list 9999)
for i in 1 2 3 4; do
	start_node $i $quiet $fabric
done
herd 1 2 3 4
(($(sum_of fabric_fell_back 1 3 4) > 0)) || fail "nobody has fallen back to HTTP"
was_left_out 1 "$(member 2)" && fail "a member was left out that HTTP reaches"
echo "an address that leads nowhere: $(sum_of fabric_fell_back 1 3 4) questions asked by HTTP in its place, $(sum_of fabric_asked 1 2 3 4) by libfabric"
end_nodes

members=$(fabric_list)
FI_PROVIDER= start_node 1 $quiet $fabric FLIP_PEERS_FABRIC_PROVIDER=pigeon
start_node 2 $quiet $fabric
[[ $(way_of 1) == http ]] || fail "a provider that is none: $(way_of 1)"
grep -q "provider pigeon.*going on with HTTP" "$work/n1.log" || fail "the log does not say what is missing: $(tail -n 3 "$work/n1.log")"
herd 1 2
(($(node_peers 2 fabric_fell_back) > 0)) || fail "node 2 has not fallen back"
echo "a provider that is not here: said, and HTTP in its place"
end_nodes
