"""A folder for an image: herd-tree.py DIR MEGABYTES. Files of many sizes, half of each random, so that packing them says
something; always the same ones."""
import os, random, sys

where, megabytes = sys.argv[1], float(sys.argv[2])
random.seed(11)
left = int(megabytes * (1 << 20))
n = 0
while left > 0:
    size = min(left, random.choice([300, 5000, 70000, 400000, 1500000]))
    folder = f"{where}/d{n % 7}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/f{n:05}", "wb") as f:
        for at in range(0, size, 8192):
            f.write((random.randbytes(4096) + b"%08d" % n * 512)[: min(8192, size - at)])
    left -= size
    n += 1
