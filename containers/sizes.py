#!/usr/bin/python3
"""sizes.py LAYOUT NAME REPORT PUBLISHED: one JSON line about an image that slimtrace wrote.

bytes: of the files, hard links once; packed_bytes: of the layers as they travel. Of the peer: what was published, null
where nothing is known."""
import json
import sys

layout, name, report, published = sys.argv[1:]


def blob(digest):
    with open(layout + "/blobs/" + digest.replace(":", "/")) as f:
        return json.load(f)


with open(layout + "/index.json") as f:
    index = json.load(f)
digest = next(m["digest"] for m in index["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] == name)
manifest = blob(digest)
config = blob(manifest["config"]["digest"])
told = [h for h in config["history"] if not h.get("empty_layer")]
with open(report) as f:
    said = json.load(f)
with open(published) as f:
    peer = json.load(f).get(name)
print(json.dumps({
    "image": name, "digest": digest,
    "bytes": said["bytes"] if "bytes" in said else said["slim"]["bytes"],
    "packed_bytes": sum(l["size"] for l in manifest["layers"]),
    "layers": [{"name": h.get("comment", ""), "digest": l["digest"], "packed_bytes": l["size"]}
               for l, h in zip(manifest["layers"], told)],
    "peer": peer and peer["peer"], "peer_bytes": peer and peer["bytes"],
    "peer_packed_bytes": peer and peer["packed_bytes"], "peer_source": peer and peer["source"],
}))
