#!/usr/bin/env python3
"""Reads every file below A and below B by many threads in a random order and compares their bytes.

read_all.py A B [THREADS] [SEED]

Prints "N equal, N errors (names of errno)" and ends with 0 when all are equal, 3 when some could not be read and all
others are equal, 1 when one differs: what was read before an error counts, too.
"""
import collections
import concurrent.futures
import errno
import os
import random
import sys

a, b = sys.argv[1:3]
n_threads = int(sys.argv[3]) if len(sys.argv) > 3 else 16
random.seed(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
PIECE = 256 * 1024


def read(name):
    done = 0
    try:
        with open(f"{a}/{name}", "rb", buffering=0) as x, open(f"{b}/{name}", "rb", buffering=0) as y:
            while True:
                got = y.read(PIECE)
                if got != x.read(len(got)) if got else x.read(1):
                    return name, f"differs at or behind byte {done}"
                if not got:
                    return name, None
                done += len(got)
    except OSError as e:
        return name, e.errno


names = []
for folder, _, files in os.walk(a):
    names += [os.path.relpath(f"{folder}/{f}", a) for f in files if os.path.isfile(f"{folder}/{f}")]
random.shuffle(names)
names.sort(key=lambda n: os.path.getsize(f"{a}/{n}") < 1 << 20)  # large ones first, they take longest
with concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
    results = list(pool.map(read, names))
wrong = [(n, r) for n, r in results if isinstance(r, str)]
errors = collections.Counter(errno.errorcode[r] for _, r in results if isinstance(r, int))
for n, r in wrong[:5]:
    print(f"{n}: {r}")
print(f"{sum(r is None for _, r in results)} equal, {sum(errors.values())} errors ({' '.join(sorted(errors))})")
sys.exit(1 if wrong else 3 if errors else 0)
