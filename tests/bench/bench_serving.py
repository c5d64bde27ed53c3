"""Serving under load, over HTTP: clients that share a prompt, deterministic mode, speculation that does not hit.
Started by bench_serving.sh; prints one JSON object a line. Servers that are compared run at the same time and are
asked in turns: an idle one uses no processor, and a busy moment of the machine falls on both."""
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

engine, model, mini, threads = sys.argv[1:5]
rounds = int(os.environ.get("BENCH_ROUNDS", "3"))
peer = os.environ.get("LLAMA_SERVER")
CLIENTS, SHARED, OWN, OUT, VOCAB = 16, 1000, 32, 128, 151000


def say(case, value, unit, limit=None, peer_value=None, less=False):
    share = round(value / limit, 3) if limit else None
    ratio = round(peer_value / value if less else value / peer_value, 3) if peer_value else None
    print(json.dumps({"bench": "serving", "case": case, "value": round(value, 3), "unit": unit, "limit": limit,
                      "share": share, "peer": peer_value, "ratio": ratio}), flush=True)


class Server:
    """ocai-engine, or llama-server."""

    def __init__(self, path, *options, is_peer=False):
        self.is_peer = is_peer
        self.dir = tempfile.TemporaryDirectory()
        port_file = os.path.join(self.dir.name, "port")
        if is_peer:
            self.port = random.randint(20000, 50000)
            command = [peer, "-m", path, "-t", threads, "--port", str(self.port), "-c",
                       str(CLIENTS * 1280), "-np", str(CLIENTS), "--no-ui"]
        else:
            command = [engine, "serve", "--model", path, "--threads", threads, "--port", "0", "--port-file", port_file,
                       "--log-level", "error", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1200):
            try:
                if not is_peer:
                    with open(port_file, encoding="ascii") as f:
                        self.port = int(f.read())
                if self.request("GET", "/health")[0] == 200:
                    return
            except (OSError, ValueError):
                pass
            if self.process.poll() is not None:
                sys.exit(f"{command[0]} ended")
            time.sleep(0.05)
        sys.exit(f"{command[0]} is not ready")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.dir.cleanup()

    def request(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        c.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        r = c.getresponse()
        return r.status, r.read()

    def stream(self, ids, n_out, temperature=0.0):
        """Seconds to the first token, seconds from there to the last."""
        if self.is_peer:
            path, body = "/completion", {"prompt": ids, "n_predict": n_out, "stream": True, "ignore_eos": True,
                                         "temperature": temperature, "cache_prompt": True}
        else:
            path, body = "/generate", {"input_ids": ids, "stream": True, "sampling_params": {
                "max_new_tokens": n_out, "ignore_eos": True, "temperature": temperature}}
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1800)
        begin, first, last = time.monotonic(), None, None
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            sys.exit(f"{path}: {r.status} {r.read()!r}")
        for line in r:
            if line.startswith(b"data: {"):
                last = time.monotonic()
                first = first or last
        return first - begin, last - first


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
    servers = [Server(model, "--ctx", "1280", "--no-speculation")] + ([Server(model, is_peer=True)] if peer else [])
    figures = {}
    for i in range(rounds):
        for n, server in enumerate(servers):
            for state in ("cold", "warm"):
                first, rate = shared_prompt(server, seed=i + 1)
                figures.setdefault((state, "first token, median", "s"), [[], []])[n].append(first)
                figures.setdefault((state, "all tokens", "tok/s"), [[], []])[n].append(rate)
    for server in servers:
        server.stop()
    for (state, what, unit), (ours, theirs) in figures.items():
        say(f"16 clients, {SHARED} shared + {OWN} own tokens, {OUT} out, {state}: {what}", statistics.median(ours),
            unit, None, statistics.median(theirs) if theirs else None, less=unit == "s")


def decode_rate(server, prompts, n_out, temperature):
    seconds = [server.stream(ids, n_out, temperature)[1] for ids in prompts]
    return (n_out - 1) * len(prompts) / sum(seconds)


def in_turns(case, base, other, prompts, n_out, temperature):
    """Both servers answer the same prompts in turns; the median ratio other/base says what the option costs."""
    ratios, rates = [], []
    for i in range(rounds * 4):
        pair = [decode_rate(s, prompts, n_out, temperature) for s in ((base, other) if i % 2 else (other, base))]
        a, b = pair if i % 2 else pair[::-1]
        ratios.append(b / a)
        rates.append(b)
    say(case, statistics.median(rates), "tok/s")
    say(case + ", relative", statistics.median(ratios), "x")


def options_cost():
    rng = random.Random(7)
    ids = [[rng.randrange(300, 11000) for _ in range(40)] for _ in range(3)]
    plain, drafts = Server(mini, "--no-speculation"), Server(mini)
    # Sampled hot: hardly anything repeats, what does goes on differently.
    in_turns("ocai-mini decode with speculation that does not hit", plain, drafts, ids, 200, 1.3)
    # Greedy: a small model left alone repeats itself.
    in_turns("ocai-mini decode with speculation, greedy", plain, drafts, ids, 200, 0.0)
    drafts.stop()
    plain.stop()
    big = [[rng.randrange(1000, VOCAB) for _ in range(64)]]
    plain, fixed = Server(model, "--ctx", "1280", "--no-speculation"), Server(
        model, "--ctx", "1280", "--no-speculation", "--deterministic")
    in_turns("qwen3-0.6b decode, deterministic", plain, fixed, big, 48, 0.0)
    fixed.stop()
    plain.stop()


clients_with_one_prompt()
options_cost()
