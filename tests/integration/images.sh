#!/bin/bash
# slimtrace diff and sbom as commands: tables, JSON, output files, errors, the same bytes twice. Images are made by tar
# and python, so that nothing of ours has written them.
set -u
cd "$(dirname "$0")/../.."
bin=$(realpath "${BUILD_DIR:-build/release}")/bin
[[ -x $bin/slimtrace ]] || { echo "no $bin/slimtrace"; exit 77; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "FAILED: $*"; exit 1; }
export LC_ALL=C.UTF-8
unset NO_COLOR SOURCE_DATE_EPOCH

# run EXPECTED_STATUS ARGS...: output in $out, errors in $errors
run() {
	local want=$1 rc
	shift
	out=$("$bin/slimtrace" "$@" 2>"$tmp/err")
	rc=$?
	errors=$(<"$tmp/err")
	[[ $rc == "$want" ]] || fail "slimtrace $*: status $rc, expected $want: $out $errors"
}
# json PYTHON-EXPRESSION over d: must be true
json() {
	python3 -c 'import json, sys; d = json.load(sys.stdin); sys.exit(0 if eval(sys.argv[1]) else 1)' "$1" <<<"$out" ||
		fail "$1 is not so in: ${out:0:2000}"
}

# Two roots, and a docker archive of two layers that holds the second.
mkdir -p "$tmp"/a/usr/bin "$tmp"/a/usr/share/doc/x "$tmp"/b/usr/bin "$tmp"/b/etc
head -c 100000 /dev/urandom >"$tmp/a/usr/bin/tool"
echo manual >"$tmp/a/usr/share/doc/x/manual"
cp "$tmp/a/usr/bin/tool" "$tmp/b/usr/bin/tool"
echo changed >>"$tmp/b/usr/bin/tool"
ln "$tmp/b/usr/bin/tool" "$tmp/b/usr/bin/tool2"
echo new >"$tmp/b/etc/new.conf"
python3 - "$tmp" <<'PY' || fail "no image"
import hashlib, io, json, os, sys, tarfile
tmp = sys.argv[1]
def layer(*paths):
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode="w") as t:
        for p in paths:
            t.add(os.path.join(tmp, "b", p), p, recursive=False)
    return b.getvalue()
layers = [layer("usr", "usr/bin", "usr/bin/tool", "usr/bin/tool2"), layer("etc", "etc/new.conf")]
config = json.dumps({"architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09.123456789Z",
    "config": {}, "history": [{"created_by": "base"}, {"created_by": "ENV x", "empty_layer": True}, {"created_by": "settings"}],
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(l).hexdigest() for l in layers]}}).encode()
with tarfile.open(tmp + "/b.tar", "w") as t:
    def put(name, data):
        i = tarfile.TarInfo(name); i.size = len(data); t.addfile(i, io.BytesIO(data))
    put("c.json", config); put("0/layer.tar", layers[0]); put("1/layer.tar", layers[1])
    put("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["app:v1"], "Layers": ["0/layer.tar", "1/layer.tar"]}]).encode())
PY

# The same compared with itself: nothing differs.
run 0 diff "$tmp/b" "docker-archive:$tmp/b.tar"
[[ $out == *"0 added, 0 removed"* ]] || fail "$out"

run 0 diff "$tmp/a" "docker-archive:$tmp/b.tar:app:v1"
for words in "+4 B  /etc/new.conf" "-7 B  /usr/share/doc/x/manual" "/usr/bin/tool  (content" "+4 B  configuration" \
	"-7 B  documents" "settings"; do
	[[ $out == *"$words"* ]] || fail "no \"$words\" in: $out"
done
run 0 diff --json "$tmp/a" "docker-archive:$tmp/b.tar:app:v1"
json 'd["a"]["bytes"] == 100007 and d["b"]["bytes"] == 100008 + 4'
json '{f["path"]: f["what"] for f in d["files"]}["/usr/bin/tool"] == "changed"'
json '{f["path"]: f["b"].get("layer") for f in d["files"] if "b" in f}["/etc/new.conf"] == 1'
json '{c["name"]: c["removed"] for c in d["categories"]}["documents"] == 1'
json 'sum(1 for f in d["files"] if f["path"].startswith("/usr/bin/tool2") and f["b"]["bytes"] == 0) == 1'
run 0 diff --all "$tmp/a" "$tmp/b"
[[ $out != *"and "*" more"* ]] || fail "$out"

# Bills of materials: valid JSON, the right digest, the same twice, in a file that is whole or not there.
sum=$(sha256sum <"$tmp/b/etc/new.conf") && sum=${sum%% *}
run 0 sbom "docker-archive:$tmp/b.tar"
json 'd["spdxVersion"] == "SPDX-2.3" and d["creationInfo"]["created"] == "2024-05-06T07:08:09Z"'
json "any(c['checksumValue'] == '$sum' for f in d['files'] if f['fileName'] == './etc/new.conf' for c in f['checksums'])"
first=$out
run 0 sbom "docker-archive:$tmp/b.tar"
[[ $out == "$first" ]] || fail "two bills of one image differ"
SOURCE_DATE_EPOCH=86400 run 0 sbom --format cyclonedx --compact "$tmp/b"
[[ $(wc -l <<<"$out") == 1 ]] || fail "--compact is one line"
json 'd["bomFormat"] == "CycloneDX" and d["metadata"]["timestamp"] == "1970-01-02T00:00:00Z"'
json "any(h['content'] == '$sum' for c in d['components'] if c['name'] == '/etc/new.conf' for h in c['hashes'])"
run 0 sbom --no-files -o "$tmp/out.json" "$tmp/b"
out=$(<"$tmp/out.json")
json '"files" not in d'
run 1 sbom -o "$tmp/none/out.json" "$tmp/b"
[[ $errors == *"$tmp/none/out.json"* ]] || fail "$errors"

# What is wrong is named.
run 2 sbom
run 2 diff "$tmp/a"
run 2 sbom --format xml "$tmp/a"
run 1 sbom "$tmp/nothing"
[[ $errors == *"$tmp/nothing"* ]] || fail "$errors"
run 1 diff "$tmp/a" "docker-archive:$tmp/b.tar:other"
[[ $errors == *"other"*"app:v1"* ]] || fail "$errors"
python3 - "$tmp" <<'PY' || fail "no hostile image"
import sys
tmp = sys.argv[1]
data = bytearray(open(tmp + "/b.tar", "rb").read())
at = data.index(b"etc/new.conf")
data[at:at + 12] = b"../../../x.c"          # in the layer: its checksum is wrong now, its digest too
open(tmp + "/bad.tar", "wb").write(data)
PY
run 1 sbom "docker-archive:$tmp/bad.tar"
[[ $errors == *"layer sha256:"*"(2 of 2)"* ]] || fail "$errors"
[[ $(ls "$tmp" | tr '\n' ' ') == "a b b.tar bad.tar err out.json " ]] || fail "left behind: $(ls "$tmp")"
echo "slimtrace diff, sbom: all as it should be"
