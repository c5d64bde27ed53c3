#!/bin/bash
# The manifests for Kubernetes: every kustomization is rendered, and as kubectl's kustomize does it where that is here; every
# resource is taken by the published schemas, unknown fields included; names lead somewhere; the engine's pods are
# "restricted"; what the autoscaler asks for is what the engine tells; node.sh does to a node what it says.
set -u
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD_DIR:-build/release}")
tools=tests/integration/deploy
skip() { echo "$*"; exit 77; }
fail() { echo "FAIL: $*"; exit 1; }
python3 -c 'import yaml' 2>/dev/null || skip "python3-yaml is missing"
work=$(mktemp -d)
trap 'kill $(jobs -pr) 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

# ---- Rendered ---------------------------------------------------------------------------------------------------

for folder in $(find deploy -name kustomization.yaml -printf '%h\n' | sort); do
	name=$(tr / - <<<"${folder#deploy/}")
	python3 $tools/render.py "$folder" >"$work/$name.json" || fail "$folder is not rendered"
	restricted=
	[[ $folder == deploy/ocai-engine/* ]] && restricted=restricted
	python3 $tools/cross.py "$work/$name.json" $restricted || fail "$folder"
done
(($(ls "$work"/*.json | wc -l) == 6)) || fail "kustomizations were not found"
for file in $(find deploy -name '*.yaml' ! -name kustomization.yaml ! -name patch.yaml ! -name custom-metrics.yaml); do
	grep -rqE "^ +- (\.\./)*${file##*/}" "$(dirname "$file")/kustomization.yaml" || fail "$file is in no kustomization"
done
kustomized="no kubectl to compare with"
if kubectl kustomize --help 2>&1 | grep -q 'kustomization.yaml'; then
	for file in "$work"/*.json; do
		name=${file##*/} name=${name%.json}
		folder=deploy/$(sed 's,-overlays-,/overlays/,; s,-base$,/base,' <<<"$name")
		kubectl kustomize "$folder" >"$work/$name.yaml" 2>"$work/err" || fail "kubectl kustomize $folder: $(<"$work/err")"
		python3 $tools/same.py "$file" "$work/$name.yaml" || fail "$name: kustomize renders something else"
	done
	kustomized="as kubectl kustomize renders it"
fi

# ---- node.sh, on a node whose dnf and systemctl write down what they are asked -------------------------------------

mkdir "$work/bin" "$work/etc"
sh -n deploy/flip/base/node.sh || fail "node.sh"
cat >"$work/bin/systemctl" <<SH
#!/bin/sh
echo "systemctl \$*" >>"$work/calls"
SH
cat >"$work/bin/dnf" <<SH
#!/bin/sh
echo "dnf \$*" >>"$work/calls"
cp "$work/flip" "$work/bin/flip"
SH
cat >"$work/flip" <<SH
#!/bin/sh
[ "\$1" = stat ] && exit 0
exec "$build/bin/flip" "\$@"
SH
chmod +x "$work"/bin/* "$work/flip"
on_node() {
	: >"$work/calls"
	PATH=$work/bin:/usr/bin:/bin CONTAINERD_CONFIG=$work/etc/config.toml sh -s -- "$@" <deploy/flip/base/node.sh >"$work/out" 2>&1
}
if [[ -x $build/bin/flip ]] && ! PATH=/usr/bin:/bin command -v flip >/dev/null; then
	printf 'version = 2\nroot = "/x"\n' >"$work/etc/config.toml"
	cp "$work/etc/config.toml" "$work/before"
	on_node remove && [[ ! -s $work/calls ]] || fail "remove on a node without flip: $(<"$work/calls") $(<"$work/out")"
	on_node install || fail "install: $(<"$work/out")"
	grep -qx 'dnf -y install oc-flip' "$work/calls" || fail "install: no package"
	grep -qx 'systemctl enable --now flip-snapshotter.service' "$work/calls" || fail "install: no service"
	grep -q 'snapshotter = "flip"' "$work/etc/config.toml" || fail "install: containerd is not told"
	[[ $(tail -n 1 "$work/calls") == "systemctl restart containerd" ]] || fail "install: containerd was not restarted"
	on_node install || fail "install again: $(<"$work/out")"
	grep -qE 'dnf|restart' "$work/calls" && fail "install again: $(<"$work/calls")"
	on_node remove || fail "remove: $(<"$work/out")"
	cmp "$work/before" "$work/etc/config.toml" || fail "remove left something"
	grep -qx 'systemctl restart containerd' "$work/calls" || fail "remove: containerd was not restarted"
	printf 'version = 2\n[proxy_plugins.flip]\n' >"$work/etc/config.toml"
	on_node install && fail "a configuration of somebody else was passed over"
	grep -q restart "$work/calls" && fail "containerd was restarted for nothing"
	on_node && fail "no action was taken for one"
fi

# ---- Metrics ------------------------------------------------------------------------------------------------------

"$build/bin/ocai-engine" serve --port 0 --port-file "$work/port" 2>"$work/log" &
for _ in {1..1200}; do
	[[ -s $work/port ]] && break
	sleep 0.1
done
curl -fsS "http://127.0.0.1:$(<"$work/port")/metrics" >"$work/metrics" || fail "no metrics: $(<"$work/log")"
python3 - "$work" <<'PY' || fail "metrics"
import json, re, sys, yaml
work = sys.argv[1]
told = {l.split()[0] for l in open(work + "/metrics") if l[0] != "#"}
rules = yaml.safe_load(open("deploy/ocai-engine/custom-metrics.yaml"))["rules"]
offered = set()
for r in rules:
    offered.add(r["name"]["as"])
    asked = set(re.findall(r"ocai_engine_\w+", r["seriesQuery"] + r["metricsQuery"] + r["name"]["matches"]))
    assert asked and asked <= told, f"the engine does not tell {asked - told}"
for d in json.load(open(work + "/ocai-engine-base.json")):
    if d["kind"] == "HorizontalPodAutoscaler":
        wanted = {m["pods"]["metric"]["name"] for m in d["spec"]["metrics"]}
        assert wanted and wanted <= offered, f"nobody offers {wanted - offered}"
PY

# ---- Schemas ------------------------------------------------------------------------------------------------------

command -v node >/dev/null && command -v npm >/dev/null || skip "all but the schemas passed; node and npm are missing"
schemas=$PWD/build/fixtures/kubernetes-schemas
mkdir -p $schemas
# Tests of several builds run side by side: one installs, the others wait.
exec 9>$schemas/lock
flock 9
if [[ ! -e $schemas/done ]]; then
	echo '{ "private": true }' >$schemas/package.json
	(cd $schemas && timeout 300 npm install --ignore-scripts --no-audit --no-fund --loglevel=error kubernetes-models@4.5.1 &&
		timeout 300 npm pack --loglevel=error @kubernetes/client-node@2.0.1 &&
		tar -xzf kubernetes-client-node-2.0.1.tgz package/package.json package/dist/gen/models && touch done) >"$work/npm" 2>&1 ||
		skip "all but the schemas passed; they could not be installed ($(tail -n 1 "$work/npm"))"
fi
exec 9>&-
valid() { node $tools/validate.mjs $schemas/node_modules $schemas/package/dist/gen/models "$@"; }
valid "$work"/*.json || fail "Kubernetes would not take this"
# And what is wrong is found.
wrong() { # PATTERN CODE: the base with a change, as Python code on the Deployment d
	python3 - "$work" "$2" <<'PY' || fail "no wrong sample"
import json, sys
docs = json.load(open(sys.argv[1] + "/ocai-engine-base.json"))
d = next(d for d in docs if d["kind"] == "Deployment")
exec(sys.argv[2])
json.dump([d], open(sys.argv[1] + "/wrong", "w"))
PY
	valid "$work/wrong" >"$work/out" 2>&1 && fail "taken: $2"
	grep -qE "$1" "$work/out" || fail "$2: says $(<"$work/out")"
}
wrong 'no field replica ' 'd["spec"]["replica"] = 2'
wrong 'no field readOnly ' 'd["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnly"] = True'
wrong 'no field livenessprobe ' 'd["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}'
wrong 'integer' 'd["spec"]["replicas"] = "two"'
wrong 'selector' 'del d["spec"]["selector"]'
wrong 'name' 'del d["spec"]["template"]["spec"]["containers"][0]["name"]'
wrong 'no such kind' 'd["apiVersion"] = "apps/v9"'
echo "5 kustomizations, $kustomized; taken by Kubernetes' schemas"
