#!/bin/bash
# Converting an image, both formats: seconds and peak memory of `flip convert`, with those of ctr-remote (containerd's
# converter for stargz-snapshotter) at the same format, level and chunk size as the peer, where it and a containerd are
# here. One JSON object a line; ratio is peer/value.
#
#   BENCH_IMAGE=oci:DIR:TAG   the image [made of this machine's Python and shared libraries]
set -euo pipefail
cd "$(dirname "$0")/../.."
FLIP=${BUILD_DIR:-build/release}/bin/flip
[[ -x /usr/bin/time ]] || { echo "bench flip_convert: /usr/bin/time is missing" >&2; exit 0; }
mkdir -p build
work=$(mktemp -d "$PWD/build/bench-XXXXXX")
finish() {
	kill $(jobs -pr) 2>/dev/null && wait
	rm -rf "$work"
}
trap finish EXIT
export TMPDIR=$work
image=${BENCH_IMAGE:-}
if [[ ! $image ]]; then
	# Parents first: converters refuse what has no folder above it.
	tar -C / --numeric-owner --sort=name -cf "$work/tar" --no-recursion usr usr/lib --recursion usr/lib/python3* "usr/lib/$(uname -m)-linux-gnu" 2>/dev/null || true
	python3 - "$work" <<'PY'
import gzip, hashlib, json, os, sys
work = sys.argv[1]
blobs = work + "/img/blobs/sha256/"
os.makedirs(blobs)
def put(data):
    h = hashlib.sha256(data).hexdigest()
    open(blobs + h, "wb").write(data)
    return {"digest": "sha256:" + h, "size": len(data)}
raw = open(work + "/tar", "rb").read()
layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **put(gzip.compress(raw, 6))}
config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(raw).hexdigest()]}}
doc = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
       "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(config).encode())}, "layers": [layer]}
index = {"schemaVersion": 2, "manifests": [{"mediaType": doc["mediaType"], **put(json.dumps(doc).encode()),
         "annotations": {"org.opencontainers.image.ref.name": "x"}}]}
json.dump(index, open(work + "/img/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(work + "/img/oci-layout", "w"))
os.unlink(work + "/tar")
PY
	image=oci:$work/img:x
fi
remote=
if ((EUID == 0)) && command -v ctr-remote containerd >/dev/null; then
	printf 'version = 2\nroot = "%s/root"\nstate = "%s/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "%s/sock"\n' \
		"$work" "$work" "$work" >"$work/config.toml"
	containerd -c "$work/config.toml" >"$work/daemon" 2>&1 &
	for _ in {1..100}; do
		ctr -a "$work/sock" version >/dev/null 2>&1 && remote=ctr-remote && break
		sleep 0.1
	done
	layout=${image#oci:}
	layout=${layout%:*}
	[[ $remote ]] && tar -C "$layout" -cf "$work/image.tar" . &&
		ctr -a "$work/sock" image import --no-unpack --base-name bench/image "$work/image.tar" >&2 || remote=
	rm -f "$work/image.tar"
fi
source=$([[ $remote ]] && ctr -a "$work/sock" image ls -q | head -n 1 || true)

# timed FILE COMMAND...: seconds and kilobytes into FILE.
timed() {
	local file=$1
	shift
	/usr/bin/time -q -f '%e %M' -o "$file" "$@" >/dev/null 2>"$file.err"
}

line() { # CASE VALUE UNIT PEER
	python3 -c 'import json, sys
case, value, unit, peer = sys.argv[1:]
value, peer = float(value), float(peer) if peer else None
print(json.dumps({"bench": "flip_convert", "case": case, "value": value, "unit": unit, "limit": None, "share": None, "peer": peer,
    "ratio": round(peer / value, 2) if peer else None}))' "$@"
}

measure() { # NAME OUR_OPTIONS -- THEIR_OPTIONS
	local name=$1 ours=() theirs
	shift
	while [[ $1 != -- ]]; do
		ours+=("$1")
		shift
	done
	shift
	theirs=
	timed "$work/ours" "$FLIP" convert --no-prefetch "${ours[@]}" "$image" "oci:$work/out:x"
	if [[ $source ]] && timed "$work/theirs" ctr-remote -a "$work/sock" image convert --oci "$@" "$source" "bench/out:x"; then
		theirs=$(<"$work/theirs")
	fi
	read -r seconds kilobytes <"$work/ours"
	line "$name, time" "$seconds" s "${theirs% *}"
	line "$name, peak memory" "$((kilobytes / 1000))" MB "${theirs:+$((${theirs#* } / 1000))}"
	rm -rf "$work/out"
}

measure 'eStargz, level 9, 4 MiB chunks' -f estargz -l 9 --chunk-size 4M -- --estargz --estargz-compression-level 9
measure 'eStargz, level 6, 64 KiB chunks' -f estargz -l 6 --chunk-size 64K -- --estargz --estargz-compression-level 6 --estargz-chunk-size 65536
measure 'zstd:chunked, level 3, 4 MiB chunks' -f zstd-chunked -l 3 --chunk-size 4M -- --zstdchunked
