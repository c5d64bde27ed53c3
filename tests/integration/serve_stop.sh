#!/bin/bash
# SIGTERM in the middle of everything: requests of all kinds from 64 connections run, wait or are being read when the server is told to
# end, with and without time to finish them. It ends by itself and well, and the next one serves.
set -eu
. "$(dirname "$0")/serve/lib.sh"

for round in {1..8}; do
	start --model "$top/tests/fixtures/models/qwen3" --ctx 1024 --max-running 4 --kv-bytes 8M --drain $((round % 2))
	"$build/tests/tools/http_load" "$(<"$work/port")" 3000 "$round" >"$work/load" 2>&1 & # what it loses is no fault here
	load=$!
	# Some are answered, the others are on their way.
	until [ "$(curl -sS "$url/metrics" | sed -n 's/^ocai_engine_requests_done_total //p')" -ge $((round * 5)) ]; do
		kill -0 $load 2>/dev/null || break
		sleep 0.02
	done
	kill -TERM "$server"
	code=0
	wait "$server" || code=$?
	[ "$code" = 0 ] || fail "round $round: exit code $code"
	kill $load 2>/dev/null || true
	wait $load 2>/dev/null || true
done
echo "ok 8 servers ended in the middle of their work"
