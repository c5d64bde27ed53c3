#!/bin/bash
# The images of containers/: built twice to the same bytes, small, taken by skopeo, pushed to a registry, made lazy, started by
# containerd and runc from flip's mounts; engine and assistant answer there as an ordinary user.
set -u
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD_DIR:-build/release}")
flip=$build/bin/flip
skip() { echo "$*"; exit 77; }
fail() {
	echo "FAIL: $*"
	for log in "$work"/flip.log "$work"/containerd.log "$work"/out "$work"/err; do
		[[ -s $log ]] && echo "--- ${log##*/}" && tail -n 12 "$log"
	done
	exit 1
}
((EUID == 0)) || skip "not root: no containers"
[[ -c /dev/fuse ]] || skip "no /dev/fuse"
for tool in containerd ctr runc docker-registry skopeo python3 rpmbuild createrepo_c curl; do
	command -v $tool >/dev/null || skip "$tool is missing"
done
[[ ${build##*/} == san-* ]] && skip "images hold programs as they are shipped"
BASE_REPO=$(containers/stand-in.sh small 2>&1) || skip "$BASE_REPO"
export BASE_REPO LEVEL=1 SOURCE_DATE_EPOCH=1700000000 REVISION=test STAGED_PACKAGES=1 BUILD_DIR=$build

work=$(mktemp -d /var/tmp/images-run.XXXXXX)
finish() {
	local p t
	[[ -S $work/containerd.sock ]] && ctr tasks ls -q 2>/dev/null | while read -r t; do ctr tasks kill -s KILL "$t"; done
	sleep 0.2
	for t in "$engine" "$agent"; do runc --root /run/containerd/runc/t delete -f "$t" 2>/dev/null; done
	kill $(jobs -pr) 2>/dev/null
	wait 2>/dev/null
	for p in /proc/[0-9]*; do # shims and flip's holder: what was started with our folder in its words
		{ tr '\0' ' ' <"$p/cmdline" | grep -qF "$work/" && kill "${p#/proc/}"; } 2>/dev/null
	done
	awk -v d="$work/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r -n1 umount -l 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
# Names of containers are the machine's own, whoever's containerd they are of.
engine=engine-$$ agent=agent-$$
ctr() { command ctr --address "$work/containerd.sock" -n t "$@"; }

# ---- Built, twice -----------------------------------------------------------------------------------------------

images=(ocai-engine ocai-engine-mini ocai-agent)
for turn in one two; do
	OUT=$work/$turn containers/build.sh "${images[@]}" >"$work/$turn.json" 2>"$work/err" || fail "build.sh"
done
cmp "$work/one.json" "$work/two.json" || fail "not the same images twice"
diff -r "$work/one" "$work/two" >"$work/out" || fail "not the same bytes twice"
layout=$work/one/oci
python3 - "$work" <<'PY' || fail "not what the images are to be"
import json, sys
work = sys.argv[1]
lines = {d["image"]: d for d in map(json.loads, open(work + "/one.json"))}
engine, mini, agent = (lines[n] for n in ("ocai-engine", "ocai-engine-mini", "ocai-agent"))
assert engine["bytes"] <= 25e6 and engine["packed_bytes"] <= 25e6, engine
first = lambda d, n: [(l["name"], l["digest"]) for l in d["layers"][:n]]
assert first(engine, 2) == first(mini, 2) == first(agent, 2) and first(mini, 3) == first(agent, 3), lines
assert [l["name"] for l in agent["layers"][:4]] == ["base", "engine", "model", "agent"], agent
def blob(d):
    return json.load(open(f"{work}/one/oci/blobs/" + d.replace(":", "/")))
for name, d in lines.items():
    manifest = blob(d["digest"])
    run = blob(manifest["config"]["digest"])["config"]
    assert run["User"] == "65532:65532", run
    labels = run["Labels"]
    for key in "title description version licenses source revision vendor base.name".split():
        assert labels["org.opencontainers.image." + key], (name, key)
    assert manifest["annotations"]["org.opencontainers.image.revision"] == "test", manifest
    sbom = json.load(open(f"{work}/one/{name}.spdx.json"))
    assert {p["name"] for p in sbom["packages"]} >= {"ocai-engine", "libc6"}, name
    check = run["Healthcheck"]["Test"]
    assert check == (["NONE"] if name == "ocai-agent" else ["CMD", "/usr/bin/ocai-engine", "health"]), run
PY

# ---- Taken by others ----------------------------------------------------------------------------------------------

skopeo inspect "oci:$layout:ocai-engine" >"$work/out" 2>&1 || fail "skopeo inspect"
grep -q '"org.opencontainers.image.title": "ocai-engine"' "$work/out" || fail "skopeo sees no labels"
for _ in {1..10}; do # a port may be somebody else's
	port=$((20000 + RANDOM % 12000))
	cat >"$work/registry.yml" <<-Y
		version: 0.1
		log: {level: error, accesslog: {disabled: true}}
		storage: {filesystem: {rootdirectory: $work/registry}}
		http: {addr: '127.0.0.1:$port'}
	Y
	docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
	registry=$!
	for _ in {1..1200}; do
		kill -0 $registry 2>/dev/null || break
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && sleep 0.2 && kill -0 $registry 2>/dev/null && break 2
		sleep 0.05
	done
done
at=127.0.0.1:$port
for image in ocai-engine-mini ocai-agent; do
	skopeo copy -q --dest-tls-verify=false "oci:$layout:$image" "docker://$at/$image:plain" 2>"$work/err" || fail "skopeo copy $image"
	"$flip" convert "docker://$at/$image:plain" "docker://$at/$image:lazy" >"$work/out" 2>&1 || fail "convert $image"
done

# Made lazy, an image says the same of itself.
python3 - "$at" "$layout" "$work/one.json" <<'PY' || fail "the lazy image has another configuration"
import json, sys, urllib.request
at, layout, lines = sys.argv[1:]
def get(path, kind):
    r = urllib.request.Request(f"http://{at}/v2/ocai-engine-mini/{path}", headers={"Accept": kind})
    return json.load(urllib.request.urlopen(r))
oci = "application/vnd.oci.image."
lazy = get("manifests/lazy", oci + "manifest.v1+json")
config = get("blobs/" + lazy["config"]["digest"], "*/*")["config"]
digest = next(d["digest"] for d in map(json.loads, open(lines)) if d["image"] == "ocai-engine-mini")
read = lambda d: json.load(open(f"{layout}/blobs/" + d.replace(":", "/")))
assert config == read(read(digest)["config"]["digest"])["config"], config
PY

# ---- Started lazily -------------------------------------------------------------------------------------------------

mkdir -p "$work/ctrd/root" "$work/ctrd/state"
cat >"$work/config.toml" <<T
version = 2
root = "$work/ctrd/root"
state = "$work/ctrd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$work/containerd.sock"
T
"$flip" setup containerd --config "$work/config.toml" --socket "$work/flip.sock" >"$work/out" || fail "flip setup"
"$flip" snapshotter --root "$work/flip" --socket "$work/flip.sock" --control "$work/control.sock" >>"$work/flip.log" 2>&1 &
daemon=$!
for _ in {1..2400}; do
	"$flip" stat --control "$work/control.sock" >/dev/null 2>&1 && break
	kill -0 $daemon 2>/dev/null || fail "flip does not start"
	sleep 0.05
done
containerd --config "$work/config.toml" --log-level warn >"$work/containerd.log" 2>&1 &
for _ in {1..2400}; do
	ctr version >/dev/null 2>&1 && break
	sleep 0.05
done
for image in ocai-engine-mini ocai-agent; do
	"$flip" pull -q --address "$work/containerd.sock" --namespace t "$at/$image:lazy" >"$work/out" 2>&1 || fail "pull $image"
done
ctr snapshots --snapshotter flip ls | grep -q Committed || fail "no snapshots of flip's"

# The engine: answers, as user 65532, with a root that nobody writes to; its health check says so from within.
serve=$((port + 1))
ctr run -d --net-host --read-only --snapshotter flip --env "OCAI_ENGINE_PORT=$serve" --env OCAI_ENGINE_HOST=127.0.0.1 \
	--log-uri "file://$work/engine.log" "$at/ocai-engine-mini:lazy" "$engine" >"$work/out" 2>&1 || fail "the engine's container"
for _ in {1..1200}; do
	curl -fsS -o "$work/health" "http://127.0.0.1:$serve/health" 2>/dev/null && break
	sleep 0.1
done
[[ $(cat "$work/health" 2>/dev/null) == '{"status":"ok"}' ]] || fail "no health: $(tail -n 3 "$work/engine.log")"
pid=$(ctr tasks ls | awk '$1 == "'"$engine"'" { print $2 }')
[[ $(awk '/^Uid/ { print $2, $3 }' "/proc/$pid/status") == "65532 65532" ]] || fail "runs as $(grep ^Uid "/proc/$pid/status")"
grep -q " / .* overlay " "/proc/$pid/mountinfo" || grep -q ' - overlay ' "/proc/$pid/mountinfo" || fail "no overlay mount"
[[ $(ctr tasks exec --exec-id check "$engine" /usr/bin/ocai-engine health) == ok ]] || fail "the health check within"
curl -fsS "http://127.0.0.1:$serve/v1/chat/completions" -d '{"messages":[{"role":"user","content":"show free memory"}],"max_tokens":16}' \
	>"$work/chat" 2>"$work/err" || fail "no completion"
python3 -c 'import json, sys; assert json.load(open(sys.argv[1]))["choices"][0]["message"]["content"].strip()' "$work/chat" || fail "an empty completion"
ctr tasks kill -s SIGTERM "$engine"
for _ in {1..1200}; do
	ctr tasks ls | grep -q "$engine.*STOPPED" && break
	sleep 0.1
done
ctr tasks rm "$engine" >/dev/null 2>&1 || fail "the engine did not end with 0 after SIGTERM"

# The assistant: no network but its own loopback. Detached, since ctr does not always hand on that standard input has ended.
ctr run -d --snapshotter flip --log-uri "file://$work/answer" "$at/ocai-agent:lazy" "$agent" \
	/usr/bin/ocai cmd --print "how much memory is free" >"$work/out" 2>&1 || fail "the assistant's container"
for _ in {1..2400}; do
	ctr tasks ls | grep -q "$agent.*STOPPED" && break
	sleep 0.1
done
ctr tasks rm "$agent" >"$work/out" 2>&1 || fail "the assistant ended otherwise than with 0: $(<"$work/answer")"
answer=$(<"$work/answer")
grep -q free <<<"$answer" || fail "the assistant answers \"$answer\""
[[ $("$flip" stat --json --control "$work/control.sock" | python3 -c 'import json,sys; r = json.load(sys.stdin)["reads"]; print(r["errors"], r["bad_chunks"])') == "0 0" ]] ||
	fail "reads failed"
echo "3 images, twice the same; engine and assistant answered from lazy mounts: $answer"
