#!/bin/bash
# Converted images are ordinary images to everybody: pushed to a real registry, copied by skopeo, unpacked by umoci to
# the same tree as the source, run by containerd; the same bytes whatever the number of threads. Their tables are read
# by the library of stargz-snapshotter, and the images that its converter makes by ours, where these are installed.
. "$(dirname "$0")/flip/lib.sh"
TOC=$build/tests/tools/flip_toc
begin flip-convert docker-registry skopeo umoci containerd ctr runc gcc
[[ -x $TOC ]] || skip "no $TOC"

start_registry
start_containerd

printf '#include <stdio.h>\nint main(void)\n{\n\tputs("hello from the image");\n\treturn 0;\n}\n' >"$work/hello.c"
gcc -static -O1 -o "$work/hello" "$work/hello.c" 2>"$work/log" || skip "no static programs here: $(tail -n 1 "$work/log")"
python3 $here/make-image.py "$work/src" "$work/hello" || fail "the source image"
umoci unpack --image "$work/src:v1" "$work/bundle" >"$work/log" 2>&1 || skip "umoci does not work here: $(tail -n 1 "$work/log")"

# field LAYOUT TAG EXPRESSION: of the manifest m, configuration c, layers as files f.
field() {
	python3 - "$@" <<'PY'
import json, sys
layout, tag, expression = sys.argv[1:4]
blob = lambda d: f"{layout}/blobs/sha256/{d['digest'][7:]}"
e = [e for e in json.load(open(layout + "/index.json"))["manifests"] if e["annotations"]["org.opencontainers.image.ref.name"] == tag][0]
m = json.load(open(blob(e)))
c = json.load(open(blob(m["config"]))) if "config" in m else None
f = [blob(l) for l in m.get("layers", [])]
t = [l["annotations"]["containerd.io/snapshot/stargz/toc.digest"] for l in m.get("layers", []) if "annotations" in l]
r = eval(expression)
print("\n".join(map(str, r)) if isinstance(r, list) else r)
PY
}

printf 'flip-prefetch 1\n/data/f3000000 131072 262144\n/data/link 0 -\n/data/time 0 1\n/nowhere 0 1\n' >"$work/list"
if command -v go >/dev/null && [[ -d /usr/share/gocode/src/github.com/containerd/stargz-snapshotter/estargz ]]; then
	GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$work/go GOFLAGS= go build -o "$work/peer-open" $here/peer-open.go 2>"$work/log" ||
		fail "the peer's library: $(tail -n 2 "$work/log")"
fi
n_peer=0
for format in estargz zstd-chunked; do
	for how in list closure none; do
		args=(-f $format --chunk-size 128K)
		[[ $how == list ]] && args+=(-p "$work/list")
		[[ $how == none ]] && args+=(--no-prefetch)
		"$flip" convert "${args[@]}" "oci:$work/src:v1" "oci:$work/out:$format-$how" >"$work/log" 2>&1 || fail "$format $how: $(<"$work/log")"
		mapfile -t files < <(field "$work/out" $format-$how f)
		mapfile -t digests < <(field "$work/out" $format-$how t)
		mapfile -t diffs < <(field "$work/out" $format-$how 'c["rootfs"]["diff_ids"]')
		for i in 0 1; do
			"$TOC" "${files[i]}" "${digests[i]}" >"$work/toc" || fail "$format $how: the table of layer $i"
			if [[ $format == estargz ]]; then gzip -dc "${files[i]}"; else zstd -dcq "${files[i]}"; fi >"$work/tar" || fail "$format $how: layer $i"
			[[ sha256:$(sha256sum <"$work/tar" | cut -d' ' -f1) == "${diffs[i]}" ]] || fail "$format $how: diff_id of layer $i"
			tar -tf "$work/tar" >/dev/null || fail "$format $how: layer $i is no tar"
			if [[ -x $work/peer-open ]]; then
				"$work/peer-open" "${files[i]}" "${digests[i]}" >/dev/null || fail "$format $how: the peer does not open layer $i"
				n_peer=$((n_peer + 1))
			fi
		done
		first=$("$TOC" "${files[0]}" | python3 -c 'import json, sys; d = json.load(sys.stdin); print(d["prefetch"], d["prefetch_end"] > 0)')
		case $how in
		list) [[ $first == "24 True" ]] ;;     # 2 chunks of the range, 21 more of the link's content, one of the small file
		closure) [[ $first == *" True" && $first != "0 "* ]] ;; # the static program alone
		none) [[ $first == "0 False" ]] ;;
		esac || fail "$format $how: prefetch is $first"
	done
	"$flip" convert -f $format --chunk-size 128K -t 1 --max-memory 16M -p "$work/list" "oci:$work/src:v1" "oci:$work/one:x" >/dev/null || fail "one thread"
	[[ $(field "$work/one" x m) == "$(field "$work/out" $format-list m)" ]] || fail "$format: other bytes with one thread"
	[[ $(field "$work/out" $format-list '[len(c["history"]), c["x-unknown"], c["config"]["Labels"], m["annotations"]]') == \
		"$(field "$work/src" v1 '[len(c["history"]), c["x-unknown"], c["config"]["Labels"], m["annotations"]]')" ]] || fail "$format: what the documents said beside"

	# Through a registry, and unpacked. umoci knows no zstd, so skopeo packs that again.
	"$flip" convert -f $format -p "$work/list" "oci:$work/src:v1" "docker://127.0.0.1:$port/test/$format:1" >"$work/log" 2>&1 ||
		fail "$format to a registry: $(<"$work/log")"
	skopeo copy -q --src-tls-verify=false "docker://127.0.0.1:$port/test/$format:1" "oci:$work/back:$format" >"$work/log" 2>&1 ||
		fail "$format: skopeo: $(tail -n 1 "$work/log")"
	unpack=$work/back:$format
	if [[ $format == zstd-chunked ]]; then
		skopeo copy -q --dest-decompress "oci:$work/back:$format" "dir:$work/flat" >"$work/log" 2>&1 &&
			skopeo copy -q "dir:$work/flat" "oci:$work/back:plain" >>"$work/log" 2>&1 || fail "skopeo unpacks: $(tail -n 1 "$work/log")"
		unpack=$work/back:plain
	fi
	umoci unpack --image "$unpack" "$work/bundle-$format" >"$work/log" 2>&1 || fail "$format: umoci: $(tail -n 1 "$work/log")"
	for name in .prefetch.landmark .no.prefetch.landmark stargz.index.json; do
		rm -f "$work/bundle-$format/rootfs/$name"
	done
	touch -r "$work/bundle/rootfs" "$work/bundle-$format/rootfs"
	python3 $here/same-tree.py "$work/bundle/rootfs" "$work/bundle-$format/rootfs" >"$work/log" || fail "$format: $(head -n 3 "$work/log")"

	# Run by containerd as any image.
	tar -C "$work/back" -cf "$work/image.tar" .
	ctr image import --base-name "test/$format" "$work/image.tar" >"$work/log" 2>&1 || fail "$format: import: $(tail -n 2 "$work/log")"
	# What it prints is written by the shim itself: ctr may lose the end of a pipe.
	ctr run --rm --log-uri "file://$work/ran-$format" "test/$format:$format" "flip-$format" >"$work/log" 2>&1 || fail "$format: run: $(tail -n 1 "$work/log")"
	until_true grep -qx "hello from the image" "$work/ran-$format" || fail "$format: the container said $(<"$work/ran-$format")"
done

# All platforms, or one; an archive; what was converted before is taken from the cache.
"$flip" convert "oci:$work/src:multi" "docker://127.0.0.1:$port/test/multi:1" >"$work/log" 2>&1 || fail "an index: $(<"$work/log")"
skopeo copy -q --all --src-tls-verify=false "docker://127.0.0.1:$port/test/multi:1" "oci:$work/all:m" >"$work/log" 2>&1 || fail "skopeo: $(<"$work/log")"
[[ $(field "$work/all" m '[p["platform"]["architecture"] for p in m["manifests"]]') == $'amd64\narm64' ]] || fail "platforms"
"$flip" convert --platform linux/arm64 --cache "$work/cache" "oci:$work/src:multi" "oci-archive:$work/arm.tar:x" >"$work/log" 2>&1 ||
	fail "one platform: $(<"$work/log")"
[[ $(skopeo inspect --config --raw "oci-archive:$work/arm.tar:x") == *arm64* ]] || fail "the other platform"
"$flip" convert --json --cache "$work/cache" --platform linux/arm64 "oci:$work/src:multi" "oci:$work/cached:x" >"$work/json" 2>&1 || fail "the cache: $(<"$work/json")"
[[ $(grep -o '"from_cache":true' "$work/json" | wc -l) == 2 ]] || fail "not from the cache: $(<"$work/json")"
[[ $(field "$work/cached" x m) == "$(field "$work/cached" x m)" ]] || fail "the cache gives other bytes"

# What is converted again stays readable, and has one table.
"$flip" convert -f zstd-chunked "oci:$work/out:estargz-list" "oci:$work/again:x" >"$work/log" 2>&1 || fail "again: $(<"$work/log")"
"$TOC" "$(field "$work/again" x 'f[0]')" "$(field "$work/again" x 't[0]')" >/dev/null || fail "converted twice"

# Layers that are not what they say leave nothing behind.
cp -r "$work/src" "$work/bad"
python3 - "$work/bad" <<'PY'
import os, sys
for d, _, names in os.walk(sys.argv[1] + "/blobs"):
    for p in (os.path.join(d, n) for n in names):
        if os.path.getsize(p) > 100000:
            with open(p, "r+b") as f:
                f.seek(os.path.getsize(p) // 2)
                f.write(b"damage")
PY
"$flip" convert "oci:$work/bad:v1" "oci:$work/none:x" >"$work/log" 2>&1 && fail "a damaged layer was taken"
[[ ! -e $work/none ]] || fail "left behind: $(find "$work/none" | head -n 3)"
[[ -z $(ls "$work/tmp") ]] || fail "left in TMPDIR: $(ls "$work/tmp")"

# What the peer's converter makes.
n_theirs=0
if command -v ctr-remote >/dev/null; then
	remote=(ctr-remote -a "$work/containerd.sock" -n $namespace)
	tar -C "$work/src" -cf "$work/src.tar" .
	ctr image import --base-name test/peer "$work/src.tar" >"$work/log" 2>&1
	for flag in --estargz --zstdchunked; do
		"${remote[@]}" image convert --oci $flag "test/peer:v1" "test/peer:theirs" >"$work/log" 2>&1 || {
			echo "ctr-remote $flag does not run here: $(tail -n 1 "$work/log")"
			continue
		}
		"${remote[@]}" image export "$work/theirs.tar" "test/peer:theirs" >"$work/log" 2>&1 || fail "export: $(tail -n 1 "$work/log")"
		rm -rf "$work/theirs"
		mkdir "$work/theirs"
		tar -C "$work/theirs" -xf "$work/theirs.tar"
		for blob in "$work"/theirs/blobs/sha256/*; do
			[[ $(head -c 1 "$blob") == "{" ]] && continue
			"$TOC" "$blob" >"$work/toc" || fail "$flag: their layer"
			n_theirs=$((n_theirs + 1))
		done
	done
fi
echo "two formats: registry, skopeo, umoci, containerd; $n_peer layers opened by the peer's library, $n_theirs of the peer's by ours"
