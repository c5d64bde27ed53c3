#!/bin/bash
# Ctrl-C and SIGTERM while an image is unpacked to be traced or slimmed, and while packages are cut: the program ends and
# nothing stays in TMPDIR, no package database either; nothing stands under the final name or beside it.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

slim_install "$work/full" python3
TMPDIR=$work "$SLIMTRACE" slim -q --root "$work/full" --keep / --keep '/**' --set rpmdb=keep --level 1 --out "oci:$work/img:full" >"$work/log" 2>&1 ||
	fail "the image: $(tail -n 1 "$work/log")"

# By Python, since a shell's background commands ignore SIGINT.
python3 - "$SLIMTRACE" "$REPO" "$work" <<'PY' || fail "something stays behind"
import glob, os, signal, subprocess, sys, time
slimtrace, repo, work = sys.argv[1:]
tmp = work + "/tmp"
os.mkdir(tmp)

def names(path):
    """What a file or a folder is made of, to tell half of it from the whole."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sorted(os.path.relpath(os.path.join(d, n), path) for d, ds, fs in os.walk(path) for n in ds + fs)

def is_whole():
    """The signal may come between the last step, a rename, and the end of the program."""
    return not os.path.exists(work + "/out") or (os.path.exists(work + "/whole") and names(work + "/out") == names(work + "/whole"))

def interrupt(what, wanted, args, sig, delay):
    """Starts it, waits until `wanted` is in TMPDIR, then `delay`; returns whether the signal ended it."""
    p = subprocess.Popen([slimtrace] + args, env=dict(os.environ, TMPDIR=tmp), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True)
    seen = []
    while p.poll() is None and not seen:
        seen = glob.glob(f"{tmp}/**/{wanted}", recursive=True)
        time.sleep(0.0005)
    time.sleep(delay)
    p.send_signal(sig)
    _, text = p.communicate(timeout=300)
    left = os.listdir(tmp)
    assert not left, f"{what}: {sig.name} after {delay} s left {left} ({p.returncode}, {text})"
    assert p.returncode == 0 or is_whole(), f"{what}: {sig.name} after {delay} s left what is not whole"
    beside = glob.glob(work + "/out.*")
    assert not beside, f"{what}: {sig.name} after {delay} s left {beside}"
    # while an image is read: by words; packages: by the signal; a command that is traced already: its exit code
    ended = p.returncode == -sig or (p.returncode == 1 and ("interrupted" in text or "canceled" in text))
    in_command = "KeyboardInterrupt" in text or "Fatal Python error" in text # Python was starting and tells of it its own way
    assert ended or in_command or p.returncode in (0, 128 + sig), f"{what}: {p.returncode} {text}"
    return ended

def check(what, wanted, args, delays):
    n = 0
    if any("/out" in a for a in args):
        subprocess.run([slimtrace] + [a.replace(work + "/out", work + "/whole") for a in args], check=True, stdout=subprocess.DEVNULL)
    # On a machine that stands still the program may have come to its end before it is seen to have begun: then more of them.
    for i, delay in enumerate(delays + [0] * 40):
        if i >= len(delays) and n >= 2:
            break
        n += interrupt(what, wanted, args, (signal.SIGINT, signal.SIGTERM)[i % 2], delay)
        subprocess.run(["rm", "-rf"] + glob.glob(work + "/out*"), check=True)
    subprocess.run(["rm", "-rf", work + "/whole"], check=True)
    print(f"{what}: {n} of {i if i >= len(delays) else len(delays)} times interrupted")
    assert n >= 2, f"{what}: came too late"

image = "oci:" + work + "/img:full"
check("trace", "slimtrace-image-*", ["trace", "-q", "--image", image, "-o", work + "/trace", "--", "/usr/bin/python3", "-c", ""],
    [0, 0, 0.05, 0.1, 0.15, 0.2, 0.3])
check("slim", "slimtrace-*", ["slim", "-q", "--image", image, "--run", "python3 -c ''", "--out", "oci:" + work + "/out"],
    [0, 0, 0.05, 0.1])
check("cut, reading a database", "rpmdb-*", ["cut", "--root", work + "/full", "--out", "tar:" + work + "/out", "python3"],
    [0] * 4)
check("cut, an image", "slimtrace-*", ["cut", "--repo", repo, "--out", "oci:" + work + "/out", "/usr/bin/bash"],
    [0, 0.02, 0.05, 0.1, 0.15, 0.2])
check("cut, a tar", "slimtrace-*", ["cut", "--repo", repo, "--out", "tar:" + work + "/out", "/usr/bin/bash"], [0, 0.02, 0.05, 0.1])
check("cut, writing a database", "squeezed", ["cut", "--repo", repo, "--out", work + "/out", "/usr/bin/bash"], [0] * 6)
PY
exit 0
