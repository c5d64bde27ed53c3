#!/bin/bash
# An image whose table of contents gives another image's file digest to bytes of its own must not change that image.
. "$(dirname "$0")/flip/lib.sh"
begin flip-lies docker-registry skopeo

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

start_registry
for name in honest evil; do
	skopeo copy -q --dest-tls-verify=false "oci:$work/$name-lazy:t" "docker://$at:$name" || fail "push $name"
	mkdir "$work/mnt-$name"
done
start_flip

# The liar comes first and half of its bytes are here when the honest one arrives.
ctl mount "$at:evil" "$work/mnt-evil" || fail "mount evil"
head -c 1500000 "$work/mnt-evil/large" | cmp -s - <(head -c 1500000 "$work/evil.bytes") || fail "the liar's own bytes are others"
ctl mount "$at:honest" "$work/mnt-honest" || fail "mount honest"
cmp "$work/honest.bytes" "$work/mnt-honest/large" || fail "the honest image has the liar's bytes"
# What is mounted stays, whoever collects.
ctl gc --all >/dev/null || fail "gc"
cmp "$work/honest.bytes" "$work/mnt-honest/large" || fail "gc took a mount's contents"
ctl mount "$at:evil" "$work/mnt-honest" 2>/dev/null && fail "two mounts at one folder"
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
