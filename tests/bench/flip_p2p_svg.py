#!/usr/bin/env python3
"""Curves of flip_p2p.sh's lines: flip_p2p_svg.py OUT.svg < LINES. Left: seconds to the last node; right: bytes out of the
registry, in images. Both axes logarithmic; medians where a case was run more than once."""
import json
import math
import sys
from statistics import median

W, H, LEFT, TOP = 420, 300, 60, 40
COLOURS = {"peers": "#2a78b5", "alone": "#c2562d"}
WORDS = {"peers": "with peers", "alone": "without"}


def series(lines, what, scale):
    out = {}
    for l in lines:
        if what in l["case"]:
            out.setdefault(l["side"], {}).setdefault(l["nodes"], []).append(scale(l))
    return {s: sorted((n, median(v)) for n, v in by.items()) for s, by in out.items()}


def panel(x0, title, unit, data):
    nodes = sorted({n for s in data.values() for n, _ in s})
    values = [v for s in data.values() for _, v in s]
    low, high = math.floor(math.log2(min(values))), math.ceil(math.log2(max(values)))
    high = max(high, low + 1)
    w, h = W - LEFT - 20, H - TOP - 50
    px = lambda n: x0 + LEFT + w * (math.log2(n) / max(1e-9, math.log2(nodes[-1]) if nodes[-1] > 1 else 1))
    py = lambda v: TOP + h * (1 - (math.log2(v) - low) / (high - low))
    out = [f'<text x="{x0 + LEFT}" y="22" font-size="14" font-weight="bold">{title}</text>']
    for k in range(low, high + 1):
        y = TOP + h * (1 - (k - low) / (high - low))
        out.append(f'<line x1="{x0 + LEFT}" y1="{y:.1f}" x2="{x0 + LEFT + w}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{x0 + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{2 ** k:g}</text>')
    for n in nodes:
        out.append(f'<text x="{px(n):.1f}" y="{TOP + h + 18}" text-anchor="middle">{n}</text>')
    out.append(f'<text x="{x0 + LEFT + w / 2}" y="{H - 8}" text-anchor="middle">nodes that start at once ({unit})</text>')
    for side, points in data.items():
        path = " ".join(f"{px(n):.1f},{py(v):.1f}" for n, v in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[side]}" stroke-width="2"/>')
        out += [f'<circle cx="{px(n):.1f}" cy="{py(v):.1f}" r="3" fill="{COLOURS[side]}"/>' for n, v in points]
        n, v = points[-1]
        out.append(f'<text x="{px(n):.1f}" y="{py(v) - 8:.1f}" text-anchor="end" fill="{COLOURS[side]}">{WORDS[side]}</text>')
    return out


lines = [json.loads(l) for l in sys.stdin if l.startswith("{")]
body = panel(0, "Time to the last node", "seconds", series(lines, "last node", lambda l: l["value"]))
body += panel(W, "Out of the registry", "images", series(lines, "out of the registry", lambda l: l["value"] / l["limit"]))
with open(sys.argv[1], "w") as f:
    f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * W}" height="{H}" font-family="sans-serif" font-size="11">'
            f'<rect width="100%" height="100%" fill="#fff"/>{"".join(body)}</svg>\n')
