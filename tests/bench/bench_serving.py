"""Serving under load, over HTTP: clients that share a prompt, speculation that does not hit.
Started by bench_serving.sh; prints one JSON object a line. Servers that are compared run at the same time and are
asked in turns: an idle one uses no processor, and a busy moment of the machine falls on both."""
import os
import random
import statistics
import sys
import threading
import time

sys.dont_write_bytecode = True
import sides

engine, model, mini, threads, shape = sys.argv[1:6]
rounds = int(os.environ.get("BENCH_ROUNDS", "3"))
CLIENTS, SHARED, OWN, OUT, VOCAB = 16, 1000, 32, 128, 151000


def say(case, value, unit, **more):
    sides.say("serving", case, value, unit, **more)


def ours(path, *options):
    return sides.Server(engine, path, threads, *options)


def shared_prompt(server, seed):
    """CLIENTS at once: first tokens' median, and generated tokens per second over the whole round."""
    rng = random.Random(seed)
    common = [rng.randrange(1000, VOCAB) for _ in range(SHARED)]
    results = []

    def ask(n):
        own = random.Random(seed * 1000 + n + time.monotonic_ns())
        results.append(server.stream(common + [own.randrange(1000, VOCAB) for _ in range(OWN)], OUT))

    begin = time.monotonic()
    clients = [threading.Thread(target=ask, args=(n,)) for n in range(CLIENTS)]
    for t in clients:
        t.start()
    for t in clients:
        t.join()
    seconds = time.monotonic() - begin
    return statistics.median(first for first, _ in results), CLIENTS * OUT / seconds


def clients_with_one_prompt():
    servers = [ours(model, "--no-speculation")]
    if sides.LLAMA_SERVER:
        servers.append(sides.Server(engine, model, threads, is_peer=True, slots=CLIENTS))
    figures = {}
    for i in range(rounds):
        for n, server in enumerate(servers):
            for state in ("cold", "warm"):
                first, rate = shared_prompt(server, seed=i + 1)
                figures.setdefault((state, "first token, median", "s"), [[], []])[n].append(first)
                figures.setdefault((state, "all tokens", "tok/s"), [[], []])[n].append(rate)
    for server in servers:
        server.stop()
    for (state, what, unit), (mine, theirs) in figures.items():
        say(f"{shape}, 16 clients, {SHARED} shared + {OWN} own tokens, {OUT} out, {state}: {what}", statistics.median(mine),
            unit, peer=statistics.median(theirs) if theirs else None, less=unit == "s")


def decode_rate(server, prompts, n_out, temperature):
    seconds = [server.stream(ids, n_out, temperature)[1] for ids in prompts]
    return (n_out - 1) * len(prompts) / sum(seconds)


def in_turns(case, base, other, prompts, n_out, temperature, asked):
    """Both servers answer the same prompts in turns; the median ratio other/base says what the option costs. asked: what it
    should be at least."""
    ratios, rates = [], []
    for i in range(rounds * 4):
        pair = [decode_rate(s, prompts, n_out, temperature) for s in ((base, other) if i % 2 else (other, base))]
        a, b = pair if i % 2 else pair[::-1]
        ratios.append(b / a)
        rates.append(b)
    say(case, statistics.median(rates), "tok/s")
    say(case + ", relative", statistics.median(ratios), "x", limit=asked)


def speculation_cost():
    rng = random.Random(7)
    ids = [[rng.randrange(300, 11000) for _ in range(40)] for _ in range(3)]
    with ours(mini, "--no-speculation") as plain, ours(mini) as drafts:
        # Sampled hot: hardly anything repeats, what does goes on differently.
        in_turns("ocai-mini decode with speculation that does not hit", plain, drafts, ids, 200, 1.3, 0.98)
        # Greedy: a small model left alone repeats itself.
        in_turns("ocai-mini decode with speculation, greedy", plain, drafts, ids, 200, 0.0, None)


clients_with_one_prompt()
speculation_cost()
