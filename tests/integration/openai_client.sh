#!/bin/bash
# The official openai client for node drives a served model: chat, streams, usage, errors, embeddings, abort.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
engine=${BUILD_DIR:-$top/build/release}/bin/ocai-engine
case $engine in /*) ;; *) engine=$top/$engine ;; esac
skip() { echo "skipped: $*"; exit 77; }
command -v node >/dev/null && command -v npm >/dev/null || skip "node and npm are not installed"

[ "$(node -p "parseInt(process.versions.node)")" -ge 20 ] || skip "node $(node --version) is older than 20"

client=$top/build/openai-client
mkdir -p "$client"
cp "$top"/tests/integration/openai-client/{package.json,package-lock.json,client.js} "$client/"
if [ ! -d "$client/node_modules/openai" ]; then
	(cd "$client" && timeout 120 npm ci --no-audit --no-fund --loglevel=error >npm.log 2>&1) ||
		skip "the client package could not be installed ($(tail -n1 "$client/npm.log"))"
fi

work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
"$engine" serve --model "$top/tests/fixtures/models/qwen3" --port 0 --port-file "$work/port" 2>"$work/log" &
server=$!
for _ in $(seq 100); do [ -s "$work/port" ] && break; sleep 0.1; done
[ -s "$work/port" ] || { cat "$work/log"; exit 1; }
cd "$client"
BASE_URL=http://127.0.0.1:$(cat "$work/port") MODEL=qwen3 timeout 120 node client.js
