#!/bin/bash
# The table of docs/lazy-images.md, measured: make bench-flip. An image of Debian with PyTorch is made of Debian's
# packages (1.4 GB, needs mmdebstrap and a mirror), a second one with a fifth of its files changed; a start is recorded
# once; then cold starts at 1 Gbit/s and 200 Mbit/s, with 20 ms of round trip, of the ordinary image, and both images.
#
#   WORK=DIR     everything is kept here and used again [/var/tmp/flip-bench]
#   STARGZ=FILE  a program that serves stargz-snapshotter's library (-socket, -root, -config): the peer's column; its
#                image is made with ctr-remote, once
#   CUDA=DIR     a folder of CUDA libraries for the row cuda: a layer that is not touched [/usr/local/cuda/lib64]
#   ROWS=...     some of: 1gbit 200mbit delay plain two cuda
set -eu
cd "$(dirname "$0")/../.."
work=${WORK:-/var/tmp/flip-bench}
flip=${FLIP:-build/release/bin/flip}
reps=${REPS:-3}
rows=${ROWS:-1gbit 200mbit delay plain two cuda}
bench=(python3 tests/bench/flip_cold.py --work "$work" --flip "$flip" --reps "$reps")
command=(python3 -c 'import torch; print(torch.ones(3).sum())')
mkdir -p "$work"

if [[ ! -e $work/oci/index.json ]]; then
	for tool in mmdebstrap skopeo containerd runc docker-registry; do
		command -v $tool >/dev/null || { echo "flip_table: $tool is missing" >&2; exit 1; }
	done
	[[ -d $work/root-a ]] ||
		mmdebstrap --quiet --variant=minbase --include=python3,python3-numpy,python3-torch bookworm "$work/root-a"
	rm -rf "$work/root-b"
	cp -a "$work/root-a" "$work/root-b"
	# A fifth of the files, chosen by their names, gets a few more bytes that do not matter; times stay.
	python3 - "$work/root-b/usr" <<'PY'
import hashlib, os, stat, sys
seen = set()
for folder, _, files in os.walk(sys.argv[1]):
    for name in files:
        path = os.path.join(folder, name)
        st = os.lstat(path)
        if not stat.S_ISREG(st.st_mode) or st.st_ino in seen or hashlib.sha256(name.encode()).digest()[0] % 5:
            continue
        seen.add(st.st_ino)
        with open(path, "ab") as f:
            f.write(b"\n# \n")
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
PY
	python3 tests/bench/make_oci.py "$work/oci" torch-a "$work/root-a"
	python3 tests/bench/make_oci.py "$work/oci" torch-b "$work/root-b"
fi

cuda=${CUDA:-/usr/local/cuda/lib64}
# The image with the libraries, named by their sonames, in a second layer.
make_cuda_image() {
	local lib name folder=$work/root-cuda/usr/local/cuda/lib64
	skopeo inspect "oci:$work/oci:torch-cuda" >/dev/null 2>&1 && return
	mkdir -p "$folder"
	for lib in "$cuda"/lib*.so.[0-9]*; do
		name=${lib##*/}
		[[ $name =~ \.so\.[0-9]+$ ]] && cp -Lu "$lib" "$folder/$name"
	done
	[[ -e $folder/libcublasLt.so.13 || $(du -sm "$folder" | cut -f1) -gt 1000 ]] ||
		{ echo "flip_table: no CUDA libraries in $cuda" >&2; exit 1; }
	python3 tests/bench/make_oci.py "$work/oci" torch-cuda "$work/root-a" "$work/root-cuda"
}

sides=overlayfs,flip
if [[ ${STARGZ:-} ]]; then
	sides=overlayfs,stargz,flip
	bench+=(--stargz "$STARGZ")
fi
if [[ ! -s $work/list ]]; then
	"${bench[@]}" --record "$work/list" --layout "$work/oci:torch-a" -- "${command[@]}"
fi
bench+=(--prefetch "$work/list" --expect 'tensor(3')
for row in $rows; do
	case $row in
	1gbit | 200mbit) "${bench[@]}" --rate "$row" --side $sides --layout "$work/oci:torch-a" -- "${command[@]}" ;;
	delay) "${bench[@]}" --rate 1gbit --delay-ms 20 --side $sides --layout "$work/oci:torch-a" -- "${command[@]}" ;;
	plain) "${bench[@]}" --rate 1gbit --plain --side overlayfs,flip --layout "$work/oci:torch-a" -- "${command[@]}" ;;
	two) "${bench[@]}" --rate none --reps 1 --side overlayfs,flip --complete --layout "$work/oci:torch-a" \
		--second "$work/oci:torch-b" -- "${command[@]}" ;;
	cuda)
		make_cuda_image
		"${bench[@]}" --rate 1gbit --side $sides --layout "$work/oci:torch-cuda" -- "${command[@]}" ;;
	*) echo "flip_table: no row $row" >&2; exit 1 ;;
	esac
done
