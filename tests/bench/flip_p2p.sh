#!/bin/bash
# One image, N nodes that start it at the same moment, each behind a link of RATE in a network namespace of its own, the
# registry behind another link of the same rate: with peers and without. The first CONTAINERD of them start it as a container, each
# with a containerd of its own; the others mount it and read all of it. JSON lines for each N and side. Needs root, docker-registry,
# skopeo, iproute2, containerd, runc, gcc; some minutes. `make bench-p2p` (flip_p2p_parts.sh, which draws the curves).
#
#   NODES="1 2 4 8 16 32" SIDES="peers alone" RATE=100mbit MB=48 ROUNDS=1 CONTAINERD=4 tests/bench/flip_p2p.sh
#
# LOGS=FOLDER keeps what the daemons said, log_level=debug makes them say more.
cd "$(dirname "$0")/../.."
. tests/integration/flip/lib.sh
. tests/integration/flip/peers.sh
. tests/integration/flip/herd.sh
NODES=${NODES:-1 2 4 8 16 32} RATE=${RATE:-100mbit} MB=${MB:-48} ROUNDS=${ROUNDS:-1} SIDES=${SIDES:-peers alone}
exec 3>&1 1>&2
CONTAINERD=${CONTAINERD:-4}
begin flip-p2p docker-registry skopeo
if ((CONTAINERD > 0)); then
	for tool in containerd ctr runc gcc; do
		command -v $tool >/dev/null || { echo "$tool is missing: no containers"; CONTAINERD=0; }
	done
fi
most=$(tr ' ' '\n' <<<"$NODES" | sort -n | tail -n 1)
net_up "$most" "$RATE"
python3 $here/herd-tree.py "$work/tree" "$MB"
if ((CONTAINERD > 0)); then
	mkdir "$work/tree/bin"
	gcc -static -O -o "$work/tree/bin/read-all" $here/read-all.c || fail "read-all.c"
	(cd "$work/tree" && bin/read-all d*) >"$work/expected" || fail "read-all"
fi
herd_image

start_image() { # I NAME
	if (($1 <= CONTAINERD)); then
		run_on "$1" "$2" "$at_registry/img:t" /bin/read-all $(cd "$work/tree" && printf '/%s ' d*) || return
		for _ in {1..100}; do
			[[ -s $work/said.$2 ]] && break
			sleep 0.02
		done
		cmp -s "$work/expected" "$work/said.$2" || return
	else
		node_ctl "$1" mount "$at_registry/img:t" "$work/mnt$1" && (cd "$work/mnt$1" && cat d*/*) | cmp -s - "$work/all" || return
	fi
	date +%s.%N >>"$work/times"
}
round_of() { # N SIDE ROUND
	local n=$1 side=$2 round=$3 i pids=() before
	[[ $side == peers ]] && members=$(members_list "$n") || members="static:$(member 9999)"
	for i in $(seq "$n"); do
		start_node "$i" $quiet FLIP_STALL=60 FLIP_RETRIES=5
		((i > CONTAINERD)) || start_node_containerd "$i"
	done
	before=$(out_of_registry)
	: >"$work/times"
	date +%s.%N >"$work/start"
	for i in $(seq "$n"); do
		start_image "$i" "$n-$side-$round-$i" &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i"
	done
	(($(wc -l <"$work/times") == n)) || fail "$n nodes, $side: $(wc -l <"$work/times") have what they should"
	bytes=$(($(out_of_registry) - before))
	for i in $(seq "$n"); do
		node_ctl "$i" stat --json >"$work/stat.$i"
		node_ctl "$i" peers --json >"$work/peers.$i"
	done
	[[ -n ${LOGS:-} ]] && mkdir -p "$LOGS/$n-$side-$round" && cp "$work"/n*.log "$work"/stat.* "$work"/peers.* "$LOGS/$n-$side-$round/"
	python3 - "$work" "$n" "$side" "$bytes" "$packed" "$RATE" <<'PY' >&3
import json, re, sys
work, n, side, bytes_out, packed, rate = sys.argv[1:]
stats = [json.load(open(f"{work}/stat.{i}")) for i in range(1, int(n) + 1)]
peers = [json.load(open(f"{work}/peers.{i}")) for i in range(1, int(n) + 1)]
# Why the registry was asked: bytes of pieces, and what came along between them.
why = {k: sum(s["reads"][f"origin_{k}_bytes"] for s in stats) for k in ("own", "relayed", "instead")}
why["gaps"] = sum(s["fetch"]["gap_bytes"] for s in stats)
failures = sum(m["failures"] for p in peers for m in p["members"])
start = float(open(work + "/start").read())
times = sorted(float(t) - start for t in open(work + "/times"))
per_s = float(re.match(r"\d+", rate)[0]) * {"mbit": 1e6, "gbit": 1e9}[re.sub(r"\d+", "", rate)] / 8
limit = int(packed) / per_s
case = f"{n} nodes, {side}, {rate}"
print(json.dumps({"bench": "flip_p2p", "case": case + ": last node", "value": round(times[-1], 3), "unit": "s", "limit": round(limit, 3),
                  "share": round(limit / times[-1], 3), "peer": None, "ratio": None, "nodes": int(n), "side": side,
                  "first_s": round(times[0], 3), "cpu_s": round(sum(s["cpu_s"] for s in stats), 2)}))
print(json.dumps({"bench": "flip_p2p", "case": case + ": out of the registry", "value": int(bytes_out), "unit": "bytes", "limit": int(packed),
                  "share": round(int(packed) / int(bytes_out), 3), "peer": None, "ratio": None, "nodes": int(n), "side": side,
                  "why": why, "failures": failures}), flush=True)
PY
	end_node_containerds
	end_nodes
}
(cd "$work/tree" && cat d*/*) >"$work/all"
for round in $(seq "$ROUNDS"); do
	for n in $NODES; do
		for side in $SIDES; do
			round_of "$n" "$side" "$round"
		done
	done
done
exit 0
