#!/bin/bash
# The real containerd with a snapshotter of ours as its proxy plugin: images unpacked, listed, run, removed; snapshots by
# hand; containerd's own API by our client.
. "$(dirname "$0")/flip/lib.sh"
begin flip-grpc containerd ctr runc gcc
[[ -x $build/tests/tools/flip_snapshotter ]] || skip "no $build/tests/tools/flip_snapshotter"

# An image of two layers: a static program and a file; a second file, and the first one changed.
cat >"$work/hello.c" <<'C'
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	char line[100];
	FILE *f;
	for (int i = 1; i < argc; i++) {
		f = fopen(argv[i], "r");
		if (!f || !fgets(line, sizeof(line), f))
			return 1;
		printf("%s", line);
		fclose(f);
	}
	f = fopen("/written", "w"); /* the container's own layer */
	return f && fputs("x", f) >= 0 && fclose(f) == 0 ? 0 : 2;
}
C
gcc -static -O -o "$work/hello" "$work/hello.c" 2>/dev/null || skip "no static programs can be made here"
python3 - "$work" <<'PY' || fail "no image"
import gzip, hashlib, io, json, os, sys, tarfile
work = sys.argv[1]
os.makedirs(work + "/image/blobs/sha256")
def blob(data):
    hex = hashlib.sha256(data).hexdigest()
    open(work + "/image/blobs/sha256/" + hex, "wb").write(data)
    return {"digest": "sha256:" + hex, "size": len(data)}
def layer(files):
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode="w") as t:
        for name, data, mode in files:
            i = tarfile.TarInfo(name)
            i.size, i.mode = len(data), mode
            t.addfile(i, io.BytesIO(data))
    return b.getvalue()
layers = [layer([("hello", open(work + "/hello", "rb").read(), 0o755), ("one", b"one of layer 1\n", 0o644), ("two", b"old\n", 0o644)]),
          layer([("two", b"two of layer 2\n", 0o644)])]
oci = "application/vnd.oci.image."
config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/hello", "/one", "/two"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(l).hexdigest() for l in layers]}}).encode()
manifest = json.dumps({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
    "config": {"mediaType": oci + "config.v1+json", **blob(config)},
    "layers": [{"mediaType": oci + "layer.v1.tar+gzip", **blob(gzip.compress(l, mtime=0))} for l in layers]}).encode()
index = {"schemaVersion": 2, "manifests": [{"mediaType": oci + "manifest.v1+json", **blob(manifest),
    "platform": {"architecture": "amd64", "os": "linux"}, "annotations": {"org.opencontainers.image.ref.name": "latest"}}]}
open(work + "/image/index.json", "w").write(json.dumps(index))
open(work + "/image/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
PY
tar -C "$work/image" -cf "$work/image.tar" .

mkdir "$work/snapshots"
start_snapshotter() {
	"$build/tests/tools/flip_snapshotter" "$work/plugin.sock" "$work/snapshots" >"$work/plugin" 2>&1 &
	plugin=$!
	keep $plugin
	until_true python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$work/plugin.sock" ||
		fail "the snapshotter does not start: $(<"$work/plugin")"
}
# container ARGUMENT...: runs one; what it printed, by the shim itself (ctr may lose the end of a pipe), is in $out.
container() {
	local said
	said=$(mktemp "$work/said.XXXXXX")
	out=$(ctr run --log-uri "file://$said" "$@" 2>&1) && until_true test -s "$said" && out=$(<"$said")
}
start_snapshotter
[[ $(stat -c %a "$work/plugin.sock") == 600 ]] || fail "the socket's mode is $(stat -c %a "$work/plugin.sock")"
"$build/tests/tools/flip_snapshotter" "$work/plugin.sock" "$work/snapshots" 2>"$work/log" && fail "two at one socket"
grep -q "another process" "$work/log" || fail "the second says: $(<"$work/log")"

containerd_config
printf '[proxy_plugins.mine]\n  type = "snapshot"\n  address = "%s"\n' "$work/plugin.sock" >>"$work/config.toml"
# Garbage is collected when a command here asks for it: a view made by hand is garbage until it is labelled.
cat >>"$work/config.toml" <<CONF
[plugins."io.containerd.gc.v1.scheduler"]
  deletion_threshold = 0
  mutation_threshold = 1000000
  startup_delay = "0s"
CONF
export CONTAINERD_SNAPSHOTTER=mine
start_containerd
# try COMMAND...: must succeed; its output is in $out
try() {
	out=$("$@" 2>&1) || fail "$*: $out"
}
ctr plugins ls | grep -q 'snapshotter.*mine.*ok' || fail "the plugin is not there: $(ctr plugins ls)"

# An image comes in and is unpacked: Prepare, Mounts, Commit, Stat for each layer.
try ctr image import --base-name test/hello "$work/image.tar"
image=$(ctr image ls -q | head -n 1)
try ctr snapshots ls
[[ $(grep -c Committed <<<"$out") == 2 ]] || fail "two layers, but: $out"
top=$(awk '$3 == "Committed" && $2 != "" { print $1 }' <<<"$out")
id=flip-grpc
container --rm "$image" "$id-try" || { [[ $out == *"runc create failed"* ]] && skip "no containers here: $out"; fail "run: $out"; }
[[ $out == $'one of layer 1\ntwo of layer 2' ]] || fail "the container printed $out"
try ctr snapshots ls
[[ $(grep -c Active <<<"$out") == 0 ]] || fail "the container's snapshot is left: $out"

# A container that stays keeps its snapshot, with what was written in it, and Usage tells of it.
try ctr run "$image" "$id"
try ctr snapshots ls
grep -q "^$id .*Active" <<<"$out" || fail "no snapshot of the container: $out"
compgen -G "$work/snapshots/*/fs/written" >/dev/null || fail "what the container wrote is not in its snapshot"
try ctr snapshots usage "$id"
[[ $out == *KiB* ]] || fail "usage: $out"
try ctr snapshots info "$id"
[[ $out == *'"Kind": "Active"'* && $out == *'"Created": "20'* ]] || fail "info: $out"

# By hand: view, mounts, label (Update), tree (List), errors that containerd understands.
try ctr snapshots view "$id-view" "$top"
try ctr snapshots label "$id-view" containerd.io/gc.root=kept
try ctr snapshots mounts "$work/mnt" "$id-view"
[[ $out == *overlay* && $out == *lowerdir=* && $out != *upperdir* ]] || fail "mounts of a view: $out"
eval "$out" || fail "mount: $out"
[[ $(<"$work/mnt/two") == "two of layer 2" ]] || fail "the view shows $(ls "$work/mnt")"
umount "$work/mnt"
try ctr snapshots label "$id-view" colour=blue shape.of=round
try ctr snapshots info "$id-view"
[[ $out == *'"colour": "blue"'* && $out == *'"shape.of": "round"'* ]] || fail "labels: $out"
try ctr snapshots label "$id-view" colour=
try ctr snapshots info "$id-view"
[[ $out != *colour* && $out == *'"shape.of": "round"'* ]] || fail "labels after one was removed: $out"
try ctr snapshots tree
[[ $out == *"$id-view"* ]] || fail "tree: $out"
ctr snapshots view "$id-view" "$top" 2>"$work/log" && fail "a name given twice"
grep -q "already exists" "$work/log" || fail "a name given twice: $(<"$work/log")"
ctr snapshots info "$id-none" 2>"$work/log" && fail "a snapshot that is not there"
grep -q "not found" "$work/log" || fail "one that is not there: $(<"$work/log")"
ctr snapshots rm "$top" 2>"$work/log" && fail "a parent removed"
try ctr snapshots prepare "$id-a" "$top"
try ctr snapshots commit "$id-c" "$id-a"
try ctr snapshots info "$id-c"
[[ $out == *'"Kind": "Committed"'* ]] || fail "committed: $out"

# Many at a time, each with its own connection to containerd, all of them by one to us.
for i in {1..20}; do
	(ctr snapshots prepare "$id-p$i" "$top" && ctr snapshots info "$id-p$i" && ctr snapshots rm "$id-p$i") >"$work/p$i" 2>&1 &
	racing+=($!)
done
for pid in "${racing[@]}"; do
	wait "$pid" || fail "one of twenty at a time: $(cat "$work"/p*)"
done

# containerd finds the plugin again after it was restarted (this one has forgotten everything: a new image's life).
try ctr snapshots rm "$id-c"
try ctr snapshots rm "$id-view"
try ctr container rm "$id"
try ctr image rm --sync "$image"
no_snapshots() { out=$(ctr snapshots ls 2>&1) && [[ $(wc -l <<<"$out") == 1 ]]; }
until_true no_snapshots || fail "snapshots are left after the image was removed: $out"
end_child $plugin -9
start_snapshotter
until_true eval 'ctr image import --base-name test/hello "$work/image.tar" >"$work/log" 2>&1'
container --rm "$image" "$id-again"
[[ $out == $'one of layer 1\ntwo of layer 2' ]] || fail "after the restart the container printed $out; import: $(<"$work/log")"

# An image that was never pulled: its layers are there already, containerd is told of it by our client.
mkdir "$work/snapshots/ready"
python3 - "$work" >"$work/facts" <<'PY' || fail "no layers"
import gzip, hashlib, io, json, os, sys, tarfile
work = sys.argv[1]
blobs = work + "/image/blobs/sha256/"
index = json.load(open(work + "/image/index.json"))["manifests"][0]
manifest = json.load(open(blobs + index["digest"][7:]))
diff_ids = json.load(open(blobs + manifest["config"]["digest"][7:]))["rootfs"]["diff_ids"]
chain = ""
for n, layer in enumerate(manifest["layers"]):
    chain = "sha256:" + hashlib.sha256((chain + " " + diff_ids[n]).encode()).hexdigest() if chain else diff_ids[n]
    tarfile.open(fileobj=io.BytesIO(gzip.decompress(open(blobs + layer["digest"][7:], "rb").read()))).extractall(
        work + "/snapshots/ready/" + chain.replace(":", "-"))
    print("chain%d=%s" % (n, chain))
print("manifest=%s\nsize=%d\ntype=%s\nconfig=%s" % (index["digest"], index["size"], index["mediaType"], manifest["config"]["digest"]))
PY
. "$work/facts"
blobs=$work/image/blobs/sha256
# ask COMMANDS: the answers of our client, one a line
ask() {
	"$build/tests/tools/flip_containerd" "$work/containerd.sock" $namespace <<<"$1" 2>&1
}
try ctr image rm --sync "$image"
until_true eval 'no_snapshots && [[ -z $(ctr content ls -q) ]]' || fail "content is left: $(ctr content ls)"
head -c 5000000 /dev/urandom >"$work/large"
large=sha256:$(sha256sum <"$work/large" | cut -d' ' -f1)
out=$(ask "version
stat mine $chain0
lease 600
prepare mine $id-1 - containerd.io/snapshot.ref=$chain0
prepare mine $id-2 $chain0 containerd.io/snapshot.ref=$chain1
prepare mine $id-2 $chain0 containerd.io/snapshot.ref=$chain1
prepare mine $id-3 $chain1 containerd.io/snapshot.ref=none
prepare mine $id-3 $chain1
remove mine $id-3
stat mine $chain1
content $config $blobs/${config#*:} containerd.io/gc.ref.snapshot.mine=$chain1
content $manifest $blobs/${manifest#*:} containerd.io/gc.ref.content.config=$config
content $manifest $blobs/${manifest#*:} containerd.io/gc.ref.content.config=$config again=yes
content $large $work/large
content sha256:${large:10}000 $work/large
content ${large%?}$([[ $large == *0 ]] && echo 1 || echo 0) $work/large
image test/lazy:1 $type $config 5
image test/lazy:1 $type $manifest $size
endlease
version")
want="1.6.* 0|error 2: *|0|1|1|1|0|error 17: *|0|0|0|0|0|0|error *|error *|0|0|0|1.6.* 0"
mapfile -t answers <<<"$out"
IFS='|' read -ra wants <<<"$want"
for i in "${!wants[@]}"; do
	# shellcheck disable=SC2053 # a pattern
	[[ ${answers[i]:-} == ${wants[i]} ]] || fail "answer $((i + 1)) is ${answers[i]:-missing}, expected ${wants[i]}, of: $out"
done
try ctr image ls
grep -q "^test/lazy:1 .*$manifest" <<<"$out" || fail "the image is not listed: $out"
try ctr content ls
[[ $out == *"$manifest"* && $out == *"containerd.io/gc.ref.content.config=$config"* && $out == *"again=yes"* ]] || fail "content: $out"
ctr leases ls -q | grep -q flip- && fail "the lease is left"
# A collection of garbage takes what nothing refers to, and nothing else.
try ctr image tag test/lazy:1 test/other:1
try ctr image rm --sync test/other:1
try ctr content ls -q
[[ $out == *"$manifest"* && $out == *"$config"* && $out != *"$large"* ]] || fail "after the collection: $out"
container --rm test/lazy:1 "$id-lazy" /hello /one /two || fail "the image that was not pulled: $out"
[[ $out == $'one of layer 1\ntwo of layer 2' ]] || fail "the image that was not pulled printed $out"
echo "containerd $(command ctr --version | awk '{ print $3 }') and a snapshotter of ours: all as it should be"
