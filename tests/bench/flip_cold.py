#!/usr/bin/env python3
"""Cold starts of containers, flip beside containerd's overlayfs and (when its programs are given) stargz-snapshotter.

Everything is real: a registry in a network namespace of its own behind a shaped link, a private containerd, runc. Before
each run all state is deleted, daemons are started anew and the page cache is dropped; sides are taken in turns. One line
of JSON for each side with medians, and one with ratios. Needs root, containerd, runc, docker-registry, skopeo, iproute2.

  flip_cold.py --layout DIR:TAG [--rate 1gbit] [--delay-ms 20] [--reps 3] [--side overlayfs,flip,stargz] [-- COMMAND...]

--layout names an image in an OCI layout; flip and stargz get it converted (--flip-image, --stargz-image: already in the
registry under these tags). --stargz PLUGIN names a program that serves stargz-snapshotter's library as a proxy plugin
(-socket, -root, -config); ctr-remote must be in PATH then.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

HOST, REGISTRY = "10.78.0.1", "10.78.0.2"
NETNS = "flipbench"
HERE = os.path.dirname(os.path.abspath(__file__))


def run(*args, check=True, **kwargs):
    r = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if check and r.returncode:
        sys.exit(f"flip_cold: {' '.join(args)}: exit {r.returncode}\n{r.stdout[-2000:]}")
    return r


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"flip_cold: {what} did not come up")
        time.sleep(0.02)


def cached_mb():
    with open("/proc/meminfo") as f:
        return int(next(line for line in f if line.startswith("Cached:")).split()[1]) / 1e3


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")
    time.sleep(1)


class Registry:
    """docker-registry behind a veth pair whose far end is shaped; all bytes are counted there."""

    def __init__(self, work):
        self.work = work
        run("ip", "netns", "del", NETNS, check=False)
        run("ip", "link", "del", "flipb0", check=False)
        run("ip", "netns", "add", NETNS)
        run("ip", "link", "add", "flipb0", "type", "veth", "peer", "name", "flipb1", "netns", NETNS)
        run("ip", "addr", "add", f"{HOST}/24", "dev", "flipb0")
        run("ip", "link", "set", "flipb0", "up")
        run("ip", "-n", NETNS, "addr", "add", f"{REGISTRY}/24", "dev", "flipb1")
        run("ip", "-n", NETNS, "link", "set", "flipb1", "up")
        run("ip", "-n", NETNS, "link", "set", "lo", "up")
        config = f"{work}/registry.yml"
        with open(config, "w") as f:
            f.write("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
                    f"storage: {{filesystem: {{rootdirectory: {work}/registry}}, delete: {{enabled: true}}}}\n"
                    f"http: {{addr: '{REGISTRY}:5000'}}\n")
        self.log = open(f"{work}/registry.log", "w")
        self.process = subprocess.Popen(["ip", "netns", "exec", NETNS, "docker-registry", "serve", config],
                                        stdout=self.log, stderr=self.log)
        self.proxy = None
        self.address = f"{REGISTRY}:5000"
        wait_for("the registry", lambda: run("curl", "-fs", f"http://{self.address}/v2/", check=False).returncode == 0)

    def shape(self, rate, delay_ms):
        run("ip", "netns", "exec", NETNS, "tc", "qdisc", "del", "dev", "flipb1", "root", check=False)
        if rate != "none":
            run("ip", "netns", "exec", NETNS, "tc", "qdisc", "add", "dev", "flipb1", "root", "tbf", "rate", rate, "burst",
                "512kb", "latency", "20ms")
        if delay_ms and not self.proxy:
            # The delaying end is on this side of the shaped link, in the way of every connection.
            self.proxy = subprocess.Popen([sys.executable, f"{HERE}/delay_proxy.py", f"{HOST}:5001", self.address,
                                           str(delay_ms)], stdout=self.log, stderr=self.log)
            self.address = f"{HOST}:5001"
            wait_for("the delaying proxy",
                     lambda: run("curl", "-fs", f"http://{self.address}/v2/", check=False).returncode == 0)

    def sent(self):
        return int(run("ip", "netns", "exec", NETNS, "cat", "/sys/class/net/flipb1/statistics/tx_bytes").stdout)

    def stop(self):
        for p in (self.proxy, self.process):
            if p:
                p.terminate()
                p.wait()
        run("ip", "link", "del", "flipb0", check=False)
        run("ip", "netns", "del", NETNS, check=False)


class Node:
    """A private containerd with both snapshotters; wipe() removes every trace of what ran."""

    def __init__(self, work, flip, stargz, flip_args):
        self.dir = f"{work}/node"
        self.flip, self.stargz, self.flip_args = flip, stargz, flip_args
        self.processes = {}

    def start(self, side):
        d = self.dir
        os.makedirs(f"{d}/root", exist_ok=True)
        os.makedirs(f"{d}/state", exist_ok=True)
        disabled = ", ".join(f'"io.containerd.{n}"' for n in (
            "grpc.v1.cri", "snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper", "snapshotter.v1.zfs"))
        with open(f"{d}/config.toml", "w") as f:
            f.write(f'version = 2\nroot = "{d}/root"\nstate = "{d}/state"\ndisabled_plugins = [{disabled}]\n'
                    f'[grpc]\n  address = "{d}/containerd.sock"\n')
            if side != "overlayfs":
                f.write(f'[proxy_plugins.{side}]\n  type = "snapshot"\n  address = "{d}/{side}.sock"\n')
        if side == "flip":
            self.spawn("flip", [self.flip, "snapshotter", "--root", f"{d}/flip", "--socket", f"{d}/flip.sock",
                                "--control", f"{d}/control.sock"] + self.flip_args)
            wait_for("flip", lambda: os.path.exists(f"{d}/flip.sock") and os.path.exists(f"{d}/control.sock"))
        if side == "stargz":
            os.makedirs(f"{d}/stargz", exist_ok=True)
            open(f"{d}/stargz.toml", "w").close()
            self.spawn("stargz", [self.stargz, "-socket", f"{d}/stargz.sock", "-root", f"{d}/stargz", "-config",
                                  f"{d}/stargz.toml"])
            wait_for("stargz", lambda: os.path.exists(f"{d}/stargz.sock"))
        self.spawn("containerd", ["containerd", "--config", f"{d}/config.toml", "--log-level", "warn"])
        wait_for("containerd", lambda: self.ctr("version", check=False).returncode == 0)

    def spawn(self, name, args):
        env = dict(os.environ, FLIP_LOG_LEVEL="info", FLIP_INSECURE="true", NO_PROXY=f"{HOST},{REGISTRY}", no_proxy=f"{HOST},{REGISTRY}")
        with open(f"{self.dir}/{name}.log", "a") as log:
            self.processes[name] = subprocess.Popen(args, stdout=log, stderr=log, env=env)

    def ctr(self, *args, program="ctr", check=True):
        return run(program, "--address", f"{self.dir}/containerd.sock", "-n", "bench", *args, check=check)

    def pull(self, side, image):
        if side == "overlayfs":
            self.ctr("images", "pull", "--plain-http", image)
        elif side == "stargz":
            self.ctr("images", "rpull", "--plain-http", image, program="ctr-remote")
        else:
            run(self.flip, "pull", "--insecure", "--address", f"{self.dir}/containerd.sock", "--namespace", "bench", image)

    def run(self, side, image, name, command):
        r = self.ctr("run", "--rm", "--snapshotter", side, image, name, *command, check=False)
        if r.returncode:
            sys.exit(f"flip_cold: {side}: the container failed: {r.stdout[-2000:]}")
        return r.stdout

    def daemon(self, side):
        """CPU seconds, RSS and peak in MB of the snapshotter."""
        p = self.processes.get(side)
        if not p:
            return {}
        with open(f"/proc/{p.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        with open(f"/proc/{p.pid}/status") as f:
            status = dict(line.split(":", 1) for line in f)
        ticks = os.sysconf("SC_CLK_TCK")
        return {"cpu_s": (int(fields[11]) + int(fields[12])) / ticks, "rss_mb": int(status["VmRSS"].split()[0]) / 1e3,
                "peak_mb": int(status["VmHWM"].split()[0]) / 1e3}

    def disk_mib(self):
        # What goes away under its eyes is not an error.
        return int(run("du", "-sxk", self.dir, check=False).stdout.split("\n")[-2].split()[0]) / 1024

    def wait_complete(self):
        """Until the background has fetched everything: nothing arriving, and nothing new for 15 s."""
        seen, since, end = None, time.monotonic(), time.monotonic() + 1800
        while time.monotonic() < end:
            out = run(self.flip, "stat", "--json", "--control", f"{self.dir}/control.sock").stdout
            store = json.loads(out)["store"]
            if store["partials"] or store["objects"] != seen:
                seen, since = store["objects"], time.monotonic()
            elif time.monotonic() - since > 15:
                return
            time.sleep(1)
        sys.exit("flip_cold: not everything has arrived in half an hour")

    def stop(self):
        for name in ("containerd", "stargz", "flip"):
            p = self.processes.pop(name, None)
            if p:
                p.send_signal(signal.SIGTERM)
                try:
                    p.wait(20)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()

    def wipe(self):
        self.stop()
        with open("/proc/self/mounts") as f:
            mounts = sorted((line.split()[1] for line in f if f" {self.dir}/" in line), reverse=True)
        for m in mounts:
            run("umount", "-l", m, check=False)
        # The holder has ended with the mount; what the daemon noted for the next one is of no use.
        session = "/run/flip/session-" + hashlib.sha256(f"{os.path.realpath(self.dir)}/flip".encode()).hexdigest()[:16]
        if os.path.exists(session):
            os.unlink(session)
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir, exist_ok=True)


def cold_start(node, registry, side, image, command, expect):
    node.wipe()
    node.start(side)
    drop_caches()
    sent, cache, t0 = registry.sent(), cached_mb(), time.monotonic()
    node.pull(side, image)
    t1 = time.monotonic()
    out = node.run(side, image, "first", command)
    t2 = time.monotonic()
    if expect and expect not in out:
        sys.exit(f"flip_cold: {side}: unexpected output: {out[-1000:]}")
    result = {"pull_s": t1 - t0, "run_s": t2 - t1, "total_s": t2 - t0, "net_mb": (registry.sent() - sent) / 1e6,
              "cache_mb": cached_mb() - cache, "disk_mib": node.disk_mib(), **node.daemon(side)}
    t3 = time.monotonic()
    node.run(side, image, "warm", command)
    result["again_s"] = time.monotonic() - t3
    drop_caches()
    t4 = time.monotonic()
    node.run(side, image, "dropped", command)
    result["after_drop_s"] = time.monotonic() - t4
    return result


def two_images(node, registry, side, images, command, complete):
    """Bytes for the second, page cache of running both from a dropped cache, disk of both (flip: when all has arrived)."""
    node.wipe()
    node.start(side)
    sent = [registry.sent()]
    for i, image in enumerate(images):
        node.pull(side, image)
        node.run(side, image, f"first{i}", command)
        sent.append(registry.sent())
    result = {"net_mb": [(b - a) / 1e6 for a, b in zip(sent, sent[1:])], "disk_mib": node.disk_mib()}
    growth = []
    for k in range(3):
        drop_caches()
        before = cached_mb()
        for i, image in enumerate(images):
            node.run(side, image, f"again{k}{i}", command)
        growth.append(cached_mb() - before)
    result["cache_mb"] = statistics.median(growth)
    result.update(node.daemon(side))
    if complete and side == "flip":
        node.wait_complete()
        result["complete_disk_mib"] = node.disk_mib()
    return result


def medians(runs):
    return {k: round(statistics.median(r[k] for r in runs), 3) for k in runs[0]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--layout", help="DIR:TAG of an OCI layout")
    p.add_argument("--second", help="DIR:TAG of a second image: measures both together")
    p.add_argument("--complete", action="store_true", help="with --second: also the disk when everything has arrived")
    p.add_argument("--work", default="/var/tmp/flip-bench")
    p.add_argument("--flip", default="build/release/bin/flip")
    p.add_argument("--stargz", help="program that serves stargz-snapshotter's library")
    p.add_argument("--side", default="overlayfs,flip")
    p.add_argument("--rate", default="1gbit")
    p.add_argument("--delay-ms", type=float, default=0)
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--expect", default="")
    p.add_argument("--format", default="zstd-chunked")
    p.add_argument("--prefetch", help="list or trace for the conversion")
    p.add_argument("--record", help="only start the image once and write the recorded list there")
    p.add_argument("--plain", action="store_true", help="flip gets the ordinary image too")
    p.add_argument("--flip-arg", action="append", default=[])
    p.add_argument("--keep", action="store_true", help="leave node and registry data in place")
    p.add_argument("command", nargs="*")
    o = p.parse_args()
    if os.geteuid():
        sys.exit("flip_cold: needs root")
    o.flip = os.path.abspath(o.flip)
    os.makedirs(o.work, exist_ok=True)
    os.makedirs(f"{o.work}/node", exist_ok=True)
    registry = Registry(o.work)
    node = Node(o.work, o.flip, o.stargz, o.flip_arg)
    try:
        measure(o, registry, node)
    finally:
        if o.keep:
            node.stop()
        else:
            node.wipe()
        registry.stop()


def push(o, registry, node, layout):
    """The image as it is, and converted for the sides that want it; returns the reference for each side."""
    tag = layout.rsplit(":", 1)[1]
    repo = f"{registry.address}/bench"
    names = {side: f"{repo}:{tag}" for side in ("overlayfs", "flip", "stargz")}
    have = run("skopeo", "inspect", "--tls-verify=false", f"docker://{repo}:{tag}", check=False).returncode == 0
    if not have:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{repo}:{tag}")
    if not o.plain and "flip" in o.side:
        names["flip"] = f"{repo}:{tag}-flip"
        if run("skopeo", "inspect", "--tls-verify=false", f"docker://{names['flip']}", check=False).returncode:
            args = [o.flip, "convert", "--format", o.format, "--insecure"]
            if o.prefetch:
                args += ["--prefetch", o.prefetch]
            t = time.monotonic()
            run(*args, f"oci:{layout}", f"docker://{names['flip']}")
            print(json.dumps({"bench": "convert", "image": tag, "format": o.format,
                              "seconds": round(time.monotonic() - t, 2)}), flush=True)
    if "stargz" in o.side:
        names["stargz"] = f"{repo}:{tag}-stargz"
        if run("skopeo", "inspect", "--tls-verify=false", f"docker://{names['stargz']}", check=False).returncode:
            stargz_convert(o, registry, node, tag)
    return names


def record(o, registry, node):
    """A first start of the image converted without a list, and what it read."""
    repo = f"{registry.address}/bench"
    image = f"{repo}:recorded"
    run(o.flip, "convert", "--format", o.format, "--no-prefetch", "--insecure", f"oci:{o.layout}", f"docker://{image}")
    node.wipe()
    node.start("flip")
    node.pull("flip", image)
    node.run("flip", image, "first", o.command)
    out = run(o.flip, "prefetch", "--control", f"{node.dir}/control.sock", image).stdout
    with open(o.record, "w") as f:
        f.write(out)


def stargz_convert(o, registry, node, tag):
    """The peer's own conversion with its own recording, by its own tool."""
    repo = f"{registry.address}/bench"
    node.wipe()
    node.start("overlayfs")
    node.pull("overlayfs", f"{repo}:{tag}")
    t = time.monotonic()
    node.ctr("images", "optimize", "--oci", "--entrypoint", json.dumps(o.command), "--args", "[]", "--period", "15",
             f"{repo}:{tag}", f"{repo}:{tag}-stargz", program="ctr-remote")
    print(json.dumps({"bench": "convert", "image": tag, "side": "stargz", "seconds": round(time.monotonic() - t, 2)}), flush=True)
    node.ctr("images", "push", "--plain-http", f"{repo}:{tag}-stargz")


def measure(o, registry, node):
    if o.record:
        o.side = "flip"
        record(o, registry, node)
        return
    sides = o.side.split(",")
    images = [push(o, registry, node, layout) for layout in (o.layout, o.second) if layout]
    registry.shape(o.rate, o.delay_ms)
    if o.delay_ms:
        images = [{k: v.replace(f"{REGISTRY}:5000", registry.address) for k, v in i.items()} for i in images]
    results = {side: [] for side in sides}
    for _ in range(o.reps):
        for side in sides:
            if o.second:
                r = two_images(node, registry, side, [i[side] for i in images], o.command, o.complete)
            else:
                r = cold_start(node, registry, side, images[0][side], o.command, o.expect)
            results[side].append(r)
            print(f"# {side} {json.dumps(r)}", file=sys.stderr, flush=True)
    base = {"bench": "two-images" if o.second else "cold-start", "image": o.layout.rsplit(":", 1)[1], "rate": o.rate,
            "delay_ms": o.delay_ms, "reps": o.reps}
    for side in sides:
        if o.second:
            print(json.dumps({**base, "side": side, "runs": results[side]}), flush=True)
        else:
            print(json.dumps({**base, "side": side, **medians(results[side])}), flush=True)
    if not o.second and "flip" in sides and len(sides) > 1:
        ours = medians(results["flip"])
        for side in sides:
            if side != "flip":
                theirs = medians(results[side])
                print(json.dumps({**base, "ratio_to": side, **{k: round(ours[k] / theirs[k], 3) for k in
                                                               ("total_s", "net_mb", "again_s", "after_drop_s")}}), flush=True)


main()
