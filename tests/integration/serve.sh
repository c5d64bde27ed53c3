#!/bin/bash
# The server as a process: ready in time, unix socket, SIGTERM while a stream runs, idle CPU, idle exit, wrong usage.
set -eu
. "$(dirname "$0")/serve/lib.sh"
model=$top/tests/fixtures/models/deepseek_v3
start_ref() { start --model "$model" --backend ref "$@"; }

start_ref --socket "$work/sock" --drain 300
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

# Clock ticks of user and system time over two seconds without requests (100 per second). It may have something to put away
# first; what wakes up again and again does so in every window.
ticks() { awk '{print $14 + $15}' "/proc/$server/stat"; }
for _ in {1..10}; do
	before=$(ticks)
	sleep 2
	used=$(($(ticks) - before))
	[ "$used" -le 1 ] && break
done
[ "$used" -le 1 ] || fail "$used ticks of CPU while idle"
echo "ok idle takes no CPU"

body='{"prompt":"a","max_tokens":1500,"ignore_eos":true,"stream":true}'
curl -sSN "$url/v1/completions" -d "$body" >"$work/stream" &
reader=$!
for _ in $(seq 6000); do [ -s "$work/stream" ] && break; sleep 0.02; done
[ -s "$work/stream" ] || fail "no stream"
kill -TERM "$server"
wait "$reader" || fail "the stream was cut"
tail -n 3 "$work/stream" | grep -q '^data: \[DONE\]' || fail "the stream did not end"
grep -q '"finish_reason":"length"' "$work/stream" || fail "the stream did not finish its tokens"
code=0
wait "$server" || code=$?
[ "$code" = 0 ] || fail "exit code $code after SIGTERM"
[ ! -e "$work/sock" ] && [ ! -e "$work/port" ] || fail "files were left behind"
echo "ok SIGTERM lets a stream finish"

# Its second runs as soon as it listens, so on a machine that stands still it may have gone before it is asked.
asked=
"$engine" serve --model "$model" --backend ref --port 0 --port-file "$work/port" --idle-exit 1 >"$work/log" 2>&1 &
server=$!
for _ in {1..2400}; do
	begin=$(date +%s%N)
	port=$(cat "$work/port" 2>/dev/null) && curl -sS "http://127.0.0.1:$port/health" >/dev/null 2>&1 && asked=1 && break
	kill -0 "$server" 2>/dev/null || break
	sleep 0.05
done
code=0
wait "$server" || code=$?
ms=$((($(date +%s%N) - begin) / 1000000))
[ "$code" = 0 ] || fail "exit code $code after being idle"
grep -q 'idle for long enough' "$work/log" || fail "it ended for another reason"
[ -z "$asked" ] || [ "$ms" -ge 900 ] || fail "idle exit $ms ms after a request"
echo "ok an idle server ends"

# systemd's own tool hands the sockets over as systemd does: it listens, and starts the program when somebody connects.
if command -v systemd-socket-activate >/dev/null; then
	for _ in {1..20}; do # a port that is free now may be somebody's a moment later
		port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
		(exec systemd-socket-activate -l "127.0.0.1:$port" -l "$work/activated" \
			"$engine" serve --model "$model" --backend ref --idle-exit 5 --port 1 --socket "$work/unused") 2>"$work/log" &
		server=$!
		for _ in {1..600}; do
			[ -S "$work/activated" ] && break 2
			kill -0 "$server" 2>/dev/null || break
			sleep 0.05
		done
	done
	# The first connections wait while the model is loaded: both are there when its time begins.
	curl -sS "http://127.0.0.1:$port/health" >"$work/second" &
	second=$!
	[ "$(curl -sS --unix-socket "$work/activated" http://x/health)" = '{"status":"ok"}' ] || fail "activated by the unix socket"
	wait "$second" && [ "$(cat "$work/second")" = '{"status":"ok"}' ] || fail "the second socket of an activated server"
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
