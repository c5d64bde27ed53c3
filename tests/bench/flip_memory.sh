#!/bin/bash
# What lazy images cost in memory, one JSON object a line:
#
#   files   the daemon's resident memory before and after an image of 100,000 small files was mounted lazily, walked and
#           read in part (limit: 64 MB for 100,000 files), and its peak while the same image is unpacked whole
#   cache   two images of 64 MB with four files in five equal; of each file a part is read. What of it is in the page cache,
#           counted page by page in the files of the store and of FUSE, and what that is to the bytes distinct (1: each page
#           once)
#
#   CASES="files cache"   N_FILES=100000
. "$(dirname "$0")/../integration/flip/lib.sh"
skip() {
	echo "bench flip_memory: $*" >&2
	exit 0
}
begin flip-memory docker-registry skopeo fincore
n_files=${N_FILES:-100000}
cases=${CASES:-files cache}
# The rest is not to come between two looks.
export FLIP_RECORD=false FLIP_BACKGROUND_WAIT=3600
line() { # CASE VALUE UNIT LIMIT
	python3 -c 'import json, sys
case, value, unit, limit = sys.argv[1:]
value, limit = float(value), float(limit) if limit else None
print(json.dumps({"bench": "flip_memory", "case": case, "value": round(value, 3), "unit": unit, "limit": limit,
    "share": round(value / limit, 3) if limit else None, "peer": None, "ratio": None}))' "$@"
}
status_mb() { awk -v k="$1:" '$1 == k { printf "%.1f", $2 / 1000 }' /proc/$daemon/status; }
push() { # TAG CONVERT_OPTION...
	local tag=$1
	shift
	"$flip" convert "$@" "oci:$work/image:$tag" "docker://$at:$tag" >"$work/out" 2>&1 || fail "convert $tag: $(<"$work/out")"
}
start_registry

if [[ $cases == *files* ]]; then
	python3 - "$work/files" "$n_files" <<'PY' || fail "no files"
import os, random, sys
root, n = sys.argv[1], int(sys.argv[2])
random.seed(1)
for i in range(n):
    if i % 500 == 0:
        folder = f"{root}/usr/lib/module-{i // 500}"
        os.makedirs(folder)
    with open(f"{folder}/file_{i:06d}.py", "wb") as f:
        f.write(random.randbytes(random.randrange(20, 2000)))
PY
	layout_of "$work/image" files "$work/files"
	push files --no-prefetch -f zstd-chunked
	start_flip
	before=$(status_mb VmRSS)
	ctl mount "$at:files" "$work/mnt" || fail "mount"
	line "files: daemon at rest" "$before" MB ""
	line "files: $n_files mounted" "$(status_mb VmRSS)" MB "$((64 * n_files / 100000))"
	line "files: $n_files mounted, peak" "$(status_mb VmHWM)" MB ""
	find "$work/mnt" -type f -printf '%s\n' | wc -l >"$work/walked"
	(($(<"$work/walked") == n_files)) || fail "$(<"$work/walked") files"
	line "files: walked" "$(status_mb VmRSS)" MB "$((64 * n_files / 100000))"
	find "$work/mnt" -type f -path '*0/*' -print0 | head -z -n 10000 | xargs -0 cat | cmp - <(find "$work/mnt" -type f -path '*0/*' -printf '%P\0' |
		head -z -n 10000 | (cd "$work/files" && xargs -0 cat)) || fail "the files differ"
	line "files: 10000 of them read" "$(status_mb VmRSS)" MB "$((64 * n_files / 100000))"
	ctl unmount "$work/mnt" || fail "unmount"
	stop_flip
	skopeo copy -q --dest-tls-verify=false "oci:$work/image:files" "docker://$at:plain" || fail "push"
	node=$work/plain
	start_flip
	ctl mount "$at:plain" "$work/mnt" || fail "mount"
	line "files: $n_files unpacked, peak" "$(status_mb VmHWM)" MB ""
	line "files: $n_files unpacked" "$(status_mb VmRSS)" MB "$((64 * n_files / 100000))"
	ctl unmount "$work/mnt" || fail "unmount"
	stop_flip
	node=$work/flip
fi

if [[ $cases == *cache* ]]; then
	python3 - "$work" <<'PY' || fail "no images"
import os, random, sys
work = sys.argv[1]
random.seed(2)
for i in range(80):
    data = random.randbytes(800_000)
    for tag in "ab":
        os.makedirs(f"{work}/{tag}/lib", exist_ok=True)
        with open(f"{work}/{tag}/lib/{i:02d}.so", "wb") as f:
            f.write(data if tag == "a" or i % 5 else data[::-1])
PY
	mkdir "$work/mnt-a" "$work/mnt-b"
	for tag in a b; do
		layout_of "$work/image" $tag "$work/$tag"
		push $tag --no-prefetch -f zstd-chunked
	done
	start_flip
	# run TAG...: mounts them, reads at two places of each file as a start would, and lets go of them.
	run() {
		local tag
		for tag; do
			ctl mount "$at:$tag" "$work/mnt-$tag" || fail "mount $tag"
			python3 - "$work/$tag/lib" "$work/mnt-$tag/lib" <<'PY' || fail "$tag: other bytes"
import os, sys
a, b = sys.argv[1:]
for name in sorted(os.listdir(a)):
    with open(f"{a}/{name}", "rb", buffering=0) as x, open(f"{b}/{name}", "rb", buffering=0) as y:
        for at in (0, 400_000):
            if os.pread(x.fileno(), 60_000, at) != os.pread(y.fileno(), 60_000, at):
                sys.exit(name)
PY
		done
	}
	# The pages of all contents, FUSE's and the store's.
	pages() {
		python3 - "$node" "$1" <<'PY'
import os, subprocess, sys
node, what = sys.argv[1:]
kinds = {"store": [], "fuse": []}
for folder in ("objects", "partial"):
    for d, _, names in os.walk(f"{node}/{folder}"):
        for n in names:
            if not n.endswith(".map"):
                kinds["store"].append(f"{d}/{n}")
                kinds["fuse"].append(f"{node}/fuse/objects/{os.path.basename(d)}/{n}")
if what == "drop":
    for path in kinds["store"] + kinds["fuse"]:
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        if "/fuse/" not in path:
            os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    sys.exit()
def resident(paths):
    out = subprocess.run(["fincore", "-b", "-n", "-r", "-o", "RES"] + paths, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return sum(int(x) for x in out.split()) / 1e6
print(resident(kinds["store"]), resident(kinds["fuse"]))
PY
	}
	# Of 96 contents the 128 KiB at two places, as the kernel reads ahead.
	distinct=$(python3 -c 'print(96 * 2 * 131072 / 1e6)')
	report() {
		local store fuse
		read -r store fuse < <(pages count)
		line "cache: $1, store's pages" "$store" MB ""
		line "cache: $1, FUSE's pages" "$fuse" MB ""
		line "cache: $1, the bytes read" "$distinct" MB ""
		line "cache: $1, times each" "$(python3 -c "print(($store + $fuse) / $distinct)")" x ""
	}
	run a b
	report "first run"
	sleep 14 # the keeper syncs every 10 s, and looks every 2
	report "first run, synced"
	for tag in a b; do ctl unmount "$work/mnt-$tag" || fail "unmount $tag"; done
	pages drop
	run a b
	report "read again from disk"
	for tag in a b; do ctl unmount "$work/mnt-$tag" || fail "unmount $tag"; done
	stop_flip
fi
