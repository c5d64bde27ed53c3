#!/usr/bin/env python3
"""A cluster of N nodes that start one image at the same moment, simulated: flip_p2p_sim.py [--nodes N] [--mb M] [...].

Discrete events, one for each transfer of a group of pieces over a link. What is simulated is what imgtools/flip/peer does:
rendezvous owners for groups, owners that fetch from the registry and relay what arrives, at most UPLOADS answers at once,
those who come when it is busy sent on to one who was given the group before, or back a moment later. Links are
store-and-forward for a group and shared in turn; owners and holders serve first come, first served.

The constants are assumptions: what a node needs for a group beside the bytes, and for its start (docs/p2p.md has what
tests/bench/flip_p2p.sh measured beside them). Times are for all of the listed bytes of the image at every node; DADI and FaaSNet say theirs for containers that run,
so --need is what a start reads of it.

Prints one JSON line: seconds until half, 95 % and all nodes have it; bytes out of the registry, in images."""
import argparse
import hashlib
import heapq
import json
import random

p = argparse.ArgumentParser()
p.add_argument("--nodes", type=int, default=1000)
p.add_argument("--mb", type=float, default=90, help="packed megabytes that a start needs (90: import torch)")
p.add_argument("--group", type=int, default=256, help="KiB of a group")
p.add_argument("--link", type=float, default=1000, help="Mbit/s of each node's link, each way")
p.add_argument("--registry", type=float, default=1000, help="Mbit/s of the registry's")
p.add_argument("--uploads", type=int, default=32)
p.add_argument("--rtt", type=float, default=0.5, help="milliseconds")
p.add_argument("--ask", type=float, default=1.0, help="milliseconds that a question costs at either side")
p.add_argument("--start", type=float, default=0.25, help="seconds of a start before the first piece is asked for")
p.add_argument("--window", type=int, default=32, help="questions of one node at once")
p.add_argument("--owners", type=int, default=0, help="0: all nodes")
p.add_argument("--seed", type=int, default=1)
a = p.parse_args()
random.seed(a.seed)

N, G = a.nodes, max(1, int(a.mb * 1e6 / (a.group * 1024)))
size = a.mb * 1e6 / G
t_link, t_reg = size * 8 / (a.link * 1e6), size * 8 / (a.registry * 1e6)
rtt, ask = a.rtt / 1e3, a.ask / 1e3
n_owners = min(N, a.owners or N)


def owner(g):  # any even choice will do: who it is does not matter here
    return int.from_bytes(hashlib.sha256(b"%d" % g).digest()[:8], "big") % n_owners


events, seq = [], 0


def at(t, fn, *args):
    global seq
    seq += 1
    heapq.heappush(events, (t, seq, fn, args))


up_free, down_free = [0.0] * N, [0.0] * N  # when a link is free again
reg_free, reg_bytes = 0.0, 0.0
busy = [0] * N
has = [bytearray(G) for _ in range(N)]  # 0 no, 1 under way, 2 there
left = [G] * N
todo = [None] * N
waiting = {}  # (owner, group) -> who waits for its arrival there
holders = {}  # group -> the last that were given it, as its owner knows
finished = []
retries = 0


def begin(node):
    order = list(range(G))  # all play the same list
    todo[node] = iter(order)
    for _ in range(a.window):
        next_piece(node)


def next_piece(node):
    if todo[node] is None:  # an owner that has not begun itself
        return
    for g in todo[node]:
        if has[node][g] == 0:
            has[node][g] = 1
            o = owner(g)
            if o == node:
                at(now, from_registry, node, g)
            else:
                at(now + ask + rtt / 2, asked, o, node, g)
            return


def from_registry(o, g):
    global reg_free, reg_bytes
    reg_bytes += size
    begin_t = max(now + rtt, reg_free)
    reg_free = begin_t + t_reg
    down = max(begin_t, down_free[o]) + t_link
    down_free[o] = down
    at(max(reg_free, down), arrived, o, g)


def asked(o, node, g, hops=0):
    global retries
    if busy[o] >= a.uploads:
        known = holders.get(g, ())
        retries += 1
        if known and (hops + 1) % 3:
            at(now + rtt + ask, asked, random.choice(known), node, g, hops + 1)
        else:
            at(now + rtt + 0.1 * 2 ** min(hops // 3, 4) + random.random() * 0.1, asked, owner(g), node, g, hops + 1)
        return
    busy[o] += 1
    if has[o][g] == 2:
        send(o, node, g)
    else:
        waiting.setdefault((o, g), []).append(node)
        if has[o][g] == 0 and o == owner(g):
            has[o][g] = 1
            from_registry(o, g)


def send(o, node, g):
    begin_t = max(now, up_free[o])
    up_free[o] = begin_t + t_link
    down = max(begin_t, down_free[node]) + t_link
    down_free[node] = down
    done = max(up_free[o], down) + rtt / 2 + ask
    at(up_free[o], gave, o, node, g)
    at(done, arrived, node, g)


def gave(o, node, g):
    busy[o] -= 1


def arrived(node, g):
    if has[node][g] == 2:
        return
    has[node][g] = 2
    left[node] -= 1
    known = holders.setdefault(g, [])
    if node != owner(g):
        known.append(node)
        if len(known) > 8:
            known.pop(0)
    for other in waiting.pop((node, g), ()):
        send(node, other, g)
    if left[node] == 0:
        finished.append(now)
    else:
        next_piece(node)


now = 0.0
for node in range(N):
    at(a.start + random.random() * 0.05, begin, node)
n_events = 0
while events:
    now, _, fn, args = heapq.heappop(events)
    fn(*args)
    n_events += 1
finished.sort()
assert len(finished) == N, f"{len(finished)} of {N} have it"
print(json.dumps({"bench": "flip_p2p_sim", "case": f"{N} nodes, {a.mb:g} MB, links of {a.link:g} Mbit/s, registry {a.registry:g}", "nodes": N,
                  "half_s": round(finished[N // 2], 2), "most_s": round(finished[int(N * 0.95)], 2), "value": round(finished[-1], 2),
                  "unit": "s", "limit": round(a.start + size * G * 8 / (min(a.link, a.registry) * 1e6), 2),
                  "out_of_registry": round(reg_bytes / (a.mb * 1e6), 3), "sent_on": retries, "events": n_events}))
