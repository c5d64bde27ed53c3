#!/bin/bash
# The prompt cache on disk with the embedded model: found after SIGTERM and after SIGKILL, the same answer with it and
# without, damaged files removed, a folder in use left alone, and a full disk that nobody notices but the metrics.
set -eu
. "$(dirname "$0")/serve/lib.sh"
export OCAI_MODEL_DIR=$top/engine/models/mini
mounted=
at_end() { [ -z "$mounted" ] || umount "$mounted" 2>/dev/null || true; }
start_cached() { start --threads 2 --cache-dir "$@"; } # FOLDER OPTION...

stop() { # SIGNAL
	kill "-$1" "$server"
	wait "$server" 2>/dev/null || true
}

# Some 600 tokens, the same every time.
prompt=$(for i in $(seq 120); do printf 'restart the service number %d and show its log. ' "$i"; done)
body=$(printf '{"prompt":"%s","max_tokens":8,"temperature":0,"ignore_eos":true}' "$prompt")
ask() { curl -sS -H 'Content-Type: application/json' -d "$body" "$url/v1/completions" >"$work/answer"; }
field() { python3 -c 'import json,sys; a=json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$work/answer" "$1"; }
cached() { field 'a["usage"]["prompt_tokens_details"]["cached_tokens"]'; }
text() { field 'a["choices"][0]["text"]'; }
metric() { curl -sS "$url/metrics" | sed -n "s/^ocai_engine_$1 //p"; }
files() { find "$1" -name '*.kv' | wc -l; }
written() { # FOLDER N: waits until the idle server has written so many pages
	for _ in $(seq 600); do
		[ "$(files "$1")" -ge "$2" ] && return
		sleep 0.2
	done
	fail "$(files "$1") of $2 pages were written to $1"
}

start_cached "$work/cache"
ask
[ "$(cached)" = 0 ] || fail "cached at the first start: $(cat "$work/answer")"
n=$(field 'a["usage"]["prompt_tokens"]')
want=$(text)
stop TERM
pages=$(files "$work/cache") # all of them: the end of a server writes what was not written yet
[ "$pages" -gt 1 ] || fail "$pages pages were written"
start_cached "$work/cache"
ask
[ "$(cached)" -gt $((n * 8 / 10)) ] || fail "only $(cached) of $n tokens were found after a restart"
[ "$(text)" = "$want" ] || fail "another answer from the cache: $(text)"
[ "$(metric disk_tokens_total)" = "$(cached)" ] || fail "metrics: $(metric disk_tokens_total)"
echo "ok $(cached) of $n tokens found after a restart, the same answer"

stop KILL
start_cached "$work/cache"
ask
[ "$(cached)" -gt $((n * 8 / 10)) ] && [ "$(text)" = "$want" ] || fail "after kill -9: $(cached) tokens"
echo "ok found after kill -9"

"$engine" serve --threads 1 --port 0 --port-file "$work/port2" --cache-dir "$work/cache" 2>"$work/log2" &
second=$!
for _ in $(seq 2400); do [ -s "$work/port2" ] && break; sleep 0.05; done
kill "$second" && wait "$second" || fail "the second server: $(cat "$work/log2")"
grep -q 'no prompt cache: .*another process' "$work/log2" || fail "a second server said nothing: $(cat "$work/log2")"
echo "ok a folder in use is left to its owner"

stop TERM
find "$work/cache" -name '*.kv' | while read -r f; do printf 'damage' | dd of="$f" bs=1 seek=5000 conv=notrunc status=none; done
start_cached "$work/cache"
ask
[ "$(cached)" = 0 ] && [ "$(text)" = "$want" ] || fail "damaged files: $(cached) cached, $(text)"
[ "$(metric disk_damaged_total)" -gt 0 ] || fail "no damage was counted"
written "$work/cache" "$pages"
stop KILL
start_cached "$work/cache"
ask
[ "$(cached)" -gt 0 ] && [ "$(text)" = "$want" ] || fail "not written again"
stop TERM
echo "ok damaged files are removed, computed and written again"

# Other weights have pages of their own, and find them again; so do the first ones.
model=$(echo "$OCAI_MODEL_DIR"/*.gguf)
cp "$model" "$work/other.gguf"
update() { curl -sSf -H 'Content-Type: application/json' -d "{\"model_path\":\"$1\"}" "$url/update_weights_from_disk" >/dev/null || fail "update to $1"; }
start_cached "$work/weights"
ask
[ "$(cached)" = 0 ] || fail "an empty folder had pages"
written "$work/weights" "$pages"
update "$work/other.gguf"
ask
[ "$(cached)" = 0 ] && [ "$(text)" = "$want" ] || fail "pages of other weights were used: $(cached)"
written "$work/weights" $((pages * 2))
for path in "$model" "$work/other.gguf"; do
	before=$(metric disk_tokens_total)
	update "$path"
	ask
	[ "$(cached)" -gt $((n * 8 / 10)) ] && [ "$(text)" = "$want" ] || fail "after an update to $path: $(cached) tokens"
	[ "$(metric disk_tokens_total)" = $((before + $(cached))) ] || fail "not from the disk: $before, $(metric disk_tokens_total)"
done
update "$work/other.gguf" # the same ones again: the cache stays as it is
ask
[ "$(cached)" -gt $((n * 8 / 10)) ] || fail "after an update to what there was: $(cached)"
stop TERM
start_cached "$work/weights" --model "$work/other.gguf"
ask
[ "$(cached)" -gt $((n * 8 / 10)) ] || fail "after a restart with the other weights: $(cached)"
stop TERM
echo "ok each weights have pages of their own, before and after an update"

"$engine" serve --port 0 --cache-dir "$work/cache" --cache-bytes 1 2>"$work/log" && fail "a budget without a page was taken"
grep -q 'do not hold one page' "$work/log" || fail "no reason given for the budget"
echo "ok a budget that holds nothing is refused"

mkdir "$work/small"
if mount -t tmpfs -o size=700k none "$work/small" 2>/dev/null; then
	mounted=$work/small
	start_cached "$work/small"
	ask
	[ "$(text)" = "$want" ] || fail "on a full disk: $(text)"
	for _ in $(seq 1200); do [ "$(metric disk_write_errors_total)" != 0 ] && break; sleep 0.1; done
	[ "$(metric disk_write_errors_total)" -gt 0 ] || fail "no error was counted"
	ask
	[ "$(text)" = "$want" ] || fail "after the disk was full: $(text)"
	stop TERM
	echo "ok a full disk costs the cache and nothing else"
else
	echo "skip a full disk: tmpfs cannot be mounted here"
fi
