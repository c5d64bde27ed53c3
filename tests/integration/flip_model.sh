#!/bin/bash
# Models: pushed to a real registry and pulled from it, from a real HTTP server, from a folder; mounted while they arrive;
# the daemon killed in the middle; sources that lie, disks that are full; removed and collected.
. "$(dirname "$0")/flip/lib.sh"
begin flip-model docker-registry skopeo nginx
export FLIP_MODELS=$work/models FLIP_RETRIES=1 FLIP_STALL=20 FLIP_MIN_FREE=1M FLIP_BACKGROUND_WAIT=1

# ---- A model: some of everything -----------------------------------------------------------------------------------

tree=$work/tree
mkdir -p "$tree/sub" "$tree/.cache"
python3 - "$tree" <<'PY' || fail "no model"
import os, random, sys
random.seed(11)
d = sys.argv[1]
w = lambda name, n: open(f"{d}/{name}", "wb").write(random.randbytes(n))
open(f"{d}/config.json", "w").write('{"model_type": "none"}\n')
w("tokenizer.json", 300_001)
w("model-00001-of-00002.safetensors", 24 << 20)
w("model-00002-of-00002.safetensors", (9 << 20) + 12345)
w("sub/adapter one.gguf", 3 << 20)
w("exactly", 1 << 20)
open(f"{d}/empty", "w")
os.link(f"{d}/exactly", f"{d}/sub/the same")
os.symlink("tokenizer.json", f"{d}/link.json")
w(".cache/left out", 10)
PY
expected=$work/expected # what is to be seen: no hidden files, links as files
cp -aL "$tree" "$expected" && rm -r "$expected/.cache"
bytes=$(find "$expected" -type f -printf '%s\n' | awk '{ s += $1 } END { print s }')

start_registry
start_proxy
start_flip

model() { ctl model "$@"; }
must() { "$@" >"$work/out" 2>&1 || fail "$*"; }
must_fail() { # WORDS COMMAND...
	local words=$1
	shift
	"$@" >"$work/out" 2>&1 && fail "succeeds: $*"
	grep -qE -- "$words" "$work/out" || fail "not told why (\"$words\"): $*"
	[[ $(wc -l <"$work/out") -le 3 ]] || fail "more than a few words: $*"
}
of() { model list --json | python3 -c "import json,sys; print([m for m in json.load(sys.stdin) if m['name'] == '$1'][0]['$2'])"; }
heal() { # and what was damaged on its way has come
	fault none
	idle
}
equal() { diff -r --no-dereference "$expected" "$1" >"$work/out" 2>&1 || fail "$2: not what it was made of"; }
fresh_node() {
	awk -v d="$work/models/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | xargs -r -d '\n' -n1 umount -l
	[[ -z $daemon ]] || stop_flip
	unmount_below "$node"
	end_holder "$node"
	rm -rf --one-file-system "$node" "$(session_of "$node")"
	node=$work/n$((++n_nodes))
	start_flip "$@"
}
n_nodes=0

# ---- A registry ----------------------------------------------------------------------------------------------------

must model push "$tree" 127.0.0.1:$port/m/one:1
skopeo inspect --raw --tls-verify=false docker://127.0.0.1:$port/m/one:1 >"$work/manifest" || fail "no artifact"
python3 - "$work/manifest" <<'PY' || fail "not an artifact as it should be"
import json, sys
m = json.load(open(sys.argv[1]))
titles = [l["annotations"]["org.opencontainers.image.title"] for l in m["layers"]]
assert m["artifactType"] == m["config"]["mediaType"] == "application/vnd.ocai.flip.model.v1+json"
assert len(titles) == 9 and "sub/adapter one.gguf" in titles and titles[-1] == "sub/adapter one.gguf", titles
PY
must model pull 127.0.0.1:$port/m/one:1
[[ $(of one complete) == True && $(of one bytes) == "$((bytes - (1 << 20) - 300001))" ]] || fail "not all of it: $(model list --json)"
dir=$(model mount one) || fail "no mount"
[[ $dir == "$work/models/one" && $(model mount one) == "$dir" ]] || fail "mounted at $dir"
equal "$dir" "from a registry"
must model list
grep -q "^one .*100.0 %" "$work/out" || fail "not listed"
must_fail "there is no model none" model mount none
must_fail "not a name" model pull 127.0.0.1:$port/m/one:1 ../x
must_fail "m/none.*not there|m/none.*unknown" model pull 127.0.0.1:$port/m/none:1

# A second model with a file of the first: not fetched again.
mkdir "$work/two"
cp "$tree/model-00001-of-00002.safetensors" "$work/two/shared.bin"
echo two >"$work/two/config.json"
must model push "$work/two" 127.0.0.1:$port/m/two:1
before=$(stat_of fetch wire_bytes)
must model pull 127.0.0.1:$port/m/two:1
(($(stat_of fetch wire_bytes) - before < 100000)) || fail "a file that is here was fetched again"

# ---- Collection, removal -------------------------------------------------------------------------------------------

must ctl gc --all
equal "$dir" "after a collection"
[[ $(of two complete) == True ]] || fail "a model was collected"
must ctl fsck
ctl unmount "$dir" || fail "unmount"
must model remove one
must ctl gc --all
[[ $(of two complete) == True ]] || fail "removing one model took another's file"
(($(stat_of store object_bytes) < (25 << 20))) || fail "nothing was collected"
must_fail "no model one" model remove one
must ctl fsck

# ---- A folder, an HTTP server ----------------------------------------------------------------------------------------

must model seed "$tree" seeded
dir=$(model mount seeded) || fail "no mount"
equal "$dir" "from a folder"
ctl unmount "$dir"

"$flip" model serve --listen 127.0.0.1:0 "$tree" 2>"$work/serve.log" &
keep $!
until_true grep -q "at port" "$work/serve.log" || fail "flip model serve says no port: $(<"$work/serve.log")"
serve_port=$(sed -n 's/.*at port \([0-9]*\).*/\1/p' "$work/serve.log")
fresh_node
must model pull http://127.0.0.1:$serve_port/model.json served
dir=$(model mount served) && equal "$dir" "from flip model serve"
must_fail "404" model pull http://127.0.0.1:$serve_port/nothing.json

# A server of others, by a manifest in a file; the first address has nothing.
next_port web
mkdir "$work/web"
cat >"$work/nginx.conf" <<N
pid $work/web/pid;
user root;
daemon off;
error_log $work/web/error.log;
events {}
http { access_log off; client_body_temp_path $work/web/1; proxy_temp_path $work/web/2; fastcgi_temp_path $work/web/3;
  uwsgi_temp_path $work/web/4; scgi_temp_path $work/web/5; sendfile on;
  server { listen 127.0.0.1:$web; root $tree; } }
N
nginx -e "$work/web/error.log" -c "$work/nginx.conf" 2>>"$work/web/error.log" &
keep $!
answers $web $! || fail "nginx does not start: $(<"$work/web/error.log")"
"$flip" model manifest --url http://127.0.0.1:$web/none/ --url http://127.0.0.1:$web "$tree" >"$work/m.json" 2>"$work/out" || fail "manifest"
fresh_node
must model pull "$work/m.json" web
dir=$(model mount web) && equal "$dir" "from nginx"
"$flip" model manifest "$tree" >"$work/m0.json"
must_fail "no address" model pull "$work/m0.json" nowhere

# ---- Artifacts of others: without digests of chunks, with archives -----------------------------------------------------

cat >"$work/artifact.py" <<'PY'
import gzip, hashlib, http.client, io, json, sys, tarfile
port, name, artifact, config_type = sys.argv[1:5]  # then TYPE=FILE[=ANNOTATION=PATH]..., a folder of one file for archives
c = http.client.HTTPConnection("127.0.0.1", int(port))
def ask(method, path, body=None, **headers):
    c.request(method, path, body, headers)
    a = c.getresponse()
    a.read()
    assert a.status < 300, (method, path, a.status)
    return a
def blob(data):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    where = ask("POST", f"/v2/{name}/blobs/uploads/", b"").getheader("Location").split(f":{port}", 1)[1]
    ask("PUT", f"{where}&digest={digest}", data, **{"Content-Type": "application/octet-stream"})
    return {"digest": digest, "size": len(data)}
def layer(kind, path, key=None, value=None):
    data = open(path, "rb").read()
    if ".tar" in kind:
        b = io.BytesIO()
        with tarfile.open(fileobj=b, mode="w") as t:
            i = tarfile.TarInfo(value)
            i.size = len(data)
            t.addfile(i, io.BytesIO(data))
        data = gzip.compress(b.getvalue(), 1) if kind.endswith("gzip") else b.getvalue()
    return {"mediaType": kind, **blob(data), **({"annotations": {key: value}} if key else {})}
m = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": artifact,
     "config": {"mediaType": config_type, **blob(b"{}")}, "layers": [layer(*a.split("=")) for a in sys.argv[5:]]}
ask("PUT", f"/v2/{name}/manifests/1", json.dumps(m).encode(), **{"Content-Type": m["mediaType"]})
PY
artifact() { python3 "$work/artifact.py" $port "$@" || fail "no artifact"; }
title=org.opencontainers.image.title path=org.cncf.model.filepath
big=$tree/model-00001-of-00002.safetensors
huge=$work/huge # more chunks than connections
head -c 100000000 /dev/urandom >"$huge"
artifact m/oras application/vnd.unknown application/vnd.oci.empty.v1+json \
	application/octet-stream="$huge"=$title=./weights.bin text/plain="$tree/config.json"=$title=a/config.json
artifact m/pack application/vnd.cncf.model.manifest.v1+json application/vnd.cncf.model.config.v1+json \
	application/vnd.cncf.model.weight.v1.raw="$big"=$path=model.safetensors \
	application/vnd.cncf.model.weight.config.v1.tar="$tree/config.json"=$path=config.json \
	application/vnd.cncf.model.doc.v1.tar+gzip="$tree/tokenizer.json"=$path=doc/README.md
artifact m/docker "" application/vnd.docker.ai.model.config.v0.1+json \
	application/vnd.docker.ai.gguf.v3="$big" application/vnd.docker.ai.license="$tree/config.json"
artifact m/image "" application/vnd.oci.image.config.v1+json application/vnd.oci.image.layer.v1="$tree/config.json"
fresh_node
must model pull 127.0.0.1:$port/m/oras:1
dir=$(model mount oras) && cmp "$huge" "$dir/weights.bin" && cmp "$tree/config.json" "$dir/a/config.json" || fail "not the files of ORAS's artifact"
must model pull 127.0.0.1:$port/m/pack:1
dir=$(model mount pack) && cmp "$big" "$dir/model.safetensors" && cmp "$tree/config.json" "$dir/config.json" &&
	cmp "$tree/tokenizer.json" "$dir/doc/README.md" || fail "not the files of the ModelPack"
must model pull 127.0.0.1:$port/m/docker:1
dir=$(model mount docker) && cmp "$big" "$dir/model.gguf" && cmp "$tree/config.json" "$dir/LICENSE" || fail "not the files of Docker's artifact"
must_fail "nothing says which file" model pull 127.0.0.1:$port/m/image:1
must ctl gc --all
cmp "$big" "$dir/model.gguf" || fail "collected"
must ctl fsck
# Without digests of chunks nothing is seen before all of it is right; killed in between, what has arrived is kept.
fresh_node
fault slow 2000000
must model pull -d 127.0.0.1:$proxy_port/m/oras:1
dir=$(model mount oras)
head -c 10 "$dir/weights.bin" >"$work/head" &
reader=$!
begun() { (($(of oras here) > 4000000)); }
until_true begun || fail "nothing arrives"
[[ -s $work/head && $(of oras complete) == False ]] && fail "served before it was verified"
here_before=$(of oras here)
must ctl gc --all
kill_flip
fault none
start_flip
((here_before > 1000000 && $(of oras here) >= here_before)) || fail "what had arrived is gone: $here_before, $(of oras here)"
wait $reader && cmp -n 10 "$work/head" "$huge" || fail "the reader got something else"
cmp "$huge" "$dir/weights.bin" || fail "wrong bytes"
fresh_node
fault large 500000
must_fail "oras: weights.bin: the content is not what its digest says" model pull 127.0.0.1:$proxy_port/m/oras:1
cat "$(model mount oras)/weights.bin" >"$work/out2" 2>&1 && fail "wrong bytes were served"
heal
must model pull 127.0.0.1:$proxy_port/m/oras:1
cmp "$huge" "$(model mount oras)/weights.bin" || fail "wrong bytes"
must ctl fsck
rm "$huge"

# ---- While it arrives --------------------------------------------------------------------------------------------------

slow=127.0.0.1:$proxy_port/m/one:1
fault slow 200000 # each of some twelve connections; ten seconds and more for all of it
fresh_node
must model pull -d $slow lazy
dir=$(model mount lazy) || fail "no mount"
cmp -n 70000 <(tail -c 70000 "$expected/model-00002-of-00002.safetensors") <(tail -c 70000 "$dir/model-00002-of-00002.safetensors") || fail "wrong bytes while it arrives"
cmp "$expected/tokenizer.json" "$dir/tokenizer.json" || fail "wrong bytes while it arrives"
[[ $(of lazy complete) == False ]] || fail "it was not lazy"

# ---- Killed in the middle ------------------------------------------------------------------------------------------------

here_before=$(of lazy here)
((here_before > 300000)) || fail "little has arrived: $here_before"
kill_flip
fault none
start_flip
equal "$dir" "from a mount over the daemon's death" # reads go on with the next daemon
must model pull $slow lazy
[[ $(of lazy complete) == True ]] || fail "not complete"
(($(stat_of fetch wire_bytes) <= $(of lazy bytes) - here_before + (1 << 20))) || fail "fetched again what was there: $(stat_of fetch wire_bytes), of $(of lazy bytes) $here_before"
must ctl fsck
# By itself, too: nobody asks for it again.
fault slow 1000000
fresh_node
must model pull -d $slow again
begun() { (($(of again here) > 0)); }
until_true begun || fail "nothing arrives"
kill_flip
fault none
start_flip
complete() { [[ $(of again complete) == True ]]; }
until_true complete || fail "a restarted daemon does not go on"

# ---- What goes wrong -------------------------------------------------------------------------------------------------------

# Wrong bytes: named, nothing of them served, what is right is kept.
fresh_node
fault large 500000
must_fail "one: [^:]+: .*not what its digest says" model pull $slow # whichever came first
heal
must model pull $slow
dir=$(model mount one) && equal "$dir" "after a lie"

# A new version under the same name: the old one until the new one is whole.
cp -r "$work/two" "$work/new" && head -c 5000000 /dev/urandom >"$work/new/more.bin"
must model push "$work/new" 127.0.0.1:$port/m/one:2
fault large 500000
must_fail "more.bin: .*not what its digest says" model pull 127.0.0.1:$proxy_port/m/one:2 one
equal "$(model mount one)" "after a new version that did not come"
heal
must model pull 127.0.0.1:$proxy_port/m/one:2 one
diff -r "$work/new" "$(model mount one)" >"$work/out" 2>&1 || fail "not the new version"
[[ $(model mount one) == "$dir" ]] || fail "another folder"

# A registry that goes away.
fresh_node
fault refuse
must_fail "127.0.0.1:$proxy_port" model pull $slow
fault none

# A disk that is full: told, and what has arrived is of use when there is room.
truncate -s 24M "$work/disk" && mkfs.ext4 -q "$work/disk" && mkdir "$work/small" && mount -o loop "$work/disk" "$work/small" || fail "no disk"
end_node_disk() { mountpoint -q "$work/small" && umount -l "$work/small"; }
stop_flip
node=$work/small/n
start_flip
must_fail "room is short|no space left" model pull $slow full
[[ $(of full here) -gt 1000000 ]] || fail "nothing was kept"
must model remove full
must ctl gc --all
stop_flip
unmount_below "$node"
end_holder "$node"
end_node_disk
node=$work/n-last
start_flip
must ctl fsck
! grep -E "Sanitizer|runtime error" "$work/flip.log" || fail "sanitizer"
echo "ok"
