#!/usr/bin/python3
"""Several GPUs of this host beside one: JSON lines on standard output, everything else on standard error.

    parallel.py [--devices N] [--backend cuda|hip] [--build DIR] [--link GBYTES] [--split P,D] [--quick] [--only TEXT]

First whether sums and gathers between devices are right, how long they take and how near they come to what the links move
(comm_bench; --link says what one device sends at most, NVLink of an H100 or H200: 450), once with NCCL or RCCL where that
is found and once without. Then the fixtures on so many devices (test_gpu_device), and Qwen3-8B's shape and a mixture of
experts with random weights on one device and on all, through the scheduler (ocai-engine bench): `peer` is what one device
reached in the same run, `ratio` how many times as much several reach. Last, what streams lose while long prompts arrive, with
prompts on one device and answers on another (bench_split): `ratio` is how many times less. The exit status is 1 when something is wrong, 0 when
it is right or there are no devices: then lines have `skipped` and the reason.
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import sysconfig

here = os.path.dirname(os.path.abspath(__file__))
top = os.path.dirname(os.path.dirname(os.path.dirname(here)))


def emit(case, **rest):
    line = {"bench": "gpu-parallel", "case": case, "value": None, "unit": None, "limit": None, "share": None, "peer": None,
            "ratio": None}
    line.update(rest)
    print(json.dumps(line), flush=True)


def libraries():
    """Folders of the vendor's libraries as Python packages have them, behind what is named already."""
    folders = sorted(glob.glob(os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "*", "lib")))
    return ":".join(filter(None, [os.environ.get("OCAI_GPU_LIBS"), *folders]))


class Runs:
    def __init__(self, args):
        self.args = args
        self.build = os.path.realpath(args.build)
        self.failed = False
        # Multicast of NVLink needs what not every machine lends to its guests.
        self.env = dict(os.environ, OCAI_GPU_LIBS=libraries(),
                        NCCL_NVLS_ENABLE=os.environ.get("NCCL_NVLS_ENABLE", "0"))

    def run(self, program, *args, env=None, seconds=300):
        """Exit status (None: it did not run) and what it wrote."""
        path = os.path.join(self.build, program)
        if not os.path.exists(path):
            return None, f"{path} is not built"
        try:
            p = subprocess.run([path, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=top,
                               timeout=seconds, env=dict(self.env, **(env or {})))
        except subprocess.TimeoutExpired as e:
            self.failed = True
            text = e.stdout or ""  # bytes or text, as the version has it
            print(text if isinstance(text, str) else text.decode(errors="replace"), file=sys.stderr)
            return None, f"{program} took more than {seconds} s"
        return p.returncode, p.stdout

    def messages(self, way, env):
        args = [f"--backend={self.args.backend}", f"--devices={self.args.devices}", f"--link={self.args.link}"]
        status, text = self.run("tests/bench/gpu/comm_bench", *args, *(["--quick"] if self.args.quick else []), env=env)
        for line in text.splitlines():
            if line.startswith("{"):
                print(line.replace('"case":"', f'"case":"{way}: ', 1), flush=True)
            else:
                print(line, file=sys.stderr)
        if status in (None, 77):
            emit(f"messages, {way}", skipped=text.strip()[-300:])
        elif status:
            self.failed = True
            emit(f"messages, {way}", value=0, unit="pass")

    def fixtures(self):
        status, text = self.run("tests/unit/gpu_host/test_gpu_device", "*devices*",
                                env={"OCAI_TEST_DEVICES": str(self.args.devices)}, seconds=500)
        print(text, file=sys.stderr)
        if status is None or "relative:" not in text:
            emit("fixtures", skipped=text.strip()[-300:])
        else:
            self.failed |= status != 0
            emit(f"fixtures on {self.args.devices}", value=int(status == 0), unit="pass")

    def split(self, streams, tokens, prompts):
        if self.args.only and "split".find(self.args.only) < 0:
            return
        if "," not in self.args.split:
            sys.exit("--split: two devices, as 0,1")
        sides = self.args.split.split(",", 1)
        status, text = self.run("tests/bench/bench_split", self.args.backend, "qwen3-8b", str(streams), str(tokens),
                                str(prompts), *sides)
        lines = [l for l in text.splitlines() if l.startswith("{")]
        print("\n".join(l for l in text.splitlines() if not l.startswith("{")), file=sys.stderr)
        for line in lines:
            print(line, flush=True)
        self.failed |= bool(status)
        if status is None or not any("apart" in l for l in lines):
            emit(f"split, {streams} streams", skipped=text.strip()[-300:])

    def bench(self, case, n_devices, *args):
        """By case: tokens a second."""
        extra = ["--tensor-parallel", str(n_devices)] if n_devices > 1 else ["--devices", "0"]
        status, text = self.run("bin/ocai-engine", "bench", "--backend", self.args.backend, "--json", "--reps", "3", *extra,
                                *args)
        lines = [json.loads(l) for l in text.splitlines() if l.startswith("{")]
        got = {l["case"].split(" on ")[0]: l["value"] for l in lines if l.get("unit") == "tok/s"}
        if status or not got:
            print(text, file=sys.stderr)  # what ranks that waited for each other were seen at is there
            emit(f"{case} on {n_devices}", skipped=text.strip()[-300:])
        return got

    def beside_one(self, shape, batch, depth, n_gen, variants=((),)):
        case = f"{shape} {batch} x {depth}"
        if self.args.only and self.args.only not in case:
            return
        common = ["--random", shape, "-p", str(depth), "-d", str(depth), "-n", str(n_gen), "-b", str(batch)]
        one = self.bench(case, 1, *common)
        for extra in variants:
            many = self.bench(case, self.args.devices, *common, *extra)
            for what, value in many.items():
                peer = one.get(what)
                emit(f"{shape} {what} {' '.join(extra)} on {self.args.devices}".replace("  ", " "), value=value, unit="tok/s",
                     peer=peer, ratio=round(value / peer, 3) if peer else None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--build", default=os.path.join(top, "build/release"))
    parser.add_argument("--link", type=float, default=450)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--split", default="0,1", help="devices of prompts and of answers")
    args = parser.parse_args()
    runs = Runs(args)
    if args.only in ("", "messages"):
        runs.messages("library", {})
        runs.messages("own", {"OCAI_GPU_NCCL": "0"})
    if args.only in ("", "fixtures"):
        runs.fixtures()
    by_expert = ((), ("--expert-parallel",))
    for batch, depth in ((1, 512), (32, 512)) if args.quick else ((1, 512), (1, 16384), (8, 512), (32, 512), (128, 512)):
        runs.beside_one("qwen3-8b", batch, depth, 64)
    for batch in (1,) if args.quick else (1, 32, 128):
        runs.beside_one("qwen3-30b-a3b", batch, 512, 64, by_expert)
    for streams, tokens, prompts in ((32, 8192, 8),) if args.quick else ((32, 8192, 8), (128, 4096, 12), (8, 32768, 3)):
        runs.split(streams, tokens, prompts)
    return runs.failed


if __name__ == "__main__":
    sys.exit(main())
