"""What bench_engine.sh and bench_serving.sh leave out of the comparison with llama.cpp: long contexts, batches, a core that
another process uses, the start, memory, deterministic mode, the prompt cache on disk. Started by bench_targets.sh; prints one
JSON object a line. The two sides run in turns, on one file."""
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import sides

engine, folder, threads, shape, wanted = sys.argv[1:6]
threads = int(threads)
rounds = int(os.environ.get("BENCH_ROUNDS", "3"))
SLOTS, CTX, VOCAB = 16, 1280, 151000
BATCHES = (16, 32)


def file_of(dtype):
    return os.path.join(folder, f"{shape}-{dtype}.gguf")


def say(case, value, unit, **more):
    sides.say("targets", f"{shape} {case}", value, unit, **more)


def middle(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def prompt(n, seed):
    rng = random.Random(seed)
    return [rng.randrange(1000, VOCAB) for _ in range(n)]


def depth():
    """One sequence behind 4,096 tokens; the peer both ways, and its better one counts."""
    mine, peer, limit = [], [], None
    for _ in range(rounds):
        other = [sides.theirs(file_of("q8_0"), threads, "-p", "0", "-n", "32", "-d", "4096", "-fa", fa) for fa in ("auto", "off")]
        peer.append(None if other[0] is None else max(other))
        line = sides.ours(engine, file_of("q8_0"), threads, "-p", "0", "-n", "32", "-d", "4096", "--reps", "1")["tg32 d4096"]
        mine.append(line["value"])
        limit = max(limit or 0, line["limit"])
    say("q8_0 decode behind 4096 tokens", middle(mine), "tok/s", limit=limit, peer=middle(peer))


def batch():
    for dtype in ("q8_0", "q4_0"):
        peer, mine, limit = {n: [] for n in BATCHES}, {n: [] for n in BATCHES}, {}
        for _ in range(rounds):
            other = sides.theirs_batched(file_of(dtype), threads, 128, 32, BATCHES)
            for n in BATCHES:
                line = sides.ours(engine, file_of(dtype), threads, "-p", "0", "-d", "128", "-n", "32", "-b", str(n), "--reps", "1")
                line = line[f"tg32 d128 batch {n}"]
                mine[n].append(line["value"])
                peer[n].append(other.get(n))
                limit[n] = max(limit.get(n, 0), line["limit"])
        for n in BATCHES:
            say(f"{dtype} decode of {n} sequences behind 128 tokens", middle(mine[n]), "tok/s", limit=limit[n], peer=middle(peer[n]))


def stolen():
    """The same decoding alone and beside a process that never sleeps, on one of the cores that are used."""
    def both(n_peer):
        line = sides.ours(engine, file_of("q8_0"), threads, "-p", "0", "-n", "64", "--reps", "3")["tg64"]
        return line["value"], sides.theirs(file_of("q8_0"), threads, "-p", "0", "-n", str(n_peer), "--no-warmup")

    quiet, busy = [], []
    for _ in range(rounds):
        quiet.append(both(32))
        core = max(os.sched_getaffinity(0))
        with subprocess.Popen([sys.executable, "-c", "while True: pass"],
                              preexec_fn=lambda core=core: os.sched_setaffinity(0, {core})) as thief:
            try:
                busy.append(both(8))  # seconds for a token
            finally:
                thief.kill()
    mine, peer = middle(b for b, _ in busy), middle(b for _, b in busy)
    say("q8_0 decode, one core busy with another process", mine, "tok/s", peer=peer)
    say("q8_0 decode, one core busy, share of the quiet speed", middle(b / q for (q, _), (b, _) in zip(quiet, busy)), "x",
        limit=(threads - 0.5) / threads, peer=peer and middle(b / q for (_, q), (_, b) in zip(quiet, busy)))


def first_token(server):
    """Seconds from the start of the program."""
    server.stream(prompt(4, 1), 1)
    return time.monotonic() - server.begin


def start():
    for dtype in ("q8_0", "q4_0", "bf16"):
        ready, first, peer = [], [], []
        for _ in range(rounds):
            with sides.Server(engine, file_of(dtype), threads) as server:
                ready.append(server.ready_s)
                first.append(first_token(server))
            if sides.LLAMA_SERVER:
                with sides.Server(engine, file_of(dtype), threads, is_peer=True) as server:
                    peer.append(first_token(server))
        say(f"{dtype} start until /health answers", middle(ready), "s", less=True)
        say(f"{dtype} start to first token", middle(first), "s", peer=middle(peer), less=True)


def resident():
    """Idle after the start, with room for 16 sequences of 1,280 tokens; then after use, and after the cache was flushed."""
    weights = os.path.getsize(file_of("q8_0"))
    peer = None
    if sides.LLAMA_SERVER:
        with sides.Server(engine, file_of("q8_0"), threads, is_peer=True, slots=SLOTS, ctx=CTX) as server:
            peer = (server.resident_bytes() - weights) / 1e6
    with sides.Server(engine, file_of("q8_0"), threads, "--max-running", str(SLOTS), "--kv-bytes", str(3 << 30)) as server:
        say("q8_0 resident beyond the weights, 16 slots of 1280 tokens, idle", (server.resident_bytes() - weights) / 1e6, "MB",
            peer=peer, less=True, digits=1)
        for seed in range(SLOTS):
            server.stream(prompt(500, seed), 4)
        say("q8_0 resident beyond the weights after 16 prompts of 500", (server.resident_bytes() - weights) / 1e6, "MB", digits=1)
        server.request("POST", "/flush_cache")
        say("q8_0 resident beyond the weights after /flush_cache", (server.resident_bytes() - weights) / 1e6, "MB", digits=1)


def deterministic():
    cases = (("prefill of 512", "pp512", ("-p", "512", "-n", "0")), ("decode", "tg64", ("-p", "0", "-n", "64")),
             ("decode of 16 sequences", "tg32 d128 batch 16", ("-p", "0", "-d", "128", "-n", "32", "-b", "16")))
    for dtype in ("q8_0", "bf16"):
        for name, key, options in cases:
            ratios = []
            for _ in range(rounds):
                rates = [sides.ours(engine, file_of(dtype), threads, "--reps", "3", *options, *more)[key]["value"]
                         for more in ((), ("--deterministic",))]
                ratios.append(rates[1] / rates[0])
            say(f"{dtype} {name}, deterministic, relative", middle(ratios), "x", limit=0.9)


def disk():
    """A prompt of 1,000 tokens after a restart: read from the cache folder, or computed."""
    read, computed = [], []
    for i in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            with sides.Server(engine, file_of("q8_0"), threads, "--cache-dir", cache) as server:
                server.stream(prompt(1000, i), 1)
                server.stream(prompt(1000, i + 100), 1)
            with sides.Server(engine, file_of("q8_0"), threads, "--cache-dir", cache) as server:
                server.stream(prompt(8, 50), 1)
                computed.append(server.stream(prompt(1000, i + 200), 1)[0])
                read.append(server.stream(prompt(1000, i), 1)[0])
    say("q8_0 first token of a prompt of 1000 after a restart, computed", middle(computed), "s", less=True)
    say("q8_0 first token of a prompt of 1000 after a restart, from the cache on disk", middle(read), "s", less=True)


CASES = {f.__name__: f for f in (depth, batch, stolen, start, resident, deterministic, disk)}
for name in wanted.split():
    CASES[name]()
