"""Two roots compared: names, types, modes, owners, times to the nanosecond, devices, links, xattrs, contents."""
import hashlib, os, stat, sys


def tree(root):
    out, inodes = {}, {}
    for d, dirs, files in os.walk(os.fsencode(root)):
        for name in [b"."] + dirs + files if d == os.fsencode(root) else dirs + files:
            path = os.path.join(d, name)
            s = os.lstat(path)
            kind = stat.S_IFMT(s.st_mode)
            rel = os.path.relpath(path, os.fsencode(root))
            what = [s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, s.st_rdev,
                    sorted((n, os.getxattr(path, n, follow_symlinks=False)) for n in os.listxattr(path, follow_symlinks=False))]
            if kind == stat.S_IFREG:
                with open(path, "rb") as f:
                    what += [s.st_size, hashlib.sha256(f.read()).hexdigest()]
                inodes.setdefault(s.st_ino, []).append(rel)
            if kind == stat.S_IFLNK:
                what += [os.readlink(path)]
            out[rel] = what
    return out, sorted(sorted(v) for v in inodes.values() if len(v) > 1)


a, b = tree(sys.argv[1]), tree(sys.argv[2])
for path in sorted(set(a[0]) | set(b[0])):
    if path not in a[0] or path not in b[0] or a[0][path] != b[0][path]:
        print(path, a[0].get(path, "absent"), b[0].get(path, "absent"))
if a != b:
    sys.exit("the trees differ")
print(len(a[0]), "paths")
