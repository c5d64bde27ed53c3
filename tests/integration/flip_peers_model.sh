#!/bin/bash
# Models and peers: four nodes in network namespaces that pull one model at the same moment, from a registry's artifact, by a
# list of addresses, out of one node's folder. Its bytes leave their origin about once; a peer that lies, the origin away, who may
# not have it: no wrong byte, and what is allowed to come comes.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
begin flip-peers-model docker-registry
net_up 4 200mbit
export FLIP_MIN_FREE=1M

# Three models (the first in small chunks, so that each node owns some): weights in two files, one of them again under another name, and what goes with them.
for tree in one two three; do
	mkdir -p "$work/$tree/sub"
	head -c $((6 << 20)) /dev/urandom >"$work/$tree/model-00001-of-00002.safetensors"
	head -c $(((3 << 20) + 4321)) /dev/urandom >"$work/$tree/model-00002-of-00002.safetensors"
	cp "$work/$tree/model-00002-of-00002.safetensors" "$work/$tree/sub/again.bin"
	head -c 300001 /dev/urandom >"$work/$tree/tokenizer.json"
	echo "{\"model_type\": \"$tree\"}" >"$work/$tree/config.json"
done
bytes=$((9 * 1048576 + 4321 + 300001))
start_cluster_registry
in_ns r "$flip" model push --chunk-size=64K "$work/one" 127.0.0.1:5000/m/one:1 >"$work/id" 2>"$work/out" || fail "push"

model() { # I VERB ARGUMENT...
	local i=$1
	shift
	node_ctl "$i" model "$@"
}
start_nodes() { # I...
	local i
	for i in "$@"; do
		start_node "$i" FLIP_MODELS="$work/models$i" FLIP_BACKGROUND_WAIT=1 FLIP_PREHEAT_PRESSURE=100
	done
}
of() { model "$1" list --json | python3 -c "import json,sys; print([m for m in json.load(sys.stdin) if m['name'] == '$2'][0]['$3'])"; }
herd() { # SOURCE NAME TREE I...: pulled by all of them at once, mounted and compared
	local source=$1 name=$2 tree=$3 i pids=()
	shift 3
	for i in "$@"; do
		model "$i" pull "$source" "$name" 2>>"$work/out" &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" || fail "$source has not come: $(tail -n 3 "$work/out")"
	done
	for i in "$@"; do
		mkdir -p "$work/mnt$i" && model "$i" mount "$name" "$work/mnt$i" >/dev/null || fail "no mount at node $i"
		diff -r "$work/$tree" "$work/mnt$i" >"$work/out" || fail "node $i shows other bytes: $(head -n 3 "$work/out")"
		node_ctl "$i" fsck >"$work/out" || fail "node $i: $(<"$work/out")"
		node_ctl "$i" unmount "$work/mnt$i" || fail "unmount"
	done
}
sent_by() { in_ns "$1" cat /proc/net/dev | awk '$1 == "eth0:" { print $10 }'; }
ask() { in_ns 2 python3 $here/ask-peer.py "$(member 1)" "$token" "$@"; }
name_digest() { printf 'sha256:%s' "$(printf %s "$1" | sha256sum | cut -d' ' -f1)"; }

# ---- A registry's artifact --------------------------------------------------------------------------------------------

members=$(members_list 4)
start_nodes 1 2 3 4
before=$(out_of_registry)
herd "$at_registry/m/one:1" one one 1 2 3 4
came_once $(($(out_of_registry) - before)) $bytes 115 "a registry, 4 nodes at once" 1 2 3 4
(($(node_stat 1 reads peer_bytes) > bytes / 5)) || fail "node 1 had $(node_stat 1 reads peer_bytes) bytes of peers"

# ---- A list of addresses ----------------------------------------------------------------------------------------------

spawn_in r "$flip" model serve --listen 0.0.0.0:8424 "$work/two" 2>"$work/serve.log"
listens_in r 8424 $spawned || fail "flip model serve: $(<"$work/serve.log")"
before=$(out_of_registry)
herd "http://10.86.0.250:8424/model.json" listed two 1 2 3 4
# A machine that stands still for a moment has a node ask the origin itself: some of the nine chunks of 1 MiB come twice then.
came_once $(($(out_of_registry) - before)) $bytes 200 "a list of addresses, 4 nodes at once" 1 2 3 4 # 400 without peers
id=$(of 1 listed id)
[[ $(ask "/flip/1/model/$id" range=bytes=0-1048575 grant=held) == "200 "* ]] || fail "who knows a list's digest is not given its files"
[[ $(ask "/flip/1/model/$(name_digest listed)/name" grant=held) == "404 "* ]] || fail "a list of addresses is given by its name"

# ---- One node's folder ------------------------------------------------------------------------------------------------

in_ns 4 "$flip" model seed --control "$work/n4.control" "$work/three" folder 2>"$work/out" || fail "seed"
before=$(sent_by 4)
# One of them before anybody needs it: below all else.
model 1 pull --preheat peers:folder 2>"$work/out" || fail "preheat"
[[ $(of 1 folder preheat) == True && $(of 1 folder complete) == True ]] || fail "not preheated: $(model 1 list --json)"
(($(node_stat 1 reads preheat_bytes) >= bytes)) || fail "only $(node_stat 1 reads preheat_bytes) bytes were preheated"
node_ctl 1 stat --metrics | grep -q '^flip_reads_preheat_bytes_total [1-9]' || fail "no metrics of preheating"
herd peers:folder folder three 1 2 3
[[ $(of 1 folder preheat) == False ]] || fail "still preheated when somebody wants it"
came_once $(($(sent_by 4) - before)) $bytes 150 "a folder of one node, 3 others at once" 1 2 3 # two have it by then
id=$(of 1 folder id)
[[ $(ask "/flip/1/model/$(name_digest folder)/name" grant=held) == "200 71" ]] || fail "a folder's name is not known"
for what in "peers:nothing" "peers:folder@sha256:${id:7:10}" "peers:sha256:$(printf %064d 1)"; do
	model 2 pull "$what" other 2>"$work/out" && fail "$what was pulled"
	grep -q "no member\|not peers:" "$work/out" || fail "$what: not told why: $(<"$work/out")"
done
# The one that had it is gone: the others are enough, by the digest too.
kill_node 4
model 1 pull "peers:folder@$id" again || fail "by its digest"
[[ $(of 1 again complete) == True ]] || fail "not all of it"
end_nodes

# ---- A peer that lies, and the registry away after the first copy -------------------------------------------------------

start_bad 4 lie
bad=$spawned
start_nodes 1 2 3
herd "$at_registry/m/one:1" one one 1
was_left_out 1 "$(member 4)" || fail "who lies was not left out"
until_true has_noted 1 public 1 || fail "node 1 does not ask whether the artifact is public"
stop_registry
herd "$at_registry/m/one:1" one one 2 3
echo "a peer that lies, and the registry away after the first copy: all have the model"
end_child $bad
end_nodes

# ---- A private artifact -----------------------------------------------------------------------------------------------

python3 -W ignore - "$work" <<'PY' || skip "no passwords for a registry here"
import base64, crypt, json, sys
work = sys.argv[1]
open(work + "/htpasswd", "w").write("one:" + crypt.crypt("secret", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)) + "\n")
json.dump({"auths": {"10.86.0.250:5000": {"auth": base64.b64encode(b"one:secret").decode()}}}, open(work + "/auth.json", "w"))
PY
start_cluster_registry "auth: {htpasswd: {realm: r, path: $work/htpasswd}}"
export REGISTRY_AUTH_FILE=$work/auth.json
start_nodes 1 2 3
before=$(out_of_registry)
herd "$at_registry/m/one:1" one one 1 2 3
came_once $(($(out_of_registry) - before)) $bytes 115 "a private artifact, 3 nodes at once" 1 2 3
id=$(of 1 one id) image="image=$at_registry/m/one:1 $(<"$work/id")" path=/flip/1/model/$id
same="same=Basic $(printf one:secret | base64)"
[[ $(ask "$path" range=bytes=0-1048575 "$image" "$same") == "200 "* ]] || fail "a private model is not given to who has the password"
[[ $(ask "$path" range=bytes=0-1048575 "$image" grant=public) == "403 "* ]] || fail "a private model was given to anybody"
[[ $(ask "$path" range=bytes=0-1048575 grant=held) == 40[34]" "* ]] || fail "a private model was given to who knows its digest"
[[ $(ask "$path/manifest" grant=held) == 40[34]" "* ]] || fail "a private model's list was given to who knows its digest"
[[ $(ask "$path" range=bytes=0-1048575 "image=$at_registry/m/other:1 $(<"$work/id")" "$same") == "403 "* ]] ||
	fail "a private model for who names a repository that it is not of"
[[ $(ask "/flip/1/model/$(name_digest one)/name" grant=held) == "404 "* ]] || fail "a private model is given by its name"
# Nor by a list of addresses that names its files: those come from the addresses.
spawn_in r "$flip" model serve --listen 0.0.0.0:8425 "$work/one" 2>"$work/serve.log"
listens_in r 8425 $spawned || fail "flip model serve: $(<"$work/serve.log")"
REGISTRY_AUTH_FILE=/nonexistent start_nodes 4
herd http://10.86.0.250:8425/model.json guessed one 4
(($(node_stat 4 reads peer_bytes) == 0)) || fail "files of a private model were given to who knows their digests"
unset REGISTRY_AUTH_FILE
end_nodes
echo ok
