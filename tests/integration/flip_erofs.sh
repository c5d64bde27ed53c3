#!/bin/bash
# A real tree becomes a metadata image and objects by digest, the kernel mounts the image, overlayfs finds the contents
# in a data-only layer: what comes out is the tree, byte by byte and stat by stat. Once from the file, once by a loop
# device; two layers with whiteouts and an opaque directory; objects that arrive after the mount; what the format's own
# tools say.
set -u
cd "$(dirname "$0")/../.."
tool=$(realpath "${BUILD_DIR:-build/release}")/tests/tools/flip_tree
[[ -x $tool ]] || { echo "no $tool"; exit 77; }
((EUID == 0)) || { echo "not root"; exit 77; }
if [[ ${FLIP_EROFS_INSIDE:-} != yes ]]; then
	unshare -m --propagation private true 2>/dev/null || { echo "no mount namespaces"; exit 77; }
	exec env FLIP_EROFS_INSIDE=yes unshare -m --propagation private bash "$0"
fi
work=$(mktemp -d "${TMPDIR:-/var/tmp}/flip-erofs-XXXXXX")
cleanup() {
	local m
	for m in "$work"/m* "$work"/e*; do mountpoint -q "$m" && umount -l "$m"; done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
fail() { echo "FAILED: $*"; exit 1; }

kernel=" $("$tool" probe "$work")"
[[ $kernel == *" erofs "* ]] || { echo "this kernel has no EROFS:$kernel"; exit 77; }
[[ $kernel == *" overlay_data_only "* ]] || { echo "this kernel has no data-only layers:$kernel"; exit 77; }
[[ -z $(ls "$work") ]] || fail "the probe left $(ls "$work")"

# A tree of real files, and of what real files rarely are.
a=$work/a b=$work/b objects=$work/objects
mkdir -p "$a"/{dev,odd/deep,many,etc} "$objects"
cp -a /etc/. "$a/etc/" 2>/dev/null
for d in /usr/share/perl5 /usr/share/zoneinfo /usr/share/bash-completion; do
	[[ -d $d ]] && mkdir -p "$a$d" && cp -a "$d/." "$a$d/"
done
mknod "$a/dev/null" c 1 3
mknod "$a/dev/sda" b 8 0
mknod "$a/dev/odd" c 511 262144
mkfifo "$a/dev/fifo"
python3 - "$a/odd" <<'END' || fail "cannot make the odd files"
import os, socket, struct, sys
os.chdir(sys.argv[1])
def write(name, data, ns=None):
    with open(name, "wb") as f: f.write(data)
    if ns is not None: os.utime(name, ns=(ns, ns))
for name in (b"!", b"-", b".a", b"...", b"\xff\xfe", b"a b\n", b"n" * 255, "日本語".encode(), b"with:colon,comma"):
    write(name, name)
write("empty", b"")
write("nano", b"x", 1234567890123456789)
write("old", b"x", -86400 * 10**9 - 1)
write("future", b"x", 4400000000 * 10**9 + 5)
with open("sparse", "wb") as f:
    f.truncate(10 << 20); f.seek(5 << 20); f.write(b"island")
write("large", os.urandom(3 << 20))
write("same1", b"the same\n"); write("same2", b"the same\n")
write("first", b"linked\n"); os.link("first", "second"); os.link("first", "deep/third")
os.symlink("t" * 4000, "long-link"); os.symlink("../etc", "link")
write("caps", b"#!\n"); os.chmod("caps", 0o755)
os.setxattr("caps", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
for i in range(20): os.setxattr("caps", f"user.attribute{i}", b"v" * i)
os.setxattr("nano", "trusted.note", b"\0\1\2"); os.setxattr("deep", "user.on-a-directory", b"y" * 1000)
write("acl", b"acl\n"); os.chmod("acl", 0o640)
# user::rw-, user:1234:r--, group::r--, mask::r--, other::---
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in (
    (1, 6, 2**32 - 1), (2, 4, 1234), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1)))
try: os.setxattr("acl", "system.posix_acl_access", acl)
except OSError as e: print("no ACLs here:", e)
s = socket.socket(socket.AF_UNIX); s.bind("socket")
os.chown("nano", 100000, 4000000000); os.chmod("same2", 0o4711); os.chmod("deep", 0o3777)
for i in range(5000): write(f"../many/file-{i:x}.{i % 7}", b"%d" % (i % 50))
END

"$tool" image "$a" "$work/a.erofs" "$objects" || fail "no image"
"$tool" image "$a" "$work/again.erofs" "$objects" || fail "no second image"
cmp "$work/a.erofs" "$work/again.erofs" || fail "the same tree gave other bytes"
if command -v fsck.erofs >/dev/null; then
	fsck.erofs "$work/a.erofs" >"$work/fsck" 2>&1 || fail "fsck.erofs: $(<"$work/fsck")"
	n=$(dump.erofs -s "$work/a.erofs" | sed -n 's/.*inode count: *//p')
	files=$(find "$a" -printf '%i\n' | sort -u | wc -l)
	[[ $n == "$files" ]] || fail "dump.erofs sees $n inodes, there are $files"
fi

# overlay DIR LOWER [OPTIONS]: with the objects below, as the node mounts it. (An upper layer's root would hide the
# times of the lower's.)
overlay() {
	mkdir -p "$1"
	mount -t overlay overlay -o "lowerdir=$2::$objects,metacopy=on,redirect_dir=on${3:-}" "$1" || fail "overlay of $2"
}

for how in file loop; do
	[[ $how == file && $kernel != *" erofs_file "* ]] && continue
	if [[ $how == loop && ! -e /dev/loop-control ]]; then
		echo "no loop devices: not tested"
		continue
	fi
	mkdir -p "$work/e-$how"
	"$tool" mount "$work/a.erofs" "$work/e-$how" $([[ $how == loop ]] && echo loop) || fail "mount by $how"
	overlay "$work/m-$how" "$work/e-$how"
	"$tool" compare "$a" "$work/m-$how" || fail "the tree came out differently (by $how)"
done
"$tool" compare "$work/m-file" "$a/etc" >/dev/null && fail "the comparison sees no difference"

# A /dev that is not the kernel's own, as in many containers: the device's node is made for as long as it takes.
if [[ -e /dev/loop-control ]]; then
	n_loops() { cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -c "^$work/"; }
	before=$(n_loops)
	mkdir "$work/e-dev"
	(
		mount -t tmpfs dev /dev && mknod /dev/loop-control c 10 237 &&
			"$tool" mount "$work/a.erofs" "$work/e-dev" loop && [[ -z $(ls -A /dev | grep -v loop-control) ]]
	)
	rc=$?
	umount /dev || fail "no /dev of our own"
	((rc == 0)) || fail "mount by loop without nodes in /dev"
	"$tool" unmount "$work/e-dev" || fail "unmount of a loop mount"
	for _ in {1..100}; do # the device goes with the mount; the other mount's stays
		(($(n_loops) == before)) && break
		sleep 0.05
	done
	(($(n_loops) == before)) || fail "the loop device stayed"
fi

# An ACL says who may read, also through both file systems.
if [[ -n $(python3 -c 'import os,sys; print(os.getxattr(sys.argv[1], "system.posix_acl_access"))' "$a/odd/acl" 2>/dev/null) ]] &&
	command -v setpriv >/dev/null; then
	chmod 755 "$work"
	setpriv --reuid 1234 --regid 1234 --clear-groups cat "$work/m-file/odd/acl" >/dev/null || fail "the ACL is not honoured"
	setpriv --reuid 1235 --regid 1235 --clear-groups cat "$work/m-file/odd/acl" >/dev/null 2>&1 && fail "an ACL lets all in"
fi

# Written to, as a container would: copied up from the object.
umount "$work/m-file"
mkdir "$work/up" "$work/work"
overlay "$work/m-file" "$work/e-file" ",upperdir=$work/up,workdir=$work/work"
echo more >>"$work/m-file/odd/same1" || fail "cannot write"
[[ $(<"$work/m-file/odd/same1") == $'the same\nmore' && $(<"$work/m-file/odd/same2") == 'the same' ]] || fail "copy up"
chmod 600 "$work/m-file/odd/nano" && [[ $(<"$work/m-file/odd/nano") == x ]] || fail "chmod"
rm "$work/m-file/odd/first" && [[ $(<"$work/m-file/odd/second") == linked ]] || fail "rm"

# A second layer that hides, replaces and adds; the objects of it come after the mount.
mkdir -p "$b"/{odd/deep,many,new} "$work/later"
mknod "$b/odd/nano" c 0 0
mknod "$b/odd/not-there" c 0 0
echo replaced >"$b/odd/old"
echo alone >"$b/many/only"
echo new >"$b/new/file"
python3 -c 'import os, sys; os.setxattr(sys.argv[1], "trusted.overlay.opaque", b"y")' "$b/many" || fail "no trusted attributes"
"$tool" image "$b" "$work/b.erofs" "$work/later" || fail "no image of the second layer"
mkdir "$work/e-b" "$work/merged"
"$tool" mount "$work/b.erofs" "$work/e-b" || fail "mount of the second layer"
overlay "$work/m-two" "$work/e-b:$work/e-file"
[[ $(ls "$work/m-two/many") == only && ! -e $work/m-two/odd/nano && -e $work/m-two/odd/large ]] || fail "whiteouts, opaque"
cat "$work/m-two/new/file" >/dev/null 2>&1 && fail "read what is not there"
cp -a "$work/later/." "$objects/"
[[ $(cat "$work/m-two/new/file" "$work/m-two/odd/old" "$work/m-two/many/only") == $'new\nreplaced\nalone' ]] ||
	fail "objects that came later"
# The same two layers, unpacked, over ext4 (or what is here).
mkdir "$work/m-plain"
mount -t overlay overlay -o "lowerdir=$b:$a" "$work/m-plain" || fail "overlay of folders"
"$tool" compare "$work/m-plain" "$work/m-two" || fail "two layers came out differently"

# Busy, not busy, not mounted.
"$tool" mounted "$work/e-b" || fail "a mount is not seen"
"$tool" mounted "$work/merged" && fail "a folder is taken for a mount"
"$tool" mounted "$work/nowhere" && fail "nothing is taken for a mount"
"$tool" unmount "$work/e-b" || fail "an overlay holds the mount, not its place"
"$tool" unmount "$work/e-b" || fail "what is not mounted cannot be unmounted"
"$tool" unmount "$work/nowhere" || fail "what is not there cannot be unmounted"
(cd "$work/m-two" && "$tool" unmount "$work/m-two" 2>/dev/null) && fail "unmounted what is busy"
(cd "$work/m-two" && "$tool" unmount "$work/m-two" lazy && [[ -e new/file ]]) || fail "a lazy unmount"
"$tool" mounted "$work/m-two" && fail "still mounted"

# An image on a file system whose files the kernel does not mount directly.
mkdir "$work/m-tmpfs" "$work/e-tmpfs"
mount -t tmpfs tmpfs "$work/m-tmpfs" && cp "$work/a.erofs" "$work/m-tmpfs/" || fail "no tmpfs"
if [[ -e /dev/loop-control ]]; then
	"$tool" mount "$work/m-tmpfs/a.erofs" "$work/e-tmpfs" || fail "an image on tmpfs"
	[[ -e $work/e-tmpfs/etc ]] || fail "an image on tmpfs is empty"
fi

# What is no image.
"$tool" mount "$work/a" "$work/e-b" 2>/dev/null && fail "mounted a folder"
head -c 4096 /dev/zero >"$work/zero"
"$tool" mount "$work/zero" "$work/e-b" 2>"$work/err" && fail "mounted zeros"
grep -q "$work/zero" "$work/err" || fail "$(<"$work/err")"
echo "kernel:$kernel"
