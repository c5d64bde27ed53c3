#!/bin/bash
# The whole of it: a real registry, containerd and runc, flip as the snapshotter. Images of all three kinds are pulled and
# run, trees compared with what they were made of, the daemon killed under a running container, the registry taken away
# and given back, everything removed again.
. "$(dirname "$0")/flip/lib.sh"
begin flip-node containerd ctr runc docker-registry skopeo gcc
export FLIP_PREHEAT_PRESSURE=100

# ---- What the images are made of ------------------------------------------------------------------------------

root=$work/root-a
mkdir -p "$root"/{bin,etc,usr/share/many,usr/share/gone,usr/share/opaque,tmp,dev}
cat >"$work/prog.c" <<'C'
/* prints the sum of every file named; "again DIR": those of a folder, again and again until SIGTERM */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static char b[65536];
static volatile sig_atomic_t stop;
static void on_term(int sig)
{
	stop = sig;
}
static long sum(const char *path)
{
	int fd = open(path, O_RDONLY);
	long s = 0;
	ssize_t n;
	if (fd < 0)
		return -1;
	while ((n = read(fd, b, sizeof(b))) > 0)
		for (ssize_t i = 0; i < n; i++)
			s = s * 31 + (unsigned char)b[i];
	close(fd);
	return n < 0 ? -1 : s;
}
int main(int argc, char **argv)
{
	char path[512];
	if (argc == 3 && strcmp(argv[1], "again") == 0) {
		struct sigaction sa = { .sa_handler = on_term, .sa_flags = SA_RESTART };
		sigaction(SIGTERM, &sa, NULL);
		for (long round = 0; !stop; round++) {
			DIR *d = opendir(argv[2]);
			struct dirent *e;
			long bad = 0, all = 0;
			while (d && (e = readdir(d))) {
				snprintf(path, sizeof(path), "%s/%s", argv[2], e->d_name);
				if (e->d_name[0] != '.' && ++all && sum(path) == -1 && ++bad < 5)
					printf("%s: %s\n", path, strerror(errno));
			}
			if (d)
				closedir(d);
			if (bad || !all) {
				printf("bad %ld of %ld in round %ld\n", bad, all, round);
				fflush(stdout);
				return 1;
			}
			int fd = open("/rounds", O_WRONLY | O_CREAT | O_APPEND, 0644);
			if (fd >= 0 && write(fd, ".", 1) == 1)
				close(fd);
			usleep(20000);
		}
		puts("stopped");
		return 0;
	}
	for (int i = 1; i < argc; i++)
		printf("%s %ld\n", argv[i], sum(argv[i]));
	return 0;
}
C
gcc -static -O -o "$root/bin/prog" "$work/prog.c" 2>/dev/null || skip "no static programs can be made here"
python3 - "$root" <<'PY' || fail "no root"
import os, random, sys
root = sys.argv[1]
random.seed(7)
for i in range(1500):
    with open(f"{root}/usr/share/many/f{i:04d}", "wb") as f:
        f.write(random.randbytes(random.randint(0, 9000)))
for i in range(5):
    open(f"{root}/usr/share/gone/g{i}", "w").write(f"gone {i}\n")
    open(f"{root}/usr/share/opaque/o{i}", "w").write(f"hidden {i}\n")
with open(f"{root}/usr/share/large", "wb") as f:
    for i in range(24):
        f.write(random.randbytes(1 << 19) + bytes(1 << 19))
open(f"{root}/etc/empty", "w")
os.link(f"{root}/usr/share/large", f"{root}/usr/share/large-too")
os.symlink("../usr/share/large", f"{root}/etc/link")
os.symlink("/nowhere/" + "x" * 200, f"{root}/etc/dangling")
os.mkfifo(f"{root}/etc/fifo", 0o640)
os.chmod(f"{root}/bin/prog", 0o4755)
os.chown(f"{root}/etc/empty", 1234, 5678)
os.chmod(f"{root}/tmp", 0o1777)
os.setxattr(f"{root}/etc/empty", "user.note", b"a \x00 value")
os.utime(f"{root}/etc/empty", ns=(10**18, 1234567890 * 10**9 + 987654321))
os.mkdir(f"{root}/usr/share/näme 'odd'")
open(f"{root}/usr/share/näme 'odd'/\u4e2d\u6587", "w").write("text\n")
PY
# The second layer changes, removes and hides; `whole` is what both together are.
mkdir -p "$work/upper/usr/share/opaque" "$work/upper/etc"
echo changed >"$work/upper/usr/share/many-changed"
echo new >"$work/upper/usr/share/opaque/new"
python3 - "$work" <<'PY' || fail "no image"
import gzip, hashlib, io, json, os, shutil, subprocess, sys, tarfile
work = sys.argv[1]
blobs = f"{work}/image/blobs/sha256"
os.makedirs(blobs)
def blob(data):
    h = hashlib.sha256(data).hexdigest()
    open(f"{blobs}/{h}", "wb").write(data)
    return {"digest": "sha256:" + h, "size": len(data)}
def tar(folder, extra=()):
    t = subprocess.run(["tar", "-C", folder, "--numeric-owner", "--sort=name", "--format=pax", "--xattrs",
                        "--xattrs-include=*", "-cf", "-", "."], stdout=subprocess.PIPE, check=True).stdout
    b = io.BytesIO(t)
    with tarfile.open(fileobj=b, mode="a") as a:
        for name in extra:
            a.addfile(tarfile.TarInfo(name))
    return b.getvalue()
def image(tag, layers, index):
    oci = "application/vnd.oci.image."
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/prog", "/usr/share/large"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(l).hexdigest() for l in layers]}}).encode()
    manifest = json.dumps({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
        "config": {"mediaType": oci + "config.v1+json", **blob(config)},
        "layers": [{"mediaType": oci + "layer.v1.tar+gzip", **blob(gzip.compress(l, 6, mtime=0))} for l in layers]}).encode()
    index.append({"mediaType": oci + "manifest.v1+json", **blob(manifest), "platform": {"architecture": "amd64", "os": "linux"},
                  "annotations": {"org.opencontainers.image.ref.name": tag}})
index = []
lower = tar(f"{work}/root-a")
upper = tar(f"{work}/upper", ["usr/share/.wh.gone", "usr/share/opaque/.wh..wh..opq"])
image("a", [lower, upper], index)
# b: one layer, one file in five of `many` changed
shutil.copytree(f"{work}/root-a", f"{work}/root-b", symlinks=True, ignore=shutil.ignore_patterns("fifo"))
os.unlink(f"{work}/root-b/usr/share/large-too")
for i in range(0, 1500, 5):
    open(f"{work}/root-b/usr/share/many/f{i:04d}", "ab").write(b"b")
image("b", [tar(f"{work}/root-b")], index)
open(f"{work}/image/index.json", "w").write(json.dumps({"schemaVersion": 2, "manifests": index}))
open(f"{work}/image/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
PY
cp -a "$root" "$work/whole"
rm -r "$work/whole/usr/share/gone" "$work/whole"/usr/share/opaque/o?
cp -a "$work/upper/." "$work/whole/"

# ---- Registry, containerd, flip --------------------------------------------------------------------------------

containerd_config
"$flip" setup containerd --config "$work/config.toml" --socket "$work/flip.sock" >"$work/out" || fail "setup"
grep -q '^\[proxy_plugins.flip\]' "$work/config.toml" || fail "setup wrote nothing"
start_registry
start_flip
start_containerd
remove_images() { # and with them, by containerd's own collection, their snapshots
	local image
	for image in $(ctr images ls -q); do
		ctr images rm --sync "$image" >/dev/null || fail "$image is not removed"
	done
}
collect() { # nothing is left when no image is
	collect_garbage
	# Layers go first, and with them what is still fetched of them; what was on its way then may come a moment later.
	ctl gc --all >"$work/out" || fail "gc"
	idle
	ctl gc --all >"$work/out" || fail "gc"
	(($(stat_of store objects) == 0)) ||
		fail "gc left $(stat_of store objects) contents: $(ctl stat --json) $(ctr snapshots --snapshotter flip ls 2>&1) $(ctr leases ls)"
}
pull() { "$flip" pull -q --address "$work/containerd.sock" --namespace $namespace "$1" >"$work/out" 2>&1 || fail "pull $1: $(<"$work/out")"; }
run() { # IMAGE NAME COMMAND...; what it printed is in $work/said, by the shim itself: ctr may lose the end of a pipe
	rm -f "$work/said"
	ctr run --rm --log-uri "file://$work/said" --snapshotter flip "$@" >"$work/out" 2>&1
}

"$flip" convert -f zstd-chunked "oci:$work/image:a" "docker://$at:a-zstd" >/dev/null || fail "convert to zstd:chunked"
"$flip" convert -f estargz "oci:$work/image:a" "docker://$at:a-gzip" >/dev/null || fail "convert to eStargz"
"$flip" convert -f zstd-chunked "oci:$work/image:b" "docker://$at:b" >/dev/null || fail "convert b"
skopeo copy -q --dest-tls-verify=false "oci:$work/image:a" "docker://$at:a-plain" || fail "push"

# ---- Each kind is what it was made of ----------------------------------------------------------------------------

expected=$("$root/bin/prog" "$root/usr/share/large" | sed "s,$root,,")
for kind in zstd gzip plain; do
	pull "$at:a-$kind"
	ctr images ls -q | grep -qx "$at:a-$kind" || fail "containerd does not know a-$kind"
	run "$at:a-$kind" "run-$kind" /bin/prog /usr/share/large || fail "a-$kind does not run"
	grep -qxF "$expected" "$work/said" || fail "a-$kind: read $(<"$work/said"), not $expected"
	ctl mount "$at:a-$kind" "$work/mnt" || fail "mount a-$kind"
	"$build/tests/tools/flip_tree" compare "$work/whole" "$work/mnt" >"$work/out" || fail "a-$kind is not what it was made of"
	ctl unmount "$work/mnt" || fail "unmount"
done
(($(stat_of reads bad_chunks) == 0 && $(stat_of reads errors) == 0)) || fail "reads failed"

# ---- The second image brings only what is not there ---------------------------------------------------------------

before=$(stat_of fetch wire_bytes)
pull "$at:b"
ctl mount "$at:b" "$work/mnt" || fail "mount b"
"$build/tests/tools/flip_tree" compare "$work/root-b" "$work/mnt" >"$work/out" || fail "b is not what it was made of"
ctl unmount "$work/mnt"
came=$(($(stat_of fetch wire_bytes) - before))
# 300 changed files of 4.5 kB, the table of contents: 1.4 MB + 0.1; all of it is 20 MB.
((came < 3000000)) || fail "the second image fetched $came bytes"

# ---- The daemon dies under a running container ---------------------------------------------------------------------

# A node that has nothing, so that there is something to fetch.
remove_images
collect
stop_flip
start_flip
redialled
pull "$at:b"
ctr run -d --log-uri "file://$work/lives" --snapshotter flip "$at:b" lives /bin/prog again /usr/share/many >"$work/out" 2>&1 || fail "run: $(<"$work/out")"
ctr tasks ls | grep -q "lives.*RUNNING" || fail "no container"
upper=$(ctr snapshots --snapshotter flip mounts / lives | grep -o 'upperdir=[^,]*' | cut -d= -f2)
rounds() { stat -c %s "$upper/rounds" 2>/dev/null || echo 0; }
for n in 1 2 3; do
	sleep 0.3
	kill_flip
	sleep 0.2
	start_flip
	now=$(rounds)
	goes_on() { (($(rounds) > now)); }
	until_true goes_on || fail "the container stands still after kill $n"
done
ctr tasks kill -s SIGTERM lives
has_stopped() { ctr tasks ls | grep -q "lives.*STOPPED"; }
until_true has_stopped || fail "the container does not end"
ctr tasks rm lives >/dev/null 2>&1
code=$?
((code == 0)) || fail "the container ended with $code: $(<"$work/lives")"
redialled # or the container is removed and its snapshot is not
ctr containers rm lives

# ---- The registry goes and comes -----------------------------------------------------------------------------------

remove_images
collect
# An image that no start was recorded of, and whose large file nobody has read: neither lists nor the kernel's pages help.
mkdir "$work/root-c"
head -c 24M /dev/urandom >"$work/root-c/fresh"
cp "$work/root-b/usr/share/many/f0001" "$work/root-c/"
python3 tests/bench/make_oci.py "$work/image" c "$work/root-c" || fail "image c"
"$flip" convert -f zstd-chunked --no-prefetch "oci:$work/image:c" "docker://$at:c" >/dev/null || fail "convert c"
ctl mount "$at:c" "$work/mnt" || fail "mount after gc"
cmp "$work/root-b/usr/share/many/f0001" "$work/mnt/f0001" || fail "f0001"
stop_registry
cmp "$work/root-b/usr/share/many/f0001" "$work/mnt/f0001" || fail "what is there needs a registry"
[[ $(cat "$work/mnt/fresh" 2>&1 >/dev/null) == *"Input/output error"* ]] || fail "no error without a registry"
start_registry
cmp "$work/root-c/fresh" "$work/mnt/fresh" || fail "no recovery when the registry is back"
ctl unmount "$work/mnt" || fail "unmount"

# ---- Before anybody starts it --------------------------------------------------------------------------------------

mkdir "$work/root-d"
head -c 3M /dev/urandom >"$work/root-d/wanted-later"
python3 tests/bench/make_oci.py "$work/image" d "$work/root-d" || fail "image d"
"$flip" convert -f zstd-chunked --no-prefetch "oci:$work/image:d" "docker://$at:d" >/dev/null || fail "convert d"
"$flip" pull -q --preheat --control "$work/control.sock" --address "$work/containerd.sock" --namespace $namespace "$at:d" >"$work/out" 2>&1 || fail "pull --preheat"
is_preheated() { stat_is reads preheat_bytes ">=" $((3 << 20)) && stat_is reads preheat_chunks == 0; }
until_true is_preheated || fail "only $(stat_of reads preheat_bytes) bytes were preheated"
ctl fsck >"$work/out" || fail "fsck: $(<"$work/out")"
"$flip" setup containerd --undo --config "$work/config.toml" >/dev/null || fail "setup --undo"
grep -q proxy_plugins "$work/config.toml" && fail "setup --undo left something"
echo "images of three kinds ran, b brought $came bytes, 3 kills survived"
