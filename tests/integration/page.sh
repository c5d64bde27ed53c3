#!/bin/bash
# The page at / in headless Chromium: model and load, a chat that streams, both languages, nothing fetched elsewhere.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
engine=${BUILD_DIR:-$top/build/release}/bin/ocai-engine
case $engine in /*) ;; *) engine=$top/$engine ;; esac
for tool in chromium chromedriver python3; do
	command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
work=$(mktemp -d)
trap 'kill $(jobs -pr) 2>/dev/null || true; wait || true; rm -rf "$work"' EXIT
export HOME=$work TMPDIR=$work
: >"$work/driver" # what is read below may be there before who writes it
"$engine" serve --model "$top/tests/fixtures/models/qwen3" --ctx 512 --port 0 --port-file "$work/port" 2>"$work/log" &
chromedriver --port=0 >"$work/driver" 2>&1 &
port=
for _ in $(seq 900); do
	port=$(sed -n 's/.*started successfully on port \([0-9]*\).*/\1/p' "$work/driver")
	[ -s "$work/port" ] && [ -n "$port" ] && break
	sleep 0.1
done
[ -s "$work/port" ] && [ -n "$port" ] || { cat "$work/log" "$work/driver"; exit 1; }
timeout 600 python3 "$top/tests/integration/page.py" "http://127.0.0.1:$port" "http://127.0.0.1:$(cat "$work/port")/" ||
	{ cat "$work/log"; exit 1; }
