"""An OCI layout with everything a tar layer can have. usage: make-image.py LAYOUT PROGRAM

PROGRAM is a static executable: the entrypoint. Tags: v1 (two layers, gzip and plain), multi (an index of two platforms).
"""
import gzip, hashlib, io, json, os, random, sys, tarfile

layout, program = sys.argv[1:3]
blobs = layout + "/blobs/sha256"
os.makedirs(blobs)
rng = random.Random(5)


def put(data):
    h = hashlib.sha256(data).hexdigest()
    with open(f"{blobs}/{h}", "wb") as f:
        f.write(data)
    return {"digest": "sha256:" + h, "size": len(data)}


def entry(tar, name, kind=tarfile.REGTYPE, data=b"", **more):
    t = tarfile.TarInfo(name)
    t.type, t.size, t.mode, t.mtime = kind, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644, 1600000000
    for k, v in more.items():
        setattr(t, k, v)
    tar.addfile(t, io.BytesIO(data) if data else None)


def tar_of(fill):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        fill(tar)
    return out.getvalue()


words = [rng.randbytes(rng.randint(3, 9)).hex().encode() for _ in range(500)]


def text(n):
    return b" ".join(rng.choice(words) for _ in range(n // 10))[:n]


def base(tar):
    entry(tar, "./", tarfile.DIRTYPE)
    entry(tar, "./bin/", tarfile.DIRTYPE, mode=0o751, pax_headers={"mtime": "1600000000.123456789"})
    with open(program, "rb") as f:
        entry(tar, "./bin/hello", data=f.read(), mode=0o4755)
    entry(tar, "./data/", tarfile.DIRTYPE, uid=7, gid=8)
    for size in (0, 1, 511, 512, 513, 131071, 131072, 131073, 3000000):
        entry(tar, f"./data/f{size}", data=text(size), uid=1000, gid=100, mode=0o600)
    entry(tar, "./data/zeros", data=bytes(5 << 20))
    entry(tar, "./data/noise", data=rng.randbytes(700001))
    entry(tar, "./data/same", data=bytes(5 << 20))
    entry(tar, "./data/link", tarfile.LNKTYPE, linkname="./data/f3000000")
    entry(tar, "./data/symlink", tarfile.SYMTYPE, linkname="../bin/hello", mode=0o777)
    entry(tar, "./data/dangling", tarfile.SYMTYPE, linkname="x" * 200, mode=0o777)
    entry(tar, "./data/fifo", tarfile.FIFOTYPE)
    entry(tar, "./data/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    entry(tar, "./data/time", data=b"t", pax_headers={"mtime": "1500000000.5"})
    entry(tar, "./data/xattr", data=b"x" * 100, pax_headers={"SCHILY.xattr.user.colour": "blau ü"})
    entry(tar, "./data/" + "long" * 40 + "/", tarfile.DIRTYPE)
    entry(tar, "./data/" + "long" * 40 + "/" + "name" * 30, data=b"far down")
    entry(tar, "./data/quote\"back\\slash\n\té", data=b"odd name")
    entry(tar, "./many/", tarfile.DIRTYPE)
    for i in range(600):
        entry(tar, f"./many/d{i}/", tarfile.DIRTYPE)
        entry(tar, f"./many/d{i}/file", data=text(i * 7))
    entry(tar, "./gone", data=b"hidden by the second layer")
    entry(tar, "./opaque/", tarfile.DIRTYPE)
    entry(tar, "./opaque/below", data=b"hidden too")


def upper(tar):
    entry(tar, "./", tarfile.DIRTYPE)
    entry(tar, "./.wh.gone")
    entry(tar, "./opaque/", tarfile.DIRTYPE)
    entry(tar, "./opaque/.wh..wh..opq")
    entry(tar, "./opaque/above", data=b"seen")
    entry(tar, "./data/", tarfile.DIRTYPE, uid=9, gid=9)
    entry(tar, "./data/f513", data=b"replaced")


def manifest(arch):
    lower, top = tar_of(base), tar_of(upper)
    layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **put(gzip.compress(lower, 5, mtime=0))},
              {"mediaType": "application/vnd.oci.image.layer.v1.tar", **put(top)}]
    config = {"architecture": arch, "os": "linux", "created": "2024-01-01T00:00:00Z",
              "config": {"Entrypoint": ["hello"], "Env": ["PATH=/sbin:/bin"], "Labels": {"kept": "yes"}},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(d).hexdigest() for d in (lower, top)]},
              "history": [{"created_by": "one"}, {"created_by": "nothing", "empty_layer": True}, {"created_by": "two"}],
              "x-unknown": {"stays": True}}
    doc = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
           "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(config).encode())},
           "layers": layers, "annotations": {"org.example": "stays"}}
    return {"mediaType": doc["mediaType"], **put(json.dumps(doc).encode()), "platform": {"architecture": arch, "os": "linux"}}


first, second = manifest("amd64"), manifest("arm64")
index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [first, second]}
tag = "org.opencontainers.image.ref.name"
top = {"schemaVersion": 2, "manifests": [
    {**first, "annotations": {tag: "v1"}},
    {"mediaType": index["mediaType"], **put(json.dumps(index).encode()), "annotations": {tag: "multi"}}]}
with open(layout + "/index.json", "w") as f:
    json.dump(top, f)
with open(layout + "/oci-layout", "w") as f:
    json.dump({"imageLayoutVersion": "1.0.0"}, f)
