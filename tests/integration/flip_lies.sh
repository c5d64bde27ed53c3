#!/bin/bash
# An image whose table of contents gives another image's file digest to bytes of its own must not change that image.
set -u
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD_DIR:-build/release}")
flip=$build/bin/flip
skip() { echo "$*"; exit 77; }
fail() { echo "FAIL: $*"; tail -n 12 "$work/flip.log"; exit 1; }
((EUID == 0)) || skip "not root: no mounts"
[[ -c /dev/fuse ]] || skip "no /dev/fuse"
for tool in docker-registry skopeo python3; do
	command -v $tool >/dev/null || skip "$tool is missing"
done

work=$(mktemp -d /var/tmp/flip-lies.XXXXXX)
finish() {
	kill "${daemon:-}" "${registry:-}" 2>/dev/null
	wait 2>/dev/null
	pkill -f "$work/" 2>/dev/null
	awk -v d="$work/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r -n1 umount -l 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT

# Two images of one file each; then the second's table says that its file is the first's.
python3 - "$work" <<'PY' || fail "no images"
import gzip, hashlib, io, json, os, random, sys, tarfile
work = sys.argv[1]
random.seed(3)
for name in ("honest", "evil"):
    blobs = f"{work}/{name}/blobs/sha256"
    os.makedirs(blobs)
    def blob(data):
        h = hashlib.sha256(data).hexdigest()
        open(f"{blobs}/{h}", "wb").write(data)
        return {"digest": "sha256:" + h, "size": len(data)}
    data = random.randbytes(3 << 20)
    open(f"{work}/{name}.bytes", "wb").write(data)
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode="w") as t:
        i = tarfile.TarInfo("large")
        i.size, i.mode = len(data), 0o644
        t.addfile(i, io.BytesIO(data))
    oci = "application/vnd.oci.image."
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers",
        "diff_ids": ["sha256:" + hashlib.sha256(b.getvalue()).hexdigest()]}}).encode()
    manifest = json.dumps({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
        "config": {"mediaType": oci + "config.v1+json", **blob(config)},
        "layers": [{"mediaType": oci + "layer.v1.tar+gzip", **blob(gzip.compress(b.getvalue(), 1, mtime=0))}]}).encode()
    open(f"{work}/{name}/index.json", "w").write(json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": oci + "manifest.v1+json", **blob(manifest), "annotations": {"org.opencontainers.image.ref.name": "t"}}]}))
    open(f"{work}/{name}/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
PY
for name in honest evil; do
	"$flip" convert -f estargz --chunk-size=256K --no-prefetch "oci:$work/$name:t" "oci:$work/$name-lazy:t" >/dev/null ||
		fail "convert $name"
done
python3 - "$work" <<'PY' || fail "no lie"
import gzip, hashlib, io, json, os, sys, tarfile, zlib
work = sys.argv[1]
layout = f"{work}/evil-lazy"
def load(digest):
    return open(f"{layout}/blobs/sha256/{digest.split(':')[1]}", "rb").read()
def store(data):
    h = hashlib.sha256(data).hexdigest()
    open(f"{layout}/blobs/sha256/{h}", "wb").write(data)
    return {"digest": "sha256:" + h, "size": len(data)}
index = json.load(open(f"{layout}/index.json"))
manifest = json.loads(load(index["manifests"][0]["digest"]))
config = json.loads(load(manifest["config"]["digest"]))
layer = load(manifest["layers"][0]["digest"])
footer = layer[-51:]
offset = int(footer[16:32], 16)
assert footer[32:38] == b"STARGZ", footer
d = zlib.decompressobj(31)
toc_tar = d.decompress(layer[offset:-51])
rest = d.unused_data
while rest:  # the end of the tar may be a member of its own
    d = zlib.decompressobj(31)
    toc_tar += d.decompress(rest)
    rest = d.unused_data
with tarfile.open(fileobj=io.BytesIO(toc_tar)) as t:
    toc = json.load(t.extractfile("stargz.index.json"))
lie = "sha256:" + hashlib.sha256(open(f"{work}/honest.bytes", "rb").read()).hexdigest()
files = [e for e in toc["entries"] if e["name"] == "large" and e["type"] == "reg"]
assert len(files) == 1
files[0]["digest"] = lie
text = json.dumps(toc).encode()
b = io.BytesIO()
with tarfile.open(fileobj=b, mode="w") as t:
    i = tarfile.TarInfo("stargz.index.json")
    i.size = len(text)
    t.addfile(i, io.BytesIO(text))
new = layer[:offset] + gzip.compress(b.getvalue(), mtime=0) + footer
whole = b""
rest = new
while rest:
    d = zlib.decompressobj(31)
    whole += d.decompress(rest)
    rest = d.unused_data
config["rootfs"]["diff_ids"] = ["sha256:" + hashlib.sha256(whole).hexdigest()]
manifest["config"].update(store(json.dumps(config).encode()))
manifest["layers"][0].update(store(new))
manifest["layers"][0]["annotations"]["containerd.io/snapshot/stargz/toc.digest"] = "sha256:" + hashlib.sha256(text).hexdigest()
index["manifests"][0].update(store(json.dumps(manifest).encode()))
open(f"{layout}/index.json", "w").write(json.dumps(index))
PY
cmp -s "$work/honest.bytes" "$work/evil.bytes" && fail "the two are the same"

port=$((20000 + RANDOM % 20000))
printf 'version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "127.0.0.1:%s"}\n' \
	"$work/registry" $port >"$work/registry.yml"
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry=$!
for _ in {1..100}; do
	(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
	sleep 0.05
done
at=127.0.0.1:$port/img
for name in honest evil; do
	skopeo copy -q --dest-tls-verify=false "oci:$work/$name-lazy:t" "docker://$at:$name" || fail "push $name"
	mkdir "$work/mnt-$name"
done
"$flip" snapshotter --root "$work/flip" --socket "$work/flip.sock" --control "$work/control.sock" >"$work/flip.log" 2>&1 &
daemon=$!
for _ in {1..200}; do
	"$flip" stat --control "$work/control.sock" >/dev/null 2>&1 && break
	sleep 0.05
done
ctl() { "$flip" "$1" --control "$work/control.sock" "${@:2}"; }

# The liar comes first and half of its bytes are here when the honest one arrives.
ctl mount "$at:evil" "$work/mnt-evil" || fail "mount evil"
head -c 1500000 "$work/mnt-evil/large" | cmp -s - <(head -c 1500000 "$work/evil.bytes") || fail "the liar's own bytes are others"
ctl mount "$at:honest" "$work/mnt-honest" || fail "mount honest"
cmp "$work/honest.bytes" "$work/mnt-honest/large" || fail "the honest image has the liar's bytes"
ctl unmount "$work/mnt-honest"
ctl unmount "$work/mnt-evil"

# The liar alone, all of it: never a name in the store.
ctl gc --all >/dev/null || fail "gc"
ctl mount "$at:evil" "$work/mnt-evil" || fail "mount evil again"
cat "$work/mnt-evil/large" >/dev/null
ctl fsck >"$work/out" || fail "fsck: $(<"$work/out")"
ctl mount "$at:honest" "$work/mnt-honest" || fail "mount honest again"
cmp "$work/honest.bytes" "$work/mnt-honest/large" || fail "the honest image has the liar's bytes, the second time"
kill -0 $daemon || fail "the daemon has ended"
echo "a lying table of contents changed nobody else's bytes"
