#!/bin/bash
# The server as a process: ready in time, unix socket, SIGTERM while a stream runs, idle CPU, idle exit, wrong usage.
set -eu
. "$(dirname "$0")/serve/lib.sh"
model=$top/tests/fixtures/models/deepseek_v3
start_ref() { start --model "$model" --backend ref "$@"; }

start_ref --socket "$work/sock"
[ "$(curl -sS "$url/health")" = '{"status":"ok"}' ] || fail "health"
[ "$(curl -sS --unix-socket "$work/sock" http://x/health)" = '{"status":"ok"}' ] || fail "health on the unix socket"
[ "$(stat -c %a "$work/sock")" = 600 ] || fail "mode of the socket"
echo "ok ready on TCP and unix socket"

[ "$("$engine" health --port "$(cat "$work/port")")" = ok ] || fail "ocai-engine health"
[ "$("$engine" health --socket "$work/sock")" = ok ] || fail "ocai-engine health on the unix socket"
[ "$(OCAI_ENGINE_HOST=0.0.0.0 OCAI_ENGINE_PORT=$(cat "$work/port") "$engine" health)" = ok ] || fail "health as configured"
"$engine" health --port 1 2>"$work/log2" && fail "health of nobody"
grep -q 'refused' "$work/log2" || fail "health of nobody: $(cat "$work/log2")"
echo "ok health is asked without another program"

memory='memory: weights [0-9.]+ MiB mapped and [0-9.]+ MiB beside them, K/V [0-9.]+ MiB \([0-9]+ pages of [0-9]+ tokens\), activations'
[ "$(grep -cE "$memory" "$work/log")" = 1 ] || fail "no memory plan was printed"
grep -nE "$memory|serving" "$work/log" | head -n 1 | grep -q memory: || fail "the memory plan came late"
echo "ok the memory plan is printed first"

"$engine" serve --model "$model" --port "$(cat "$work/port")" 2>"$work/log2" && fail "two servers on one port"
grep -q 'Address already in use' "$work/log2" || fail "no reason given for the port"
echo "ok a port in use is refused with the reason"

# Clock ticks of user and system time over two seconds without requests (100 per second).
ticks() { awk '{print $14 + $15}' "/proc/$server/stat"; }
sleep 0.3
before=$(ticks)
sleep 2
after=$(ticks)
[ $((after - before)) -le 1 ] || fail "$((after - before)) ticks of CPU while idle"
echo "ok idle takes no CPU"

body='{"prompt":"a","max_tokens":1500,"ignore_eos":true,"stream":true}'
curl -sSN "$url/v1/completions" -d "$body" >"$work/stream" &
reader=$!
for _ in $(seq 100); do [ -s "$work/stream" ] && break; sleep 0.02; done
kill -TERM "$server"
wait "$reader" || fail "the stream was cut"
tail -n 3 "$work/stream" | grep -q '^data: \[DONE\]' || fail "the stream did not end"
grep -q '"finish_reason":"length"' "$work/stream" || fail "the stream did not finish its tokens"
code=0
wait "$server" || code=$?
[ "$code" = 0 ] || fail "exit code $code after SIGTERM"
[ ! -e "$work/sock" ] && [ ! -e "$work/port" ] || fail "files were left behind"
echo "ok SIGTERM lets a stream finish"

start_ref --idle-exit 1
curl -sS "$url/health" >/dev/null
begin=$(date +%s%N)
code=0
wait "$server" || code=$?
ms=$((($(date +%s%N) - begin) / 1000000))
[ "$code" = 0 ] || fail "exit code $code after being idle"
[ "$ms" -ge 900 ] && [ "$ms" -lt 5000 ] || fail "idle exit after $ms ms"
echo "ok an idle server ends"

# systemd's own tool hands the sockets over as systemd does: it listens, and starts the program when somebody connects.
if command -v systemd-socket-activate >/dev/null; then
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	(exec systemd-socket-activate -l "127.0.0.1:$port" -l "$work/activated" \
		"$engine" serve --model "$model" --backend ref --idle-exit 1 --port 1 --socket "$work/unused") 2>"$work/log" &
	server=$!
	for _ in $(seq 100); do [ -S "$work/activated" ] && break; sleep 0.02; done
	# The first connection waits while the model is loaded.
	[ "$(curl -sS --unix-socket "$work/activated" http://x/health)" = '{"status":"ok"}' ] || fail "activated by the unix socket"
	[ "$(curl -sS "http://127.0.0.1:$port/health")" = '{"status":"ok"}' ] || fail "the second socket of an activated server"
	grep -q 'listening on the 2 sockets handed over' "$work/log" || fail "the sockets handed over are not told"
	[ ! -e "$work/unused" ] || fail "a socket of its own beside those handed over"
	code=0
	wait "$server" || code=$?
	[ "$code" = 0 ] || fail "exit code $code of an activated server that was idle"
	[ -S "$work/activated" ] || fail "the socket of the one who listens was removed"
	echo "ok sockets handed over are served, and left when idle"
else
	echo "ok # no systemd-socket-activate here"
fi
code=0
(exec env LISTEN_FDS=1 bash -c 'LISTEN_PID=$$ exec "$0" serve --model "$1" --backend ref 3</dev/null' "$engine" "$model") 2>"$work/log" || code=$?
[ "$code" = 1 ] && grep -q 'not a listening stream socket' "$work/log" || fail "a descriptor that is no socket is taken"
code=0
"$engine" serve --idle-exit soon 2>"$work/log" || code=$?
[ "$code" = 2 ] && grep -q "'soon' is neither auto" "$work/log" || fail "exit code $code for --idle-exit=soon"

code=0
"$engine" serve --no-such-option 2>"$work/log" || code=$?
[ "$code" = 2 ] || fail "exit code $code for wrong usage"
code=0
"$engine" serve --model /nonexistent --port 0 2>"$work/log" || code=$?
[ "$code" = 1 ] || fail "exit code $code for a missing model"
grep -q nonexistent "$work/log" || fail "the message does not name the model"
[ "$("$engine" tokenize -m "$top/tests/fixtures/models/qwen3" --ids hello)" = "278 78 78 81" ] || fail "tokenize"
[ "$("$engine" tokenize -m "$top/tests/fixtures/models/qwen3" --decode 278 78 78 81)" = hello ] || fail "decode"
[ -n "$("$engine" run -m "$top/tests/fixtures/models/qwen3" -n 8 -T 0 hello)" ] || fail "run"
echo "ok the other commands"
