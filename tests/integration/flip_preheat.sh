#!/bin/bash
# What is preheated gives way: to what somebody reads over the same narrow link, and to the work of the machine, whose pressure (PSI) is
# said here by files of the test's own (pressure-dir); so do answers to peers. It goes on when both are over.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
begin flip-preheat docker-registry
net_up 2 40mbit
export FLIP_MODELS=$work/models
mkdir "$work/psi" "$work/one" "$work/two" "$work/three"
pressure() { # PER_CENT: of the last ten seconds; no total, so that this is what counts
	local of
	for of in cpu io memory; do
		echo "some avg10=$1 avg60=0.00 avg300=0.00 total=0" >"$work/psi/$of"
	done
}
for n in 1 2 3; do # what takes longer over this link, half a minute, than all of the time that the test leaves it
	head -c 48M /dev/urandom >"$work/one/model-0000$n-of-00003.safetensors"
done
head -c 24M /dev/urandom >"$work/two/model.safetensors"
head -c 2M /dev/urandom >"$work/three/model.safetensors"
pressure 0.00
start_cluster_registry
for m in one two three; do
	in_ns r "$flip" model push "$work/$m" 127.0.0.1:5000/m/$m:1 >"$work/out" 2>&1 || fail "push $m"
done
members=$(members_list 2)
for i in 1 2; do
	start_node $i FLIP_PRESSURE_DIR="$work/psi" FLIP_PEERS_PRESSURE=20 FLIP_MODELS="$work/models$i" FLIP_MIN_FREE=1M
done
model() { # I VERB ARGUMENT...
	local i=$1 verb=$2
	shift 2
	FLIP_MODELS=$work/models$i "$flip" model "$verb" --control "$work/n$i.control" "$@"
}
is_complete() { model 1 list --json | python3 -c "import json,sys; sys.exit(not [m for m in json.load(sys.stdin) if m['name'] == '$1'][0]['complete'])"; }
preheated() { node_stat 1 reads preheat_bytes; }
must_come() { # WHAT COMMAND...
	local what=$1
	shift
	until_true "$@" || fail "$what: $(node_ctl 1 stat --json | tail -c 2000)"
}

# ---- Somebody reads --------------------------------------------------------------------------------------------------------

begun() { (($(preheated) > 0)); }
model 1 pull -d --preheat "$at_registry/m/one:1" one >"$work/out" 2>&1 || fail "pull --preheat"
must_come "nothing is preheated" begun
model 1 pull -d "$at_registry/m/two:1" two >"$work/out" 2>&1 && model 1 mount two >"$work/out" 2>&1 || fail "mount"
cmp "$work/two/model.safetensors" "$work/models1/two/model.safetensors" &
reader=$!
# Both are counted while it reads: from when something has come for it until it has all.
reads() { (($(node_stat 1 reads foreground_bytes) > 0)) || is_complete two; }
must_come "what somebody reads does not come" reads
before=$(preheated) during=0
until is_complete two; do
	kill -0 $reader 2>/dev/null || is_complete two || fail "the reader has ended"
	now=$(preheated)
	is_complete two || during=$((now - before))
done
wait "$reader" || fail "another model"
is_complete one && fail "the link is too wide for this test"
# What was on its way when the reader came may come: an eighth of the window; and as much when it did nothing for half a second.
read=$(stat -c %s "$work/two/model.safetensors")
((during < read / 2)) || fail "$during bytes were preheated while somebody read $read"
echo "while $read bytes were read, $during were preheated"

# ---- The machine's own work waits --------------------------------------------------------------------------------------------

slow() { (($(node_stat 1 reads preheat_percent) <= 2)); }
pressure 90.00
must_come "preheating does not slow down" slow
start=$(date +%s)
before=$(preheated)
# What somebody asks for comes nevertheless.
model 1 pull "$at_registry/m/three:1" three >"$work/out" 2>&1 && model 1 mount three >"$work/out" 2>&1 || fail "pull under pressure"
cmp "$work/three/model.safetensors" "$work/models1/three/model.safetensors" || fail "another model"
sleep 3
came=$((($(preheated) - before) >> 20)) took=$(($(date +%s) - start + 1))
# A chunk of 1 MiB in 2.45 s, and one that was under way.
((came <= took / 2 + 2)) || fail "$came chunks were preheated in $took s under pressure"
is_complete one && fail "all was preheated under pressure"
echo "under pressure $came chunks were preheated in $took s"

# ---- So do answers -------------------------------------------------------------------------------------------------------------

model 2 pull "$at_registry/m/two:1" two >"$work/out" 2>&1 && model 2 mount two >"$work/out" 2>&1 || fail "pull on the second node"
cmp "$work/two/model.safetensors" "$work/models2/two/model.safetensors" || fail "another model on the second node"
pace=$(node_ctl 1 peers --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["pace_percent"])')
((pace < 100)) || fail "answers keep their pace under pressure"
node_ctl 2 peers --json | python3 -c 'import json,sys; sys.exit(any(m["failures"] for m in json.load(sys.stdin)["members"]))' ||
	fail "a member that gives way was taken for a bad one: $(node_ctl 2 peers)"
echo "under pressure peers are answered at $pace % of the pace, and nobody is left out for it"

# ---- It is over ----------------------------------------------------------------------------------------------------------------

pressure 0.00
before=$(preheated)
gets_on() { (($(preheated) > before + (8 << 20))); }
must_come "what was preheated does not get on" gets_on
for ns in 1 r; do
	in_ns $ns tc qdisc del dev eth0 root && in_ns hub tc qdisc del dev p$ns root || fail "the link stays narrow"
done
must_come "what was preheated does not come" is_complete one
dir=$(model 1 mount one) && diff -r "$work/one" "$dir" >"$work/out" || fail "another model"
umount "$work"/models[12]/*
end_nodes
