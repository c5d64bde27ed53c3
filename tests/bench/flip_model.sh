#!/bin/bash
# How much of a link a model's pull fills, one JSON line each: a folder of MODEL_MIB (4096) of random bytes behind a veth
# pair shaped to MODEL_RATE (1gbit), from a registry and from `flip model serve`; and over loopback without a shape, beside
# what curl fetches of the same server to nowhere. `lazy`: the time until the first MiB of the last file can be read.
# Needs root, ip, tc, docker-registry, and three times the model's size in /var/tmp. MODEL_RUNS (1): the best of them.
. "$(dirname "$0")/../integration/flip/lib.sh"
skip() {
	echo "bench flip_model: $*" >&2
	exit 0
}
begin flip-model-bench ip tc docker-registry curl
mib=${MODEL_MIB:-4096} rate=${MODEL_RATE:-1gbit} runs=${MODEL_RUNS:-1}
export FLIP_MODELS=$work/models
line() { # CASE VALUE UNIT LIMIT
	python3 -c 'import json, sys
case, value, unit, limit = sys.argv[1:]
value, limit = float(value), float(limit) if limit else None
print(json.dumps({"bench": "flip_model", "case": case, "value": round(value, 3), "unit": unit, "limit": limit and round(limit, 3),
    "share": round(value / limit, 3) if limit else None, "peer": None, "ratio": None}))' "$@"
}
ns=flip-model-$$ veth=fm$$ net=10.$((100 + $$ % 100)).$(($$ / 100 % 250))
leave_net() {
	ip link del "${veth}a" 2>/dev/null
	ip netns del "$ns" 2>/dev/null
	finish
}
trap leave_net EXIT
ip netns add "$ns" && ip link add "${veth}a" type veth peer name "${veth}b" netns "$ns" || skip "no network namespaces here"
ip addr add "$net.1/24" dev "${veth}a" && ip link set "${veth}a" up
ip -n "$ns" addr add "$net.2/24" dev "${veth}b" && ip -n "$ns" link set "${veth}b" up && ip -n "$ns" link set lo up
tc -n "$ns" qdisc add dev "${veth}b" root tbf rate "$rate" burst 512kb latency 20ms || skip "no tbf here"

# Four weights and what goes with them.
model=$work/model
mkdir "$model"
for i in 1 2 3 4; do
	head -c $((mib / 4 << 20)) /dev/urandom >"$model/model-0000$i-of-00004.safetensors"
done
echo '{}' >"$model/config.json"
bytes=$(cat "$model"/* | wc -c)
# Of a link's bits TCP's payload gets 1448 of each 1514 bytes.
limit=$(python3 -c 'import sys
t = sys.argv[1]
print(float(t.rstrip("gmkbit")) * {"g": 1e9, "m": 1e6, "k": 1e3}[t.lstrip("0123456789.")[0]] / 8 * 1448 / 1514 / 1e6)' "$rate")

start_registry() { # in the namespace
	cat >"$work/registry.yml" <<Y
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: '0.0.0.0:5000'}
Y
	ip netns exec "$ns" docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
	keep $!
}
start_registry
"$flip" model manifest "$model" >/dev/null # the page cache has it
ip netns exec "$ns" "$flip" model serve --listen 0.0.0.0:8424 "$model" 2>"$work/serve.log" &
keep $!
"$flip" model serve --listen 127.0.0.1:0 "$model" 2>"$work/local.log" &
keep $!
for _ in {1..600}; do
	local_port=$(sed -n 's/.*at port \([0-9]*\).*/\1/p' "$work/local.log")
	[[ -n $local_port ]] && (exec 3<>"/dev/tcp/$net.2/8424") 2>/dev/null && (exec 3<>"/dev/tcp/$net.2/5000") 2>/dev/null && break
	sleep 0.1
done
[[ -n $local_port ]] || fail "the servers do not start"
FLIP_INSECURE=true ip netns exec "$ns" "$flip" model push "$model" "$net.2:5000/m/model:1" >"$work/out" 2>&1 || fail "push"

now() { date +%s.%N; }
best() { sort -rn | head -n 1; }
export FLIP_INSECURE=true
pull() { # SOURCE: MB/s, on a node of its own
	local start
	node=$work/n$((++n_nodes))
	start_flip
	start=$(now)
	ctl model pull "$1" model >"$work/out" 2>&1 || fail "pull $1"
	python3 -c "print($bytes / 1e6 / ($(now) - $start))" >>"$work/rates"
	awk '{ print $14 + $15 }' /proc/$daemon/stat >"$work/ticks"
	stop_flip
	unmount_below "$node"
	end_holder "$node"
	rm -rf --one-file-system "$node"
}
n_nodes=0
several() { # SOURCE
	rm -f "$work/rates"
	for ((k = 0; k < runs; k++)); do pull "$1"; done
	best <"$work/rates"
}

line "registry, $rate" "$(several "$net.2:5000/m/model:1")" MB/s "$limit"
line "flip model serve, $rate" "$(several "http://$net.2:8424/model.json")" MB/s "$limit"
line "processor time of the daemon for each GB" "$(python3 -c "print($(<"$work/ticks") / 100 / ($bytes / 1e9))")" s ""
rm -f "$work/rates"
for ((k = 0; k < runs; k++)); do
	start=$(now)
	for i in 1 2 3 4; do
		curl -sS -o /dev/null "http://127.0.0.1:$local_port/model-0000$i-of-00004.safetensors" &
		fetches[i]=$!
	done
	wait "${fetches[@]}"
	python3 -c "print($bytes / 1e6 / ($(now) - $start))" >>"$work/rates"
done
curl_rate=$(best <"$work/rates")
line "curl to nowhere, loopback" "$curl_rate" MB/s ""
line "flip model serve, loopback" "$(several "http://127.0.0.1:$local_port/model.json")" MB/s "$curl_rate"

node=$work/n$((++n_nodes))
start_flip
start=$(now)
ctl model pull -d "$net.2:5000/m/model:1" model || fail "pull"
dir=$(ctl model mount model) || fail "mount"
head -c 1048576 "$dir/model-00004-of-00004.safetensors" | cmp -n 1048576 - "$model/model-00004-of-00004.safetensors" || fail "wrong bytes"
line "lazy: pulled, mounted, first MiB of the last file read" "$(python3 -c "print($(now) - $start)")" s ""
