#!/bin/bash
# What serving peers costs a node's own work: a node on some of the machine's processors, with a workload on the same ones, is asked
# for everything that it has by askers on the others, over links without a limit. The workload's speed with and without, in turns, as
# a loss in per cent: throttled by the machine's pressure as configured, and not at all. One JSON line for each case. Needs root and
# four processors or more; a minute and a half. A part of `make bench-p2p`.
#
#   ROUNDS=3 SECONDS_EACH=2 MB=48 KINDS="cpu disk" SIDES="20 100" tests/bench/flip_pressure.sh
cd "$(dirname "$0")/../.."
. tests/integration/flip/lib.sh
. tests/integration/flip/peers.sh
ROUNDS=${ROUNDS:-3} each=${SECONDS_EACH:-2} MB=${MB:-48}
exec 3>&1 1>&2
begin flip-pressure docker-registry skopeo gcc taskset
n_cpus=$(nproc)
((n_cpus >= 4)) || skip "less than four processors"
net_up 2
half=$((n_cpus / 2)) ours=0-$((n_cpus / 2 - 1)) theirs=$((n_cpus / 2))-$((n_cpus - 1))
gcc -O2 -D_GNU_SOURCE -o "$work/workload" tests/bench/flip/workload.c -lpthread || fail "workload.c"
head -c 512M /dev/urandom >"$work/file"
python3 $here/herd-tree.py "$work/tree" "$MB"
layout_of "$work/plain" t "$work/tree"
"$flip" convert -f zstd-chunked "oci:$work/plain:t" "oci:$work/lazy:t" >/dev/null || fail "convert"
start_cluster_registry
push_to_cluster "$work/lazy" t
read -r layer size manifest < <(python3 - "$work/lazy" <<'PY'
import json, sys
m = json.load(open(sys.argv[1] + "/index.json"))["manifests"][0]["digest"]
l = json.load(open(f"{sys.argv[1]}/blobs/sha256/{m.split(':')[1]}"))["layers"][0]
print(l["digest"], l["size"], m)
PY
)
members="static:$(member 1),$(member 2)"

run_case() { # NAME PRESSURE KIND
	local name=$1 kind=$3 r k askers with=() without=() cpu=() bytes=0 before start
	FLIP_BACKGROUND_WAIT=3600 start_node 1 FLIP_PEERS_PRESSURE="$2"
	taskset -acp $ours "${node_pid[1]}" >/dev/null
	node_ctl 1 mount "$at_registry/img:t" "$work/mnt1" && cat "$work/mnt1"/*/* >/dev/null || fail "mount"
	work_of() { taskset -c $ours "$work/workload" "$kind" "$half" "$each" "$work/file"; }
	for r in $(seq "$ROUNDS"); do
		without+=("$(work_of)")
		askers=()
		for k in 1 2 3 4; do
			taskset -c $theirs nsenter --net="/run/netns/$net-2" python3 tests/bench/flip/asker.py "$(member 1)" "$token" "$layer" "$size" \
				"$at_registry/img:t $manifest" 2 >"$work/came.$k" &
			askers+=($!)
			keep $!
		done
		sleep 3 # the throttle settles
		before=$(node_ctl 1 stat --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["cpu_s"])')
		start=$(node_peers 1 served_bytes)
		with+=("$(work_of)")
		bytes=$((bytes + $(node_peers 1 served_bytes) - start))
		cpu+=("$(node_ctl 1 stat --json | python3 -c "import json,sys; print(json.load(sys.stdin)['cpu_s'] - $before)")")
		kill "${askers[@]}"
		wait "${askers[@]}" 2>/dev/null
	done
	end_nodes
	python3 - "$name" "$kind" "$each" "$half" "$bytes" "$ROUNDS" "${without[*]}" "${with[*]}" "${cpu[*]}" >&3 <<'PY'
import json, statistics, sys
name, kind, each, half, total, rounds = sys.argv[1:7]
without, with_, cpu = ([float(x) for x in a.split()] for a in sys.argv[7:10])
loss = (1 - statistics.median(with_) / statistics.median(without)) * 100
spread = (max(without) - min(without)) / statistics.median(without) * 100
print(json.dumps({"bench": "flip_pressure", "case": f"{kind} workload, peers served, {name}", "value": round(loss, 2), "unit": "% lost", "limit": 3,
                  "peer": None, "ratio": None, "served_bytes_per_s": round(int(total) / int(rounds) / float(each)),
                  "cpu_taken_percent": round(statistics.median(cpu) / float(each) / int(half) * 100, 2), "spread_without_percent": round(spread, 1)}), flush=True)
PY
}
for kind in ${KINDS:-cpu disk}; do
	for limit in ${SIDES:-20 100}; do
		((limit == 100)) && name="not throttled" || name="throttled"
		run_case "$name" $limit "$kind"
	done
done
exit 0
