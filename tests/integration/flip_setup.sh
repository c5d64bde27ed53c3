#!/bin/bash
# flip setup containerd: its lines go in and out, and nothing else of the file changes.
set -u
cd "$(dirname "$0")/../.."
flip=$(realpath "${BUILD_DIR:-build/release}")/bin/flip
[[ -x $flip ]] || { echo "no $flip"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; [[ -s $work/out ]] && cat "$work/out"; exit 1; }
setup() { "$flip" setup containerd --config "$work/c.toml" --socket /run/x/flip.sock "$@" >"$work/out" 2>&1; }
is_toml() { python3 -c 'import sys
try:
    import tomllib
except ImportError:
    sys.exit(0)
tomllib.load(open(sys.argv[1], "rb"))' "$work/c.toml"; }

# No file: it is made, and valid. Twice is as once.
setup --cri || fail "no file"
grep -qx 'version = 2' "$work/c.toml" || fail "no version"
grep -qx '\[plugins."io.containerd.grpc.v1.cri".containerd\]' "$work/c.toml" || fail "not version 2's table"
grep -qx '  address = "/run/x/flip.sock"' "$work/c.toml" || fail "no socket"
is_toml || fail "no TOML"
cp "$work/c.toml" "$work/once"
setup --cri || fail "twice"
cmp "$work/once" "$work/c.toml" || fail "twice is not as once"

# In and out of files of both versions leaves them as they were.
for version in 2 3; do
	printf 'version = %s\nroot = "/x"\n\n[proxy_plugins]\n[proxy_plugins.other]\n  type = "snapshot"\n' $version >"$work/c.toml"
	cp "$work/c.toml" "$work/before"
	setup --cri --print || fail "version $version: --print"
	cmp "$work/before" "$work/c.toml" || fail "version $version: --print wrote"
	setup --cri || fail "version $version"
	is_toml || fail "version $version: no TOML"
	((version == 2)) && table='[plugins."io.containerd.grpc.v1.cri".containerd]' || table='[plugins."io.containerd.cri.v1.images"]'
	(($(grep -cF '[plugins.' "$work/c.toml") == 1)) && grep -qxF "$table" "$work/c.toml" || fail "version $version: not $table"
	setup --undo || fail "version $version: --undo"
	cmp "$work/before" "$work/c.toml" || fail "version $version: --undo left something"
done

# What is configured otherwise is told, not touched.
for line in '[proxy_plugins.flip]' "[plugins.'io.containerd.cri.v1.images']" '[plugins."io.containerd.cri.v1.images"]'; do
	printf 'version = 3\n%s\n' "$line" >"$work/c.toml"
	cp "$work/c.toml" "$work/before"
	setup --cri && fail "$line: was passed over"
	cmp "$work/before" "$work/c.toml" || fail "$line: the file was changed"
done
setup --name 'a]b'
(($? == 2)) || fail "a name that breaks the file was taken"
sed -i '/end of flip/d' "$work/c.toml"
setup --name other || fail "another name"
sed -i '/end of flip/d' "$work/c.toml"
setup --undo && fail "half of the marks"
grep -q 'is missing' "$work/out" || fail "half of the marks: no words"
echo "flip setup: passed"
