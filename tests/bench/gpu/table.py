#!/usr/bin/python3
"""The table of docs/gpu.md in one command: JSON lines on standard output, everything else on standard error.

    table.py [--backend cuda|hip] [--build DIR] [--only TEXT] [--start DIR] [--quick]

Decode and prefill by types and depths (bench_gpu, which measures the limits in the same run), the same through the
scheduler (ocai-engine bench), a mixture of experts, and with --start DIR how long a start takes (start.py, which writes a
model of 16 GB there). `share` is value / limit. `peer` is what was measured once of llama.cpp on an H100 with weights of
the same shape, flash attention on; it is left out on other devices. What this build cannot do yet is a line with
`skipped` and the reason; without a device everything is, and the exit status is 0.
"""
import argparse
import json
import os
import subprocess
import sys

here = os.path.dirname(os.path.abspath(__file__))
top = os.path.dirname(os.path.dirname(os.path.dirname(here)))

# tok/s of llama.cpp, Qwen3-8B's shape, one H100.
PEER = {
    "bf16 decode 1 depth 512": 161.5,
    "bf16 decode 1 depth 4096": 153,
    "bf16 decode 1 depth 16384": 135,
    "q8_0 decode 1 depth 512": 221,
    "q4_k decode 1 depth 512": 243,
    "bf16 prefill 1 x 2048": 22400,
    "bf16 prefill 4 x 512": 28000,
    "bf16 scheduler decode 8 depth 512": 937,
    "bf16 scheduler decode 32 depth 512": 2904,
    "bf16 scheduler decode 64 depth 512": 4755,
    "bf16 scheduler decode 128 depth 512": 6504,
}
PEER_DEVICE = "H100"


class Table:
    def __init__(self, args):
        self.args = args
        self.build = os.path.realpath(args.build)
        self.device = device_name()
        self.facts = {}  # by type: bytes of weights and of a token's keys and values, per byte/s of the device

    def emit(self, case, value, unit, limit):
        peer = PEER.get(case) if PEER_DEVICE in self.device else None
        line = {"bench": "gpu", "case": case, "value": value, "unit": unit, "limit": limit,
                "share": round(value / limit, 3) if limit else None, "peer": peer,
                "ratio": round(value / peer, 3) if peer else None}
        print(json.dumps(line), flush=True)

    def skip(self, case, reason):
        print(json.dumps({"bench": "gpu", "case": case, "skipped": reason.strip()[-300:]}), flush=True)

    def wanted(self, *words):
        return not self.args.only or self.args.only in " ".join(words)

    def run(self, program, *args, seconds=300):
        """Lines of JSON, and why there are none."""
        path = os.path.join(self.build, program)
        if not os.path.exists(path):
            return [], f"{path} is not built"
        try:
            p = subprocess.run([path, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds)
        except subprocess.TimeoutExpired as e:
            out = e.stdout.decode() if isinstance(e.stdout, bytes) else e.stdout or ""
            return parse(out), f"{program} took more than {seconds} s"
        sys.stderr.write(p.stderr)
        return parse(p.stdout), "" if p.returncode == 0 and p.stdout.strip() else p.stderr or f"exit status {p.returncode}"

    def steps(self, shape, kind, keep=lambda case: True):
        """bench_gpu: the device, step by step."""
        prefix = kind if shape == "qwen3-8b" else f"{shape} {kind}"
        if not self.wanted(prefix, "decode", "prefill"):
            return
        lines, why = self.run("tests/bench/bench_gpu", self.args.backend, shape, kind)
        for l in lines:
            if l["unit"] == "tok/s" and keep(l["case"]):
                self.emit(f"{prefix} {l['case']}", l["value"], l["unit"], l["limit"])
            elif l["unit"] != "tok/s" and (kind, shape) == ("bf16", "qwen3-8b"):
                self.emit(l["case"], l["value"], l["unit"], None)
        if why:
            self.skip(f"{prefix} steps", why)
        limits = {l["case"]: l["limit"] for l in lines if l.get("limit")}
        one, many = limits.get("decode 1 depth 512"), limits.get("decode 128 depth 512")
        if one and many:  # limit = n / (w + kv n 512), both in seconds
            kv = (128 / many - 1 / one) / (127 * 512)
            self.facts[prefix] = (1 / one - 512 * kv, kv)

    def scheduler(self, kind, n, depth, n_gen):
        """ocai-engine bench: the same through the scheduler, sequences of `depth` tokens that get n_gen more."""
        case = f"{kind} scheduler decode {n} depth {depth}"
        if not self.wanted(case):
            return
        lines, why = self.run("bin/ocai-engine", "bench", "--backend", self.args.backend, "--random", "qwen3-8b", "--type",
                              kind, "-p", str(depth), "-d", str(depth), "-n", str(n_gen), "-b", str(n), "--reps", "3", "--json")
        got = prefill = None
        for l in lines:
            if f" tg{n_gen} " in l["case"] + " ":
                w, kv = self.facts.get(kind, (0, 0))
                seconds = w + kv * n * (depth + n_gen / 2)
                self.emit(case, l["value"], l["unit"], round(n / seconds, 1) if seconds else None)
                got = l["value"]
            elif f" pp{depth}" in l["case"]:
                prefill = l["value"]
                self.emit(f"{kind} scheduler prefill {n} x {depth}", prefill, l["unit"], None)
        if got and prefill:  # answers' tokens over the time of prompts and answers
            seconds = n * depth / prefill + n * n_gen / got
            self.emit(f"{kind} scheduler {n} x {depth} in, {n_gen} out", round(n * n_gen / seconds, 1), "tok/s", None)
        if why or not got:
            self.skip(case, why or "no figure")

    def start(self, folder):
        if not self.wanted("start"):
            return
        p = subprocess.run([sys.executable, os.path.join(here, "start.py"), "--backend", self.args.backend, "--build",
                            self.build, folder], stdout=subprocess.PIPE, text=True)
        sys.stdout.write(p.stdout)
        if p.returncode:
            self.skip("start", f"start.py: exit status {p.returncode}")


def parse(text):
    lines = []
    for line in (text or "").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            sys.stderr.write(line + "\n")
    return lines


def device_name():
    try:
        return subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--backend", default="cuda")
    a.add_argument("--build", default=os.path.join(top, "build/release"))
    a.add_argument("--only", default="", help="cases with this in their names")
    a.add_argument("--start", metavar="DIR", help="a folder with 17 GB of room")
    a.add_argument("--quick", action="store_true", help="fewer types and numbers of sequences")
    args = a.parse_args()
    t = Table(args)
    sys.stderr.write(f"device: {t.device or 'none that nvidia-smi shows'}\n")
    kinds = ["bf16", "fp8", "q4_k"] if args.quick else ["bf16", "fp8", "q8_0", "q4_0", "q4_k"]
    for kind in kinds:
        t.steps("qwen3-8b", kind)
    t.steps("qwen3-30b-a3b", "bf16", keep=lambda case: case.startswith(("decode 1 ", "prefill")))
    for kind in ["bf16", "fp8"]:
        for n in [1, 128] if args.quick else [1, 8, 32, 64, 128]:
            t.scheduler(kind, n, 512, 128)
    if not args.quick:
        t.scheduler("fp8", 256, 1000, 1000)
    if args.start:
        t.start(args.start)


main()
