#!/bin/bash
# A model folder of MODEL_MIB of random bytes in four files that MODEL_NODES (8) nodes pull at the same moment, each behind a link
# of MODEL_RATE (200mbit) in a network namespace of its own: from a registry behind another such link, and out of the folder of one
# more node (flip model seed); MODEL_CASES says which. For each a JSON line with the slowest node's share of its link, and one with what
# left the origin. Needs root, docker-registry, iproute2, and MODEL_NODES + 2 times the model's size in /var/tmp: without MODEL_MIB it is
# 4 GiB, or the largest half, quarter or eighth of it that there is room for. `make bench-p2p`.
cd "$(dirname "$0")/../.."
. tests/integration/flip/lib.sh
. tests/integration/flip/peers.sh
NODES=${MODEL_NODES:-8} RATE=${MODEL_RATE:-200mbit} MIB=${MODEL_MIB:-} CASES=${MODEL_CASES:-registry seed}
exec 3>&1 1>&2
begin flip-p2p-model docker-registry
room=$(df --output=avail -B1M "$work" | tail -n 1)
for size in ${MIB:-4096 2048 1024 512}; do
	MIB=$size
	((room > (NODES + 2) * MIB + 2048)) && break
	echo "no room in /var/tmp for $((NODES + 2)) times $MIB MiB: $room MiB are free"
done
((room > (NODES + 2) * MIB + 2048)) || skip "too little room"
net_up $((NODES + 1)) "$RATE"
model=$work/model
mkdir "$model"
for i in 1 2 3 4; do
	head -c $((MIB / 4 << 20)) /dev/urandom >"$model/model-0000$i-of-00004.safetensors"
done
echo '{}' >"$model/config.json"
bytes=$(cat "$model"/* | wc -c)
sent_by() { in_ns "$1" cat /proc/net/dev | awk '$1 == "eth0:" { print $10 }'; }

pull_all() { # CASE SOURCE ORIGIN
	local case=$1 source=$2 origin=$3 i pids=() before cpu=0
	before=$(sent_by "$origin")
	: >"$work/times"
	date +%s.%N >"$work/start"
	for i in $(seq "$NODES"); do
		{ node_ctl "$i" model pull "$source" model >>"$work/out" 2>&1 && date +%s.%N >>"$work/times"; } &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i"
	done
	(($(wc -l <"$work/times") == NODES)) || fail "$case: $(wc -l <"$work/times") of $NODES nodes have the model: $(tail -n 2 "$work/out")"
	for i in $(seq "$NODES"); do
		cpu="$cpu + $(node_ctl "$i" stat --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["cpu_s"])')"
	done
	python3 - "$work" "$NODES" "$case" "$bytes" "$RATE" "$(($(sent_by "$origin") - before))" "$cpu" "$(cut -d' ' -f1 /proc/loadavg)" >&3 <<'PY'
import json, re, sys
work, n, case, size, rate, out, cpu, load = sys.argv[1:]
start = float(open(work + "/start").read())
times = sorted(float(t) - start for t in open(work + "/times"))
# Of a link's bits TCP's payload gets 1448 of each 1514 bytes.
limit = float(re.match(r"\d+", rate)[0]) * {"mbit": 1e6, "gbit": 1e9}[re.sub(r"\d+", "", rate)] / 8 * 1448 / 1514 / 1e6
slowest, fastest = (int(size) / 1e6 / t for t in (times[-1], times[0]))
name = f"{n} nodes, {case}, {rate}"
print(json.dumps({"bench": "flip_p2p_model", "case": name + ": slowest node", "value": round(slowest, 2), "unit": "MB/s", "limit": round(limit, 2),
                  "share": round(slowest / limit, 3), "peer": None, "ratio": None, "fastest": round(fastest, 2), "bytes": int(size),
                  "last_s": round(times[-1], 1), "cpu_s": round(sum(map(float, cpu.split("+"))), 1), "load": float(load)}))
print(json.dumps({"bench": "flip_p2p_model", "case": name + ": out of the origin", "value": int(out), "unit": "bytes", "limit": int(size),
                  "share": round(int(size) / int(out), 3), "peer": None, "ratio": None}), flush=True)
PY
}

members=$(members_list $((NODES + 1)))
for case in $CASES; do
	[[ $case == registry ]] && members=$(members_list "$NODES")
	for i in $(seq "$NODES"); do
		start_node "$i" FLIP_MIN_FREE=1M
	done
	if [[ $case == registry ]]; then
		start_cluster_registry
		in_ns r "$flip" model push "$model" 127.0.0.1:5000/m/one:1 >"$work/out" 2>&1 || fail "push"
		pull_all "a registry" "$at_registry/m/one:1" r
		stop_registry
		rm -rf "$work/registry"
	else
		origin=$((NODES + 1))
		start_node $origin FLIP_MIN_FREE=1M
		in_ns $origin "$flip" model seed --control "$work/n$origin.control" "$model" model >"$work/out" 2>&1 || fail "seed"
		pull_all "one node's folder" peers:model $origin
	fi
	end_nodes
	while compgen -G "$work/thrown.*" >/dev/null; do # their room is needed
		sleep 0.2
	done
	members=$(members_list $((NODES + 1)))
done
exit 0
