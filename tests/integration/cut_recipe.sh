#!/bin/bash
# Images by recipe: the configuration that was written down is the image's, for skopeo too; layers that two recipes have in
# common are the same bytes; accounts and folders are made; mistakes are told; twice gives the same bytes.
set -u
. "$(dirname "$0")/slim/repo.sh"
slim_need_root
command -v skopeo >/dev/null || skip "skopeo is missing"
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH=1700000000

mkdir "$work/a" "$work/b"
cat >"$work/family.conf" <<'CONF'
[image]
user = 4711
env = PATH=/usr/bin
[files]
generate = users user:web:4711:/var/lib/web tmp dir:/srv/data:0750:4711
[layers]
base = libc6_libs
CONF
cat >"$work/a/image.conf" <<'CONF'
[recipe]
include = ../family.conf
[image]
entrypoint = /usr/bin/busybox
cmd = sh -c "/usr/bin/busybox id -u; pwd"
port = 80/tcp
healthcheck = /usr/bin/busybox true
healthcheck-interval = 3s
[labels]
org.opencontainers.image.version = ${VERSION}
[annotations]
org.opencontainers.image.title = a
[layers]
tool = busybox_bins
CONF
cat >"$work/b/image.conf" <<'CONF'
[recipe]
include = ../family.conf
[layers]
shell = bash_bins
[files]
request = /etc/os-release
CONF

make_image() { # NAME OUT OPTION...
	local name=$1 out=$2
	shift 2
	"$SLIMTRACE" cut --repo "$REPO" --no-gpg --recipe "$work/$name/image.conf" --define VERSION=1.2 --json --out "$out" "$@" \
		>"$work/$name.json" 2>"$work/err" || fail "$name: $(cat "$work/err")"
}
make_image a "oci:$work/img:a"
make_image b "oci:$work/img:b" --set image.cmd=/bin/bash
skopeo inspect --config "oci:$work/img:a" >"$work/config" || fail "skopeo inspect --config"
skopeo inspect --raw "oci:$work/img:a" >"$work/manifest" || fail "skopeo inspect --raw"
skopeo copy -q "oci:$work/img:a" "dir:$work/dir" || fail "skopeo copy"
python3 - "$work" <<'PY' || fail "not what the recipes say"
import json, subprocess, sys
work = sys.argv[1]
config = json.load(open(work + "/config"))
run = config["config"]
assert run["User"] == "4711" and run["Entrypoint"] == ["/usr/bin/busybox"], run
assert run["Cmd"] == ["sh", "-c", "/usr/bin/busybox id -u; pwd"] and run["ExposedPorts"] == {"80/tcp": {}}, run
assert run["Labels"] == {"org.opencontainers.image.version": "1.2"}, run
assert config["created"] == "2023-11-14T22:13:20Z", config["created"]
manifest = json.load(open(work + "/manifest"))
assert manifest["annotations"] == {"org.opencontainers.image.title": "a"}, manifest
raw = json.load(open(work + "/img/blobs/" + manifest["config"]["digest"].replace(":", "/")))
assert raw["config"]["Healthcheck"] == {"Test": ["CMD", "/usr/bin/busybox", "true"], "Interval": 3000000000}, raw
def layers(name):
    return json.load(open(f"{work}/{name}.json"))["image"]["layers"]
a, b = layers("a"), layers("b")
assert [l["name"] for l in a] == ["base", "tool", "database"], a
assert [l["name"] for l in b] == ["base", "shell", "packages", "database"], b
assert a[0]["digest"] == b[0]["digest"] and a[1]["digest"] != b[1]["digest"], (a, b)
assert [l["digest"] for l in a] == [l["digest"] for l in manifest["layers"]]
# A layer has what it is to have, and each path is in one of them.
seen = {}
for l in a:
    blob = f"{work}/img/blobs/" + l["digest"].replace(":", "/")
    tar = subprocess.run(["sh", "-c", f"zstd -dc {blob} | tar -tvf -"], stdout=subprocess.PIPE, check=True).stdout.decode()
    for line in tar.splitlines():
        if line[0] != "d":
            path = line.split()[5]
            assert path not in seen, path
            seen[path] = l["name"]
where = {p.split("/")[-1]: n for p, n in seen.items()}
assert where["busybox"] == "tool" and where["libc.so.6"] == "base", where
assert where["passwd"] == where["rpmdb.sqlite"] == where["ld.so.cache"] == "database", where
PY

# Packed otherwise, and once more: the same files; the same again: the same bytes.
make_image a "oci:$work/again:a"
digest=$(sha256sum <"$work/manifest" | cut -d' ' -f1)
cmp "$work/img/blobs/sha256/$digest" "$work/again/blobs/sha256/$digest" || fail "not the same bytes twice"
make_image a "oci:$work/gz:a" --compression gzip --level 1
skopeo inspect --raw "oci:$work/gz:a" | grep -q 'tar+gzip' || fail "--compression"

# What was made runs, as its user, in its folders; the layers make the root that one cut makes.
"$SLIMTRACE" cut --repo "$REPO" --no-gpg --recipe "$work/a/image.conf" -D VERSION=1.2 --out "$work/root" >"$work/log" 2>&1 ||
	fail "root: $(tail -n 1 "$work/log")"
slim_rpm "$work/root" -Va >"$work/verify" 2>&1 || fail "rpm -Va: $(<"$work/verify")"
grep -qx 'web:x:4711:4711::/var/lib/web:/sbin/nologin' "$work/root/etc/passwd" || fail "passwd: $(cat "$work/root/etc/passwd")"
grep -qx 'web:x:4711:' "$work/root/etc/group" || fail "group"
[[ $(stat -c '%a %u %g' "$work/root/srv/data" "$work/root/var/lib/web" | xargs) == "750 4711 4711 755 4711 4711" ]] || fail "folders"
out=$("$SLIMTRACE" trace -q --image "oci:$work/img:a" -o "$work/trace") || fail "the image does not run: $out"
[[ $out == $'4711\n/' ]] || fail "the image printed $out"
"$SLIMTRACE" diff --json "oci:$work/img:a" "$work/root" >"$work/diff" || fail "diff"
python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
assert d["same"] > 9 and (d["added"], d["removed"], d["changed"]) == (0, 0, 0), d' "$work/diff" 2>"$work/err" || fail "layers and root differ: $(tail -n 1 "$work/err")"

# Mistakes.
refused() { # PATTERN OPTION...
	local pattern=$1
	shift
	"$SLIMTRACE" cut --repo "$REPO" --no-gpg --out "oci:$work/none:x" "$@" >"$work/log" 2>&1 && fail "$*: was taken"
	grep -qE -- "$pattern" "$work/log" || fail "$*: says $(cat "$work/log")"
	[[ ! -e $work/none ]] || fail "$*: something was written"
}
refused 'family.conf.*|image.conf:.*nothing defines \$\{VERSION\}' --recipe "$work/a/image.conf"
refused 'no key "usr"' --set image.usr=5 busybox_bins
refused 'is not SECTION.KEY=VALUE' --set image busybox_bins
refused 'is not NAME=VALUE' --define 'A B=5' busybox_bins
refused 'nothing is asked for' --set image.user=5
refused 'expected user:NAME:UID' --generate user:Web:5 busybox_bins
refused 'expected user:NAME:UID' --generate user:web:0 busybox_bins
refused 'expected user:NAME:UID' --generate user:web:5:home busybox_bins
refused 'has that name or number' --generate user:root:5 --generate users busybox_bins
refused 'expected dir:PATH:MODE' --generate dir:/srv/../x:0755 busybox_bins
refused 'expected dir:PATH:MODE' --generate dir:/srv:0999 busybox_bins
refused 'there is no "user"' --generate user busybox_bins
refused 'no such package' --set layers.x=nothing_bins
echo "images by recipe: passed"
