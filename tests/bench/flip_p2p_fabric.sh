#!/bin/bash
# One node pulls a model folder of FABRIC_MIB (256) of random bytes that another one has (flip model seed), by HTTP and by libfabric's
# tcp provider in turns, FABRIC_ROUNDS (3) times each, over links of FABRIC_RATES ("1gbit none": shaped by tc, and as fast as veth is).
# For each a JSON line with the median, its share of the link, and the processor time of both daemons for a GB. Needs root, iproute2,
# libfabric, and some room in /var/tmp. `make bench-p2p`.
cd "$(dirname "$0")/../.."
. tests/integration/flip/lib.sh
. tests/integration/flip/peers.sh
MIB=${FABRIC_MIB:-256} ROUNDS=${FABRIC_ROUNDS:-3} RATES=${FABRIC_RATES:-1gbit none}
exec 3>&1 1>&2
skip() {
	echo "bench flip_p2p_fabric: $*"
	exit 0
}
begin flip-p2p-fabric
export FI_PROVIDER=tcp
model=$work/model
mkdir "$model"
head -c $((MIB << 20)) /dev/urandom >"$model/model-00001-of-00001.safetensors"
echo '{}' >"$model/config.json"

round() { # RATE WAY: seconds and seconds of processor time, both nodes'
	local rate=$1 way=$2 i start end cpu=0
	for i in 1 2; do
		start_node $i FLIP_MIN_FREE=1M FLIP_PEERS_TRANSPORT="$way"
	done
	in_ns 1 "$flip" model seed --control "$work/n1.control" "$model" model >"$work/out" 2>&1 || fail "seed"
	start=$(date +%s.%N)
	node_ctl 2 model pull peers:model model >"$work/out" 2>&1 || fail "$way: pull: $(tail -n 2 "$work/out")"
	end=$(date +%s.%N)
	for i in 1 2; do
		cpu="$cpu + $(node_ctl "$i" stat --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["cpu_s"])')"
	done
	if [[ $way == fabric ]]; then
		(($(node_peers 2 fabric_received) > MIB << 20 && $(node_peers 2 fabric_fell_back) == 0)) ||
			skip "not all came by libfabric: $(grep -h libfabric "$work"/n[12].log | head -n 1)"
	fi
	end_nodes
	echo "$rate $way $start $end $cpu" >>"$work/rounds"
}
for rate in $RATES; do
	[[ $rate == none ]] && net_up 2 || net_up 2 "$rate"
	members=static:$(member 1)+8423,$(member 2)+8423
	for ((r = 0; r < ROUNDS; r++)); do
		round "$rate" http
		round "$rate" fabric
	done
	net_down
done
python3 - "$work/rounds" "$((MIB << 20))" "$(cut -d' ' -f1 /proc/loadavg)" >&3 <<'PY'
import json, re, statistics, sys
rounds = {}
for line in open(sys.argv[1]):
    rate, way, start, end, cpu = line.split(None, 4)
    rounds.setdefault((rate, way), []).append((float(end) - float(start), sum(map(float, cpu.split("+")))))
size, load = int(sys.argv[2]), float(sys.argv[3])
for (rate, way), runs in rounds.items():
    # Of a link's bits TCP's payload gets 1448 of each 1514 bytes.
    limit = None if rate == "none" else float(re.match(r"\d+", rate)[0]) * {"mbit": 1e6, "gbit": 1e9}[re.sub(r"\d+", "", rate)] / 8 * 1448 / 1514 / 1e6
    value = size / 1e6 / statistics.median(t for t, _ in runs)
    other = rounds.get((rate, "http"))
    print(json.dumps({"bench": "flip_p2p_fabric", "case": f"one node to another, {rate}, {way}", "value": round(value, 1), "unit": "MB/s",
                      "limit": limit and round(limit, 1), "share": limit and round(value / limit, 3), "peer": "http",
                      "ratio": round(statistics.median(t for t, _ in other) / statistics.median(t for t, _ in runs), 3) if other else None,
                      "all_s": [round(t, 2) for t, _ in runs], "cpu_s_per_GB": round(statistics.median(c for _, c in runs) * 1e9 / size, 2),
                      "load": load}), flush=True)
PY
exit 0
