#!/bin/bash
# From starting `ocai-engine serve` until /health answers 200, polled every millisecond: the embedded model, or MODEL...; the page
# cache is as the first round leaves it. One JSON object a line: median, fastest and slowest in ms.
#
#   tests/bench/bench_ready.sh [MODEL]...      BENCH_ROUNDS=N [9]
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=$(realpath "${BUILD_DIR:-build/release}")/bin/ocai-engine
exec python3 - "$engine" "${BENCH_ROUNDS:-9}" "$@" <<'PY'
import http.client, json, os, socket, statistics, subprocess, sys, time

engine, rounds, models = sys.argv[1], int(sys.argv[2]), sys.argv[3:] or [None]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ready_ms(model):
    port = free_port()
    begin = time.monotonic()
    args = [engine, "serve", "--port", str(port), "--log-level", "error"] + (["--model", model] if model else [])
    server = subprocess.Popen(args)
    try:
        while True:
            try:
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                c.request("GET", "/health")
                if c.getresponse().status == 200:
                    return (time.monotonic() - begin) * 1000
            except OSError:
                if server.poll() is not None:
                    sys.exit(f"{args}: ended with {server.returncode}")
            time.sleep(0.001)
    finally:
        server.terminate()
        server.wait()


for model in models:
    ms = [ready_ms(model) for _ in range(rounds)]
    print(json.dumps({"bench": "ready", "case": os.path.basename(model) if model else "the embedded model", "value": statistics.median(ms),
                      "unit": "ms", "limit": None, "share": None, "peer": None, "ratio": None, "fastest": min(ms), "slowest": max(ms)}),
          flush=True)
PY
