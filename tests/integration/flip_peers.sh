#!/bin/bash
# Four nodes, each in a network namespace of its own behind a link of 200 Mbit/s, and a registry behind another: an image that
# all of them start at once leaves the registry once; and what goes wrong in a cluster (a node killed, peers that lie, stall or
# send noise, etcd away, the registry away, a peer that may not have what it asks for) costs no wrong byte and no start.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
. "$(dirname "$0")/flip/herd.sh"
begin flip-peers docker-registry skopeo
net_up 4 200mbit

herd_ready 24
"$flip" convert -f estargz --chunk-size=256K --no-prefetch "oci:$work/plain:t" "oci:$work/gzip:g" >/dev/null || fail "convert"
push_to_cluster "$work/gzip" g

# ---- A herd, members by etcd ------------------------------------------------------------------------------------------

members=static:
if command -v etcd >/dev/null; then
	start_etcd
	members=etcd:$etcd_at
else
	members=$(members_list 4)
fi
for i in 1 2 3 4; do
	start_node $i $quiet
done
all_come 4 1 2 3 4
before=$(out_of_registry)
herd 1 2 3 4
bytes=$(($(out_of_registry) - before))
came_once $bytes $packed 110 "4 nodes at once" 1 2 3 4
(($(node_stat 1 reads peer_bytes) > packed / 2)) || fail "node 1 had $(node_stat 1 reads peer_bytes) bytes of peers"
node_ctl 1 peers | grep -q "$(member 2)" || fail "flip peers does not show node 2"
node_ctl 1 stat --metrics | grep -q '^flip_peer_pieces_got_total [1-9]' || fail "no metrics of peers"

# etcd goes away: what was known stays. Another image, its pieces in gzip.
if command -v etcd >/dev/null; then
	end_child $etcd
	for i in 1 2 3 4; do
		umount "$work/mnt$i"
	done
	tag=g herd 1 2 3 4
	all_come 4 1 2 3 4
	start_etcd
	echo "etcd was away: another image started everywhere"
fi

# ---- Who asks, and for what -------------------------------------------------------------------------------------------

layer=$(python3 -c "
import json
m = json.load(open('$work/zstd/index.json'))['manifests'][0]['digest'].split(':')[1]
print(json.load(open('$work/zstd/blobs/sha256/' + m))['layers'][0]['digest'])")
content=$(sha256sum "$work/tree/d0/f00000" | cut -d' ' -f1)
ask() { in_ns 2 python3 $here/ask-peer.py "$(member 1)" "$token" "$@"; }
path=/flip/1/layer/$layer
image="image=$at_registry/img:t"
[[ $(ask "$path" range=bytes=0-999999 "$image") == "200 "* ]] || fail "a member's question was refused"
[[ $(ask "$path/content/sha256:$content" "$image") == "200 $(stat -c %s "$work/tree/d0/f00000")" ]] || fail "a content is not given by its digest"
[[ $(ask "$path/content/sha256:$content" "$image" range=bytes=1-9) == "206 9" ]] || fail "a range of a content is not given"
[[ $(ask "$path" range=bytes=0-99 "$image" forge=0123456789abcdef0123) == "401 "* ]] || fail "another secret was good"
[[ $(ask "$path" range=bytes=0-99 "$image" age=600) == "401 "* ]] || fail "an old question was good"
[[ $(ask "$path" range=bytes=5-1,x "$image") == "400 "* ]] || fail "ranges that are none were taken"
[[ $(ask "/flip/1/layer/sha256:$content" range=bytes=0-99 "$image") == 40[34]" "* ]] || fail "an unknown layer was given"
[[ $(ask "$path/tail" "$image" grant=public) == "200 "* ]] || fail "the table of contents is not given"
end_nodes

# ---- A node is killed in the middle -----------------------------------------------------------------------------------

members=$(members_list 4)
for i in 1 2 3 4; do
	start_node $i $quiet
done
node_ctl 4 mount "$at_registry/img:t" "$work/mnt4" || fail "mount"
(sleep 0.3; kill -9 $(children "${node_pid[4]}")) &
killer=$!
herd 1 2 3
wait $killer
end_nodes
echo "a node was killed in the middle: the others have everything"

# ---- Peers that are none ----------------------------------------------------------------------------------------------

for how in noise lie stall cut error; do
	start_bad 4 $how
	bad=$spawned
	for i in 1 2 3; do
		start_node $i $quiet
	done
	herd 1 2 3
	found=0
	for i in 1 2 3; do
		was_left_out $i "$(member 4)" && found=$((found + 1))
	done
	((found > 0)) || fail "$how: nobody has left it out"
	end_child $bad
	end_nodes
	echo "a peer that answers with $how: left out by $found of 3, all have everything ($took ms)"
done

# ---- The registry is away after the first copy ------------------------------------------------------------------------

members=$(members_list 3)
for i in 1 2 3; do
	start_node $i $quiet
done
herd 1
until_true has_noted 1 public 1 || fail "node 1 does not ask whether the image is public"
stop_registry
herd 2 3
echo "the registry was away: two more nodes have started"
end_nodes

# ---- A private image --------------------------------------------------------------------------------------------------

python3 -W ignore - "$work" <<'PY' || skip "no passwords for a registry here"
import base64, crypt, json, sys
work = sys.argv[1]
open(work + "/htpasswd", "w").write("one:" + crypt.crypt("secret", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)) + "\n")
auth = {"auth": base64.b64encode(b"one:secret").decode()}
json.dump({"auths": {"10.86.0.250:5000": auth}}, open(work + "/auth.json", "w"))
PY
start_cluster_registry "auth: {htpasswd: {realm: r, path: $work/htpasswd}}"
export REGISTRY_AUTH_FILE=$work/auth.json
for i in 1 2; do
	start_node $i $quiet
done
REGISTRY_AUTH_FILE=/nonexistent start_node 3 $quiet
before=$(out_of_registry)
herd 1 2
bytes=$(($(out_of_registry) - before))
came_once $bytes $packed 120 "a private image, 2 nodes at once" 1 2
node_ctl 3 mount "$at_registry/img:t" "$work/mnt3" 2>/dev/null && fail "a private image without credentials"
[[ $(ask "$path" range=bytes=0-99999 "$image" grant=public) == "403 "* ]] || fail "a private layer was given to anybody: $(ask "$path" range=bytes=0-99999 "$image" grant=public)"
[[ $(ask "$path" range=bytes=0-99999 "$image" "grant=bearer made-up") == "403 "* ]] || fail "a private layer for a token that is none"
[[ $(ask "$path" range=bytes=0-99999 "$image" "same=Basic $(printf one:guess | base64)") == "403 "* ]] || fail "a private layer for another password"
[[ $(ask "$path" range=bytes=0-99999 "$image" "same=Basic $(printf one:secret | base64)") == "200 "* ]] || fail "a private layer is not given to who has the password"
# Nor by the word of a registry that we do not have it from, nor for a place that it does not lie at.
spawn_in 2 python3 -c 'import http.server
class Yes(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()
    do_GET = do_HEAD
    def log_message(self, *args): pass
http.server.HTTPServer(("0.0.0.0", 9000), Yes).serve_forever()'
listens_in 2 9000 $spawned || fail "no registry of the asker's own"
elsewhere="image=$(address 2):9000/img:t"
[[ $(ask "$path" range=bytes=0-99999 "$elsewhere") == "403 "* ]] || fail "a private layer by the word of the asker's own registry"
manifest=$(python3 -c "import json; print(json.load(open('$work/zstd/index.json'))['manifests'][0]['digest'])")
[[ $(ask "/flip/1/image/$manifest/manifest" "$elsewhere $manifest") == "403 "* ]] || fail "a private manifest by the word of the asker's own registry"
[[ $(ask "$path" range=bytes=0-99999 "image=$at_registry/other:t" "same=Basic $(printf one:secret | base64)") == "403 "* ]] ||
	fail "a private layer for who names a repository that it is not of"
echo "a private image: between those who may have it, to nobody else"
unset REGISTRY_AUTH_FILE
end_nodes
echo "all nodes have started, every time, with the right bytes"
