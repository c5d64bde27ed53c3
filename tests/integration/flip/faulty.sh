# Sourced after lib.sh by the tests of what goes wrong: an image small and varied, a registry with a proxy in front of it
# that can be told to be slow, to lie or to be gone, nodes that have nothing yet, and what is right of a mount.
#
#   large_mib=N    of the one large file [20];   read_all [THREADS [FOLDER]]

# ---- The image, a registry, a proxy in front of it -----------------------------------------------------------------

mkdir "$work/tree"
python3 - "$work/tree" "${large_mib:-20}" <<'PY' || fail "no tree"
import os, random, sys
root = sys.argv[1]
random.seed(5)
for d in range(10):
    os.makedirs(f"{root}/d{d}")
    for i in range(20):
        with open(f"{root}/d{d}/f{i:02d}", "wb") as f:
            f.write(random.randbytes(random.choice((0, 100, 4096, 5000, 30000, 100000))))
with open(f"{root}/large", "wb") as f:
    for i in range(int(sys.argv[2])):
        f.write(random.randbytes(1 << 19) + bytes(random.choices(b"abcd", k=1 << 19)))
os.mkdir(f"{root}/few")
for i in range(4):
    with open(f"{root}/few/f{i}", "wb") as f:
        f.write(random.randbytes(70000))
os.link(f"{root}/large", f"{root}/d3/large-too")
os.link(f"{root}/d1/f03", f"{root}/d2/again")
os.symlink("large", f"{root}/link")
PY
layout_of "$work/image" a "$work/tree"

start_registry
start_proxy
skopeo copy -q --dest-tls-verify=false "oci:$work/image:a" "docker://127.0.0.1:$port/img:plain" || fail "push"
"$flip" convert --no-prefetch -f zstd-chunked "oci:$work/image:a" "docker://127.0.0.1:$port/img:zstd" >/dev/null || fail "convert to zstd:chunked"
"$flip" convert --no-prefetch -f estargz "oci:$work/image:a" "docker://127.0.0.1:$port/img:gzip" >/dev/null || fail "convert to eStargz"
# One whose list names everything, so that its prefetch brings it all.
(cd "$work/tree" && echo "flip-prefetch 1" && find . -type f -printf '/%P 0 -\n') >"$work/list"
"$flip" convert -p "$work/list" -f zstd-chunked "oci:$work/image:a" "docker://127.0.0.1:$port/img:listed" >"$work/out" 2>&1 || fail "convert with a list"
at=127.0.0.1:$proxy_port/img

# ---- The daemon ------------------------------------------------------------------------------------------------------

# A registry on a machine that stands still for a moment is not one that stalls.
export FLIP_RETRIES=1 FLIP_STALL=5 FLIP_MIN_FREE=1M FLIP_RECORD=false
# A command's diagnostics are its own business here; what it must have done is checked.
ask() { ctl "$@" >"$work/out" 2>&1; }
# The end of a node: its mounts and its holder, too.
end_node() {
	[[ -n ${daemon:-} ]] || return 0
	awk -v d="$work/mnt" '$2 == d' /proc/self/mounts | grep -q . && { ask unmount "$work/mnt" || umount -l "$work/mnt"; }
	stop_flip
	unmount_below "$node"
	end_holder "$node"
	rm -rf --one-file-system "$node" "$(session_of "$node")"
}
n_nodes=0
fresh_node() { # nothing in its store, nothing in the page cache
	end_node
	node=$work/n$((++n_nodes))
	start_flip
}
mnt=$work/mnt # what is looked at
read_all() { $here/read_all.py "$work/tree/${2:-}" "$mnt/${2:-}" "${1:-32}" $RANDOM; } # THREADS FOLDER
equal() { "$build/tests/tools/flip_tree" compare "$work/tree" "$mnt" >"$work/out" 2>&1 || fail "$1: the tree is not what it was made of"; }
no_sanitizer() { ! grep -E "Sanitizer|runtime error" "$work/flip.log" >"$work/out" || fail "$(<"$work/out")"; }
clean() { ask fsck || fail "$1: fsck: $(<"$work/out")"; }
