#!/bin/bash
# --gpu-arch, from image to image: of a library's GPU code only the chosen architecture's payload is left, every other
# byte and the size are as before, the packed image is smaller by what went, and the report says so.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work SOURCE_DATE_EPOCH=1700000000

slim_install "$work/full" busybox
# A library with GPU code behind it; offsets and sizes of the payloads are noted beside the root.
python3 - "$work" <<'PY' || fail "no library"
import json, os, struct, sys
work = sys.argv[1]
data = open(work + "/full/usr/lib/x86_64-linux-gnu/libm.so.6", "rb").read()
data += bytes(-len(data) % 8)
payloads = []
for container in ((2, 80), (2, 90), (2, 100), (1, 90)), ((2, 75), (2, 90)):
    entries = []
    for kind, arch in container:
        size = 50000 + 8 * arch
        head = struct.pack("<HHIQQII", kind, 0x101, 64, size, 0, 0, arch)
        entries.append((kind, arch, head + bytes(64 - len(head)), os.urandom(size)))
    data += struct.pack("<IHHQ", 0xba55ed50, 1, 16, sum(64 + len(e[3]) for e in entries))
    for kind, arch, head, payload in entries:
        data += head
        payloads.append({"kind": kind, "arch": arch, "at": len(data), "size": len(payload)})
        data += payload
data += b"the end of the library"
open(work + "/full/usr/lib/libgpu.so", "wb").write(data)
json.dump(payloads, open(work + "/payloads", "w"))
PY
cp "$work/full/usr/lib/libgpu.so" "$work/before"
# A small one: a kernel or two, as extensions of Python have.
python3 - "$work" <<'PY' || fail "no small library"
import struct, sys
root = sys.argv[1] + "/full"
data = open(root + "/usr/lib/x86_64-linux-gnu/libutil.so.1", "rb").read()
assert len(data) < 20000, len(data)
data += bytes(-len(data) % 8)
entries = b""
for arch in 80, 90:
    head = struct.pack("<HHIQQII", 2, 0x101, 64, 800, 0, 0, arch)
    entries += head + bytes(64 - len(head)) + bytes([arch]) * 800
open(root + "/usr/lib/libsmall.so", "wb").write(data + struct.pack("<IHHQ", 0xba55ed50, 1, 16, len(entries)) + entries)
PY
"$SLIMTRACE" slim -q --root "$work/full" --keep / --keep '/**' --set rpmdb=keep --level 1 --out "oci:$work/img:full" >"$work/log" 2>&1 ||
	fail "the full image: $(tail -n 1 "$work/log")"

# slims NAME OPTION...: the image slimmed, its report in NAME.json
slims() {
	local name=$1
	shift
	"$SLIMTRACE" slim -q --image "oci:$work/img:full" --run 'busybox true' --keep /usr/lib/libgpu.so --keep /usr/lib/libsmall.so --out "oci:$work/$name:x" \
		--json "$@" >"$work/$name.json" 2>"$work/err" || fail "$name: $(cat "$work/err")"
}
slims all
slims one --gpu-arch sm_90 --gpu-ptx needed
slims plain --gpu-arch sm_90 --gpu-ptx needed --compression none --layers one
python3 - "$work" <<'PY' || fail "the GPU code is not as it should be"
import json, sys, tarfile
work = sys.argv[1]
blob = lambda d: work + "/plain/blobs/sha256/" + d["digest"].split(":")[1]
manifest = json.load(open(blob(json.load(open(work + "/plain/index.json"))["manifests"][0])))
before, after = bytearray(open(work + "/before", "rb").read()), None
for layer in manifest["layers"]:
    with tarfile.open(blob(layer)) as t:
        for m in t:
            if m.name.endswith("usr/lib/libgpu.so"):
                after = t.extractfile(m).read()
assert after is not None, "the library is not in the image"
assert len(after) == len(before), (len(after), len(before))
dropped = 0
for p in json.load(open(work + "/payloads")):
    part = slice(p["at"], p["at"] + p["size"])
    if p["arch"] == 90 and p["kind"] == 2:
        assert any(after[part])
    else:
        assert not any(after[part]), p
        before[part] = bytes(p["size"])
        dropped += p["size"]
assert bytes(before) == after, "something beside the payloads has changed"
reports = {n: json.load(open(f"{work}/{n}.json")) for n in ("all", "one", "plain")}
assert reports["all"]["gpu"] == {"files": 0, "dropped_bytes": 0}, reports["all"]["gpu"]
for n in "one", "plain":
    assert reports[n]["gpu"] == {"files": 2, "dropped_bytes": dropped + 800}, (reports[n]["gpu"], dropped)
full, cut = (reports[n]["image"]["packed_bytes"] for n in ("all", "one"))
print(f"packed: {full} -> {cut}, {dropped} bytes of GPU code left out")
assert cut < full - dropped * 0.95
PY
# for people, too
"$SLIMTRACE" slim -q --image "oci:$work/img:full" --keep /usr/lib/libgpu.so --gpu-arch sm_90 --out "$work/dir" >"$work/out" 2>&1 ||
	fail "to a folder: $(tail -n 2 "$work/out")"
grep -qE '^GPU code +[0-9.]+ kB left out of 1 files$' "$work/out" || fail "the report does not tell it: $(cat "$work/out")"
cmp -s "$work/before" "$work/dir/usr/lib/libgpu.so" && fail "nothing was left out"
"$SLIMTRACE" slim -q --image "oci:$work/img:full" --gpu-arch sm_x --out "$work/never" >"$work/out" 2>&1
(($? == 2)) || fail "sm_x is taken for an architecture"
grep -q -- '--gpu-arch.*sm_x' "$work/out" && [[ ! -e $work/never ]] || fail "no words about sm_x: $(cat "$work/out")"
exit 0
