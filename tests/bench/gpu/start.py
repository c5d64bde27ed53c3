#!/usr/bin/python3
"""How long a start takes, from the program's begin to the first token, beside what reading the file takes: JSON lines.

    start.py [--backend cuda|hip|cpu] [--build DIR] [--shape SHAPE] [--type TYPE] [--keep] DIR

Writes a model of random weights into DIR (qwen3-8b in bf16: 16 GB), and then, with nothing of it in the page cache (needs
root) and with all of it there: reads it by eight threads past the cache, or out of it; starts the engine on it. `limit` is the seconds that reading takes, `share` limit / value: 0.83 is 1.2 times the time of reading.
"""
import argparse
import json
import mmap
import os
import subprocess
import sys
import threading
import time

PIECE, THREADS = 8 << 20, 8


def line(case, value, unit, limit=None):
    print(json.dumps({"bench": "gpu_start", "case": case, "value": round(value, 3), "unit": unit,
                      "limit": limit and round(limit, 3), "share": limit and round(limit / value, 3), "peer": None,
                      "ratio": None}), flush=True)


def read_all(path, direct):
    """Seconds for all of the file by THREADS threads."""
    size = os.path.getsize(path)
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    take, lock, failed = iter(range(0, size, PIECE)), threading.Lock(), []

    def work():
        buf = mmap.mmap(-1, PIECE)
        while True:
            with lock:
                at = next(take, None)
            if at is None:
                return
            try:
                while at < size and (n := os.preadv(fd, [buf], at)) and n % 4096 == 0 and n < PIECE:
                    at += n
            except OSError as e:
                failed.append(e)
                return

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    begin = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    os.close(fd)
    if failed:
        raise failed[0]
    return time.monotonic() - begin


def forget(path):
    """Out of the page cache. False: not possible here."""
    os.sync()
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3\n")
        return True
    except OSError:
        return False


def start(args, path):
    """Seconds to the first figure of ocai-engine bench, which is behind two prompts of eight tokens: random weights have no
    tokenizer that ocai-engine run could use."""
    command = [os.path.join(args.build, "bin/ocai-engine"), "bench", "--backend", args.backend, "--model", path, "-p", "8",
               "-n", "0", "--reps", "1", "--json", "--log-level", "info"]
    begin = time.monotonic()
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.read(1)
    first = time.monotonic() - begin
    err = p.communicate()[1].decode(errors="replace")
    sys.stderr.write(err)
    if p.returncode:
        raise SystemExit(f"start.py: ocai-engine ended with {p.returncode}")
    return first


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--backend", default="cuda")
    a.add_argument("--build", default="build/release")
    a.add_argument("--shape", default="qwen3-8b")
    a.add_argument("--type", default="bf16")
    a.add_argument("--keep", action="store_true", help="leave the model for the next time")
    a.add_argument("dir")
    args = a.parse_args()
    path = os.path.join(args.dir, f"{args.shape}-{args.type}.gguf")
    try:
        if not os.path.exists(path):
            begin = time.monotonic()
            subprocess.run([os.path.join(args.build, "bin/ocai-engine"), "quantize", "--random", args.shape, "--type", args.type,
                            "--output", path], check=True, stdout=sys.stderr)
            sys.stderr.write(f"written in {time.monotonic() - begin:.1f} s\n")
        size = os.path.getsize(path)
        name = f"{args.shape} {args.type}"
        can_forget = forget(path)
        if can_forget:
            disk = read_all(path, True)
            line(f"{name} disk, direct", size / disk / 1e9, "GB/s")
            forget(path)
            line(f"{name} start, cold", start(args, path), "s", disk)
            forget(path)
            line(f"{name} disk, through the cache", size / read_all(path, False) / 1e9, "GB/s")
        else:
            sys.stderr.write("start.py: the page cache cannot be emptied here: no cold start\n")
            read_all(path, False)
        cache = read_all(path, False)
        line(f"{name} page cache", size / cache / 1e9, "GB/s")
        line(f"{name} start, warm", start(args, path), "s", cache)
        line(f"{name} start, warm again", start(args, path), "s", cache)
    finally:
        if not args.keep and os.path.exists(path):
            os.unlink(path)


main()
