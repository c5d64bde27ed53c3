#!/bin/bash
# A slim image in the world it is made for: pushed to a real registry, pulled and run by containerd and runc as its
# configuration says, its package database read by rpm. The same image twice is the same digest.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
for tool in docker-registry containerd ctr runc curl rpm; do
	command -v $tool >/dev/null || skip "$tool is missing"
done
slim_repo
work=$(mktemp -d)
finish() {
	mountpoint -q "$work/mounted" && umount "$work/mounted"
	kill $(jobs -pr) 2>/dev/null
	wait
	umount -l "$work"/state/io.containerd.runtime.v2.task/*/*/rootfs 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
export TMPDIR=$work SOURCE_DATE_EPOCH=1700000000

# A registry and a containerd of our own; either may take a moment.
start_registry() {
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	cat >"$work/registry.yml" <<-CONF
		version: 0.1
		log: {level: error}
		storage:
		  filesystem: {rootdirectory: $work/registry}
		http: {addr: "127.0.0.1:$port"}
	CONF
	docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
	registry=$!
}
start_registry
cat >"$work/config.toml" <<CONF
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/sock"
CONF
containerd -c "$work/config.toml" >"$work/daemon" 2>&1 &
daemon=$!
ctr=(ctr -a "$work/sock")
# Ours, not somebody's at the same port.
listens() { kill -0 "$registry" 2>/dev/null && curl -sf "http://127.0.0.1:$port/v2/"; }
# waits_for PID LOG WHAT COMMAND...: until it succeeds; 1 when the process ended
waits_for() {
	local pid=$1 log=$2 what=$3
	shift 3
	for _ in {1..1200}; do
		"$@" >/dev/null 2>&1 && return
		kill -0 "$pid" 2>/dev/null || return 1
		sleep 0.1
	done
	fail "$what does not answer: $(tail -n 1 "$log")"
}
# no_use WHAT LOG: it cannot be had here
no_use() {
	skip "$1 does not run here: $(tail -n 1 "$2")"
}
waits_for "$daemon" "$work/daemon" containerd "${ctr[@]}" version || no_use containerd "$work/daemon"
# A port that is free now may be somebody's a moment later.
for _ in {1..10}; do
	waits_for "$registry" "$work/registry.log" docker-registry listens && break
	start_registry
done
listens || no_use docker-registry "$work/registry.log"

# The full image: all files of bash and coreutils, and a configuration that a run depends on in every part.
slim_install "$work/full" bash coreutils base-passwd
"$SLIMTRACE" slim -q --root "$work/full" --keep / --keep '/**' --set rpmdb=keep --level 1 --out "oci:$work/img:full" >"$work/log" 2>&1 ||
	fail "the full image: $(tail -n 1 "$work/log")"
python3 - "$work/img" <<'PY' || fail "the configuration cannot be set"
import hashlib, json, os, sys
blobs = sys.argv[1] + "/blobs/sha256/"
def read(d):
    return json.load(open(blobs + d["digest"].split(":")[1]))
def write(d, doc):
    data = json.dumps(doc).encode()
    d["digest"], d["size"] = "sha256:" + hashlib.sha256(data).hexdigest(), len(data)
    open(blobs + d["digest"].split(":")[1], "wb").write(data)
index = json.load(open(sys.argv[1] + "/index.json"))
manifest = read(index["manifests"][0])
config = read(manifest["config"])
config["config"] = {"Entrypoint": ["/usr/bin/bash", "-c"], "Cmd": ["echo $GREETING from $PWD as $UID; exit 7"], "User": "nobody",
    "WorkingDir": "/var/mail", "Env": ["PATH=/usr/bin:/bin", "GREETING=hello"], "Labels": {"org.example.team": "slim"}}
write(manifest["config"], config)
write(index["manifests"][0], manifest)
json.dump(index, open(sys.argv[1] + "/index.json", "w"))
PY

# Straight into the registry, twice; "-" is what the configuration says.
name=127.0.0.1:$port/test/bash
for tag in first second; do
	"$SLIMTRACE" slim -q --image "oci:$work/img:full" --run - --out "docker://$name:$tag" --json >"$work/$tag.json" 2>"$work/err" ||
		fail "slim to the registry: $(cat "$work/err")"
done
digest() {
	curl -sfI -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://127.0.0.1:$port/v2/test/bash/manifests/$1" |
		tr -d '\r' | awk 'tolower($1) == "docker-content-digest:" { print $2 }'
}
first=$(digest first)
[[ $first == sha256:* && $first == "$(digest second)" ]] || fail "the same image twice: $first, $(digest second)"
grep -q "$first" "$work/first.json" || fail "the report does not tell the digest $first"

"${ctr[@]}" images pull --plain-http "$name:first" >"$work/log" 2>&1 || fail "pull: $(tail -n 2 "$work/log")"
"${ctr[@]}" images ls | grep -q "$name:first .*$first" || fail "containerd has another digest: $("${ctr[@]}" images ls)"

# run ID ARG...: output and exit code of a container
run() {
	local id=$1
	shift
	out=$(timeout 300 "${ctr[@]}" run --rm "$name:first" "$id-$$" "$@" 2>"$work/err")
	code=$?
}
run own
if ((code != 7)) && grep -qE 'mount|cgroup|permitted|overlay' "$work/err"; then
	skip "no containers here: $(tail -n 1 "$work/err")"
fi
[[ $code == 7 && $out == "hello from /var/mail as 65534" ]] || fail "its own command: exit $code, \"$out\", $(cat "$work/err")"
run other /usr/bin/bash -c 'x=abc; echo ${x^^} $((6 * 7)); exit 3'
[[ $code == 3 && $out == "ABC 42" ]] || fail "another command: exit $code, \"$out\", $(cat "$work/err")"
run gone /usr/bin/ls
((code != 0)) || fail "ls runs in an image of bash alone"
"${ctr[@]}" content get "$("${ctr[@]}" content get "$first" | python3 -c 'import json, sys; print(json.load(sys.stdin)["config"]["digest"])')" >"$work/config.json"
grep -q '"org.example.team": *"slim"' "$work/config.json" || fail "the label is lost: $(cat "$work/config.json")"

# rpm reads the database in the root that containerd unpacked, and agrees with it
mkdir "$work/mounted"
"${ctr[@]}" images mount "$name:first" "$work/mounted" >"$work/log" 2>&1 || fail "mount: $(tail -n 1 "$work/log")"
have=" $(slim_rpm "$work/mounted" -qa --qf '%{NAME} ')"
for p in bash libc6 libtinfo6; do
	[[ $have == *" $p "* ]] || fail "rpm -qa does not tell $p: $have"
done
[[ $have != *" libgmp10 "* ]] || fail "rpm -qa tells libgmp10, of which nothing is there"
for p in $(slim_rpm "$work/mounted" -qas | sed -n 's/^normal *//p'); do
	[[ -e $work/mounted$p || -L $work/mounted$p ]] || fail "the database tells $p, which is not there"
done
# times too, which SOURCE_DATE_EPOCH limits
slim_rpm "$work/mounted" -V bash libc6 libtinfo6 >"$work/log" 2>&1 || fail "rpm -V: $(cat "$work/log")"
echo "pulled and run: $(slim_size "$work/mounted") bytes of $(slim_size "$work/full"), packages$have"
exit 0
