#!/bin/bash
# slimtrace slim beside whole roots: bytes, time, and what stubs bring. JSON lines on standard output. The PyTorch rows
# need SLIM_TORCH_REPO: a folder of RPMs that tests/fixtures/make-rpm-repo made of python3-torch (382 packages).
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/integration/slim/repo.sh
. tests/integration/slim/install.sh
((EUID == 0)) || { echo "not root" >&2; exit 0; }
REPO=''
slim_repo >&2
work=$(mktemp -d "${TMPDIR:-/var/tmp}/bench-slim-XXXXXX")
trap 'rm -rf "$work"' EXIT

# emit CASE VALUE UNIT LIMIT(the promise) PEER(the full root): ratio says how many times smaller
emit() {
	python3 -c 'import json, sys
case, value, unit, limit, peer = sys.argv[1:]
f = lambda s: float(s) if s else None
v, l, p = f(value), f(limit), f(peer)
print(json.dumps({"bench": "slim", "case": case, "value": v, "unit": unit, "limit": l,
    "share": round(v / l, 4) if l else None, "peer": p, "ratio": round(p / v, 3) if p else None}))' "$@"
}

# slims CASE FULL LIMIT OPTION...
slims() {
	local case=$1 full=$2 limit=$3 start end
	shift 3
	rm -rf "$work/out"
	start=$(date +%s%N)
	if ! "$SLIMTRACE" slim -q --root "$work/$full" --out "$work/out" "$@" >"$work/log" 2>&1; then
		echo "$case: $(tail -n 3 "$work/log")" >&2
		return
	fi
	end=$(date +%s%N)
	emit "$case" "$(slim_size "$work/out")" bytes "$limit" "$(slim_size "$work/$full")"
	emit "$case, time with its runs" "$(((end - start) / 1000000))" ms '' ''
}

python="python3 -c"
for root in busybox bash "curl openssl ca-certificates" python3-numpy; do
	read -r name _ <<<"$root"
	# shellcheck disable=SC2086
	slim_install "$work/$name" $root >&2
done
slims busybox busybox 3000000 --run 'busybox ls /' --run "busybox sh -c 'busybox uname'"
slims bash bash 3700000 --run "bash -c 'echo hi'"
slims python python3-numpy 18500000 --run "$python 'import json, ssl, sqlite3, hashlib, re'"
slims numpy python3-numpy 38000000 --run "$python 'import numpy; print(numpy.linalg.inv([[1, 2], [3, 4]]))'"
slims numpy-pyc python3-numpy 39000000 --pyc only --run "$python 'import numpy; print(numpy.linalg.inv([[1, 2], [3, 4]]))'"
slims curl curl 22500000 --run 'curl --version' --run 'openssl version' --run 'curl -sS file:///etc/os-release'

if [[ -n ${SLIM_TORCH_REPO:-} ]]; then
	REPO=$(cd "$SLIM_TORCH_REPO" && pwd)
	slim_install "$work/torch" python3-torch >&2
	mkdir -p "$work/torch/app"
	cat >"$work/torch/app/train.py" <<'PY'
import torch, torch.nn as nn
torch.manual_seed(0)
m = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
loss = m(torch.randn(4, 8)).pow(2).sum()
loss.backward()
print(round(loss.item(), 4), [tuple(p.grad.shape) for p in m.parameters()])
PY
	other="$python 'import torch; print(torch.fft.fft(torch.ones(8)).sum(), torch.jit.script(torch.nn.Linear(3, 4)))'"
	slims torch torch 540000000 --run 'python3 /app/train.py' --check "$other"
	slims torch-stubs torch 245000000 --run 'python3 /app/train.py' --check "$other" --stub-unbound
fi
