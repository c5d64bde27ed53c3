#!/bin/bash
# Slim images of one family share layers: two runs of Python, one of which needs a library more, have the layers of their
# common packages bit for bit, so that a registry and a node keep them once. So do images that have no more in common than
# the C library and what TLS needs: a shell, curl, the openssl program, out of roots that were installed apart.
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

# A family without Python: what is common is the same layer, although neither root knows of the other.
slim_install "$work/full-bash" bash
slim_install "$work/full-curl" curl bash
slim_install "$work/full-openssl" openssl bash
slim_as() { # NAME COMMAND
	"$SLIMTRACE" slim -q --root "$work/full-$1" --layers plan --run "$2" --out "oci:$work/$1:slim" >"$work/log" 2>&1 ||
		fail "$1: $(tail -n 3 "$work/log")"
}
slim_as bash "bash -c 'echo hi'"
slim_as curl 'curl --version'
slim_as openssl 'openssl version'
python3 - "$work/bash" "$work/curl" "$work/openssl" <<'PY' || fail "images without Python do not share what they could"
import json, sys
def layers(at):
    blob = lambda digest: json.load(open(at + "/blobs/sha256/" + digest.split(":")[1]))
    manifest = blob(json.load(open(at + "/index.json"))["manifests"][0]["digest"])
    names = [h["comment"] for h in blob(manifest["config"]["digest"])["history"] if not h.get("empty_layer")]
    return {name: (l["digest"], l["size"]) for name, l in zip(names, manifest["layers"])}
bash, curl, openssl = map(layers, sys.argv[1:])
starts = lambda image, prefix: [v for name, v in image.items() if name.startswith(prefix)]
common = "C library"
print({n: {name: size for name, (_, size) in image.items()} for n, image in (("bash", bash), ("curl", curl), ("openssl", openssl))})
assert bash[common] == curl[common] == openssl[common], "the C library's layer differs"
assert bash[common][1] > 500000, bash[common]
assert starts(curl, "libssl3-") and starts(curl, "libssl3-") == starts(openssl, "libssl3-"), "libssl3's layer differs"
assert not starts(bash, "libssl3-") and not starts(bash, "libcurl4-") and not starts(openssl, "libcurl4-")
for a, b in ((curl, openssl), (openssl, curl)):
    shared = sum(size for digest, size in a.values() if digest in {d for d, _ in b.values()})
    assert shared > 0.5 * min(sum(s for _, s in a.values()), sum(s for _, s in b.values())), shared
PY
exit 0
