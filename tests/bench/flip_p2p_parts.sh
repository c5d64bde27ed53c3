#!/bin/bash
# What `make bench-p2p` runs: the parts that PARTS names, one after the other. One that fails is told of and does not keep the
# others from running; the exit code says whether one did. JSON lines on standard output, all else on standard error. Needs root.
#
#   curve      1 to 32 nodes start one image, with peers and without (flip_p2p.sh: NODES, SIDES, RATE, MB, ROUNDS, CONTAINERD)
#   faults     three of ten are bad; any is killed at any time; etcd away for a minute; the registry away (flip_peers*.sh)
#   model      a model to 8 nodes (flip_p2p_model.sh: MODEL_MIB, MODEL_NODES, MODEL_RATE, MODEL_CASES)
#   pressure   what serving costs a node's own work (flip_pressure.sh)
#   fabric     one node to another by HTTP and by libfabric (flip_p2p_fabric.sh: FABRIC_MIB, FABRIC_ROUNDS, FABRIC_RATES)
#   sim        1,000 and 10,000 nodes, simulated (flip_p2p_sim.py)
#
#   PARTS="curve model" OUT=lines.jsonl SVG=curves.svg RATE=30mbit MB=24 tests/bench/flip_p2p_parts.sh
#
# OUT: a file that the lines are added to, so that a curve may be measured in several runs, each a part of NODES; SVG draws all that
# is in it.
set -u
cd "$(dirname "$0")/../.."
PARTS=${PARTS:-curve faults model pressure fabric sim}
export BUILD_DIR=${BUILD_DIR:-build/release}
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
failed=

# What the tests of faults say, as JSON lines.
fault_lines() { # NAME
	python3 -c '
import json, re, sys
for line in sys.stdin:
    sys.stderr.write(line)
    m = re.search(r"(\d+) ms", line)
    share = re.search(r"(\d+) % of the image left", line)
    if not (m or share or "etcd" in line or "killed" in line):
        continue
    print(json.dumps({"bench": "flip_p2p_faults", "case": sys.argv[1] + ": " + line.strip(), "value": int(m[1]) / 1000 if m else None,
                      "unit": "s", "limit": None, "share": None, "peer": None, "ratio": None,
                      "images_out_of_registry": int(share[1]) / 100 if share else None}), flush=True)' "$1"
}
run_part() {
	case $1 in
	curve) tests/bench/flip_p2p.sh ;;
	faults)
		set -o pipefail
		KINDS="good,good,good noise,lie,cut stall,stall,stall wait,stall,lie error,wait,noise busy,wait,lie" tests/integration/flip_peers_bad.sh 2>&1 | fault_lines bad &&
			FLIP_ETCD_AWAY=60 KILLS="0.05 0.2 0.4 0.8 1.2" tests/integration/flip_peers_faults.sh 2>&1 | fault_lines faults &&
			tests/integration/flip_peers_containerd.sh 2>&1 | fault_lines containerd
		;;
	model) tests/bench/flip_p2p_model.sh ;;
	pressure) tests/bench/flip_pressure.sh ;;
	fabric) tests/bench/flip_p2p_fabric.sh ;;
	sim)
		for n in 10 100 1000; do
			python3 tests/bench/flip_p2p_sim.py --nodes $n --group 1024 || return
		done
		python3 tests/bench/flip_p2p_sim.py --nodes 10000 --group 1024 --window 8
		;;
	*) echo "no part $1" >&2 && return 2 ;;
	esac
}
for part in $PARTS; do
	SECONDS=0
	(run_part "$part") </dev/null | tee -a "$lines"
	rc=${PIPESTATUS[0]}
	((rc == 0 || rc == 77)) || failed+=" $part"
	((rc == 77)) && word="was left out" || word="took $SECONDS s"
	((rc == 0 || rc == 77)) || word="has failed after $SECONDS s (exit $rc)"
	echo "bench-p2p: $part $word" >&2
done
[[ -n ${OUT:-} ]] && cat "$lines" >>"$OUT"
if [[ -n ${SVG:-} ]]; then
	python3 tests/bench/flip_p2p_svg.py "$SVG" <"${OUT:-$lines}" || failed+=" svg"
fi
[[ -z $failed ]]
