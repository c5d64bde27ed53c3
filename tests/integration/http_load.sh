#!/bin/bash
# Random requests from 64 connections at a tiny model; afterwards nothing runs, no page is lost, and the server ends
# without a leak. http_load.sh [COUNT [SEED]]; BUILD_DIR picks a sanitizer's build (24000 is the long run), BACKEND another
# one than the CPU's (with OCAI_PLUGIN_DIR=$BUILD_DIR/tests/plugin-host, cuda: a device that is the host).
set -eu
count=${1:-600} seed=${2:-1}
. "$(dirname "$0")/serve/lib.sh"

start --backend "${BACKEND:-auto}" --model "$top/tests/fixtures/models/qwen3" --ctx 1024 --max-running 8 --kv-bytes 8M
"$build/tests/tools/http_load" "$(cat "$work/port")" "$count" "$seed" || fail "an answer was wrong"

metric() { curl -sS "$url/metrics" | awk -v m="ocai_engine_$1" '$1 == m { print $2 }'; }
for _ in $(seq 3000); do
	[ "$(metric requests_running)$(metric requests_queued)" = 00 ] && break
	sleep 0.1
done
[ "$(metric requests_running)$(metric requests_queued)" = 00 ] || fail "requests are left over"
for _ in $(seq 1200); do # those of the last step come back when it has landed
	[ "$(metric kv_pages_used)" = 0 ] && break
	sleep 0.1
done
[ "$(metric kv_pages_used)" = 0 ] || fail "$(metric kv_pages_used) pages are lost"
for _ in $(seq 1200); do # counted behind the pages
	[ "$(metric requests_total)" = "$(metric requests_done_total)" ] && break
	sleep 0.1
done
[ "$(metric requests_total)" = "$(metric requests_done_total)" ] || fail "requests without an end"
curl -sSf "$url/flush_cache" >/dev/null || fail "flush"
[ "$(metric kv_pages_cached)" = 0 ] || fail "pages stay cached"
kill -TERM "$server"
code=0
wait "$server" || code=$?
[ "$code" = 0 ] || fail "exit code $code"
echo "ok nothing is left over"
