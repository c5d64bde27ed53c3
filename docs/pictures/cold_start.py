#!/usr/bin/env python3
"""cold-start.svg: bars of the rows of docs/lazy-images.md that it names, so that picture and table cannot differ.

    docs/pictures/cold_start.py [>docs/pictures/cold-start.svg]
"""

import os
import re

ROWS = [  # begins so in the table; caption; unit; reads this out of a cell
    ("torch image, 1 Gbit/s: pull and run", "pull and run to the output, 1 Gbit/s", "s", r"([0-9.]+) s"),
    ("the same, 200 Mbit/s", "the same, 200 Mbit/s", "s", r"([0-9.]+) s"),
    ("bytes over the link before the output", "bytes over the link before the output, 1 Gbit/s", "MB", r"([0-9,]+) MB"),
]
SIDES = [("full pull, overlayfs", "#b9b9b9"), ("stargz-snapshotter 0.12", "#8fb0d9"), ("flip", "#2f5f9e")]
LEFT, WIDTH, BAR = 190, 560, 20

table = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lazy-images.md")
lines = open(table, encoding="utf-8").read().split("\n")
out, y = [], 34
for begins, caption, unit, pattern in ROWS:
    row = next(l for l in lines if l.startswith("| " + begins))
    values = [float(re.search(pattern, cell).group(1).replace(",", "")) for cell in row.split("|")[2:5]]
    out.append(f'<text x="10" y="{y + 10}" font-weight="bold">{caption}</text>')
    y += 22
    for (name, colour), v in zip(SIDES, values):
        w = WIDTH * v / max(values)
        out.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{name}</text><rect x="{LEFT}" y="{y}" width="{w:.0f}" height="{BAR - 4}" fill="{colour}"/>'
                   f'<text x="{LEFT + w + 6:.0f}" y="{y + 14}">{v:g} {unit}</text>')
        y += BAR
    y += 16
print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 {y}" font-family="sans-serif" font-size="13" fill="#111">')
print("<title>Cold start of a PyTorch image of 1.36 GB (import torch)</title>")
print(f'<rect width="840" height="{y}" fill="#fff"/>')
print('<text x="10" y="20">Cold start of a PyTorch image, 1.36 GB in 23,500 files: import torch. Less is better.</text>')
print("\n".join(out) + "\n</svg>")
