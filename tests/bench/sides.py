"""What the benchmarks of ocai-engine have in common: the two sides that are compared (ours, and llama.cpp's programs when
LLAMA_BENCH or LLAMA_SERVER name them), and the lines that are printed."""
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

LLAMA_BENCH = os.environ.get("LLAMA_BENCH")
LLAMA_SERVER = os.environ.get("LLAMA_SERVER")


def say(bench, case, value, unit, limit=None, peer=None, less=False, digits=3):
    """One line. less: less is better, so that a ratio above 1 is in our favour either way."""
    def short(v):
        return None if v is None else round(v, digits)

    ratio = None if not peer or not value else round(peer / value if less else value / peer, 3)
    print(json.dumps({"bench": bench, "case": case, "value": short(value), "unit": unit, "limit": short(limit),
                      "share": round(value / limit, 3) if limit else None, "peer": short(peer), "ratio": ratio}), flush=True)


def json_lines(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.returncode}: {done.stderr[-400:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def ours(engine, model, threads, *options):
    """{"pp512": line, "tg64 d4096": line ...} of `ocai-engine bench`."""
    lines = json_lines([engine, "bench", "--model", model, "--threads", str(threads), "--json", *options])
    return {line["case"].split(" ", 1)[1]: line for line in lines}


def theirs(model, threads, *options):
    """Tokens per second of the one test asked for of llama-bench; None without it."""
    if not LLAMA_BENCH:
        return None
    return json_lines([LLAMA_BENCH, "-m", model, "-t", str(threads), "-r", "1", "-o", "jsonl", *options])[-1]["avg_ts"]


def theirs_batched(model, threads, n_prompt, n_gen, sizes):
    """{size: decoded tokens per second of all sequences}; {} without it."""
    program = os.path.join(os.path.dirname(LLAMA_BENCH), "llama-batched-bench") if LLAMA_BENCH else ""
    if not os.path.exists(program):
        return {}
    lines = json_lines([program, "-m", model, "-t", str(threads), "-c", str(max(sizes) * (n_prompt + n_gen)), "-b", "2048",
                        "-ub", "512", "-npp", str(n_prompt), "-ntg", str(n_gen), "-npl", ",".join(map(str, sizes)),
                        "--output-format", "jsonl"])
    return {line["pl"]: line["speed_tg"] for line in lines}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A running ocai-engine, or llama-server with `slots` slots of `ctx` tokens."""

    def __init__(self, engine, model, threads, *options, is_peer=False, slots=1, ctx=1280):
        self.is_peer = is_peer
        self.dir = tempfile.TemporaryDirectory()
        port_file = os.path.join(self.dir.name, "port")
        if is_peer:
            self.port = free_port()
            command = [LLAMA_SERVER, "-m", model, "-t", str(threads), "--port", str(self.port), "-c", str(slots * ctx), "-np",
                       str(slots), "--no-ui"]
        else:
            command = [engine, "serve", "--model", model, "--threads", str(threads), "--port", "0", "--port-file", port_file,
                       "--ctx", str(ctx), "--log-level", "error", *options]
        begin = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while time.monotonic() - begin < 120:
            try:
                if not is_peer:
                    with open(port_file, encoding="ascii") as f:
                        self.port = int(f.read())
                if self.request("GET", "/health")[0] == 200:
                    self.ready_s = time.monotonic() - begin
                    self.begin = begin
                    return
            except (OSError, ValueError):
                pass
            if self.process.poll() is not None:
                sys.exit(f"{command[0]} ended")
            time.sleep(0.001)
        self.stop()
        sys.exit(f"{command[0]} is not ready")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.dir.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))

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
