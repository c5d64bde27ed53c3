#!/bin/bash
# Slim images of one family share layers: two runs of Python, one of which needs a library more, have the layers of their
# common packages bit for bit, so that a registry and a node keep them once.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work SOURCE_DATE_EPOCH=1700000000

slim_install "$work/full" python3
for modules in json json,ssl; do
	"$SLIMTRACE" slim -q --root "$work/full" --layers plan --run "python3 -c 'import $modules; print(json.dumps([1]))'" \
		--out "oci:$work/$modules:slim" >"$work/log" 2>&1 || fail "$modules: $(tail -n 3 "$work/log")"
done
python3 - "$work/json" "$work/json,ssl" <<'PY' || fail "the images do not share what they could"
import json, os, sys
class image:
    def __init__(self, at):
        self.at = at
        manifest = self.blob(json.load(open(at + "/index.json"))["manifests"][0]["digest"])
        config = self.blob(manifest["config"]["digest"])
        names = [h["comment"] for h in config["history"] if not h.get("empty_layer")]
        self.layers = {l["digest"]: (l["size"], n) for l, n in zip(manifest["layers"], names)}
        self.bytes = sum(l["size"] for l in manifest["layers"])
        self.names = names
        for l in manifest["layers"]:
            assert os.stat(self.path(l["digest"])).st_size == l["size"]
    def path(self, digest):
        return self.at + "/blobs/sha256/" + digest.split(":")[1]
    def blob(self, digest):
        return json.load(open(self.path(digest)))
a, b = image(sys.argv[1]), image(sys.argv[2])
shared = {d: a.layers[d] for d in a.layers if d in b.layers}
size = sum(s for s, _ in shared.values())
print(f"shared: {size} of {a.bytes} and {b.bytes} bytes packed: " + "; ".join(n for _, n in shared.values()))
names = [n for _, n in shared.values()]
assert "packages that all images have" in names, names
assert any(n.startswith("python3.11-minimal-") for n in names), names
assert size > min(a.bytes, b.bytes) / 2, "less than half of the smaller"
assert any(n.startswith("libssl3-") for n in b.names) and not any(n.startswith("libssl3-") for n in a.names), b.names
assert set(a.layers) != set(b.layers)
PY
exit 0
