#!/usr/bin/env python3
"""An OCI image layout out of folders, one gzip layer each: make_oci.py LAYOUT TAG DIR... (pigz where it is)."""

import hashlib
import json
import os
import shutil
import subprocess
import sys


def digest_of(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def put(blobs, data):
    h = hashlib.sha256(data).hexdigest()
    with open(f"{blobs}/{h}", "wb") as f:
        f.write(data)
    return {"digest": f"sha256:{h}", "size": len(data)}


def layer(blobs, folder):
    """Packed with one pass over the tar: its own digest, and the compressed bytes into a file named by theirs."""
    packed = f"{blobs}/packing"
    tar = subprocess.Popen(["tar", "-C", folder, "--numeric-owner", "--sort=name", "--format=pax",
                            "--pax-option=delete=atime,delete=ctime", "-cf", "-", "."], stdout=subprocess.PIPE)
    with open(packed, "wb") as out:
        gzip = subprocess.Popen(["pigz" if shutil.which("pigz") else "gzip", "-n", "-6"], stdin=subprocess.PIPE, stdout=out)
        plain = hashlib.sha256()
        while block := tar.stdout.read(1 << 20):
            plain.update(block)
            gzip.stdin.write(block)
        gzip.stdin.close()
        if gzip.wait() or tar.wait():
            sys.exit(f"make_oci: {folder} could not be packed")
    h = digest_of(packed)
    os.rename(packed, f"{blobs}/{h}")
    return {"digest": f"sha256:{h}", "size": os.path.getsize(f"{blobs}/{h}")}, f"sha256:{plain.hexdigest()}"


def main(layout, tag, *folders):
    blobs = f"{layout}/blobs/sha256"
    oci = "application/vnd.oci.image."
    os.makedirs(blobs, exist_ok=True)
    made = [layer(blobs, f) for f in folders]
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {"architecture": arch, "os": "linux", "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["python3"]},
              "rootfs": {"type": "layers", "diff_ids": [d for _, d in made]}}
    manifest = {"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
                "config": {"mediaType": oci + "config.v1+json", **put(blobs, json.dumps(config).encode())},
                "layers": [{"mediaType": oci + "layer.v1.tar+gzip", **d} for d, _ in made]}
    entry = {"mediaType": oci + "manifest.v1+json", **put(blobs, json.dumps(manifest).encode()),
             "annotations": {"org.opencontainers.image.ref.name": tag}}
    path = f"{layout}/index.json"
    index = json.load(open(path)) if os.path.exists(path) else {"schemaVersion": 2, "manifests": []}
    index["manifests"] = [m for m in index["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] != tag] + [entry]
    with open(path, "w") as f:
        json.dump(index, f)
    with open(f"{layout}/oci-layout", "w") as f:
        f.write('{"imageLayoutVersion":"1.0.0"}')


if len(sys.argv) < 4:
    sys.exit(__doc__)
main(*sys.argv[1:])
