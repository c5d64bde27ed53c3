#!/bin/bash
# MCP against the official SDK: its client drives `ocai mcp serve`, its server is used by `ocai mcp list` and `call` over
# stdio and HTTP (JSON answers and event streams), with pages, sessions, failures, time limits and Ctrl-C.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
ocai=${BUILD_DIR:-$top/build/release}/bin/ocai
case $ocai in /*) ;; *) ocai=$top/$ocai ;; esac
skip() { echo "skipped: $*"; exit 77; }
fail() { echo "FAILED: $*"; exit 1; }
command -v node >/dev/null && command -v npm >/dev/null || skip "node and npm are not installed"
[ "$(node -p "parseInt(process.versions.node)")" -ge 20 ] || skip "node $(node --version) is older than 20"

# Tests of several builds run side by side: one installs, the others wait. `done` stands for an installation that came to its end.
sdk=$top/build/mcp-sdk
mkdir -p "$sdk"
exec 9>"$sdk/lock"
flock 9
if ! cmp -s "$top/tests/integration/mcp-sdk/package-lock.json" "$sdk/done" || [ ! -d "$sdk/node_modules/@modelcontextprotocol/sdk" ]; then
	rm -f "$sdk/done"
	cp "$top"/tests/integration/mcp-sdk/{package.json,package-lock.json} "$sdk/"
	(cd "$sdk" && timeout 300 npm ci --prefer-offline --no-audit --no-fund --loglevel=error >npm.log 2>&1) ||
		skip "the SDK could not be installed ($(tail -n1 "$sdk/npm.log"))"
	cp "$sdk/package-lock.json" "$sdk/done"
fi
exec 9>&-

work=$(mktemp -d)
js=$(mktemp -d "$sdk/run.XXXXXX") # node looks for packages from where a script lies
trap 'kill $(jobs -pr) 2>/dev/null || true; rm -rf "$work" "$js"' EXIT
cp "$top"/tests/integration/mcp-sdk/{package.json,client.js,server.js} "$js/"
export XDG_DATA_HOME=$work/data XDG_CONFIG_HOME=$work/config HOME=$work
mkdir -p "$work/docs" "$work/config/ocai"
printf '# 磁盘\n\n用 df 查看磁盘空间。\n' >"$work/docs/disk.md"
printf 'first\n第二行\nthird\n' >"$work/lines.txt"
"$ocai" kb add "$work/docs" >/dev/null

for lang in en zh; do
	timeout 300 node "$js/client.js" "$ocai" "$work/lines.txt" $lang
done

cat >"$work/config/ocai/mcp.conf" <<CONF
[stdio]
command = node "$js/server.js" -
env = OCAI_TEST=value, OCAI_TEST_ABORTED=$work/aborted
[gone]
command = /does/not/exist
[dying]
command = sh -c 'echo "cannot open the licence" >&2; exit 3'
[silent]
command = sleep 60
CONF
for kind in json sse; do
	node "$js/server.js" "$work/port-$kind" $kind 2>"$work/server-$kind.log" &
	for _ in $(seq 1200); do [ -s "$work/port-$kind" ] && break; sleep 0.1; done
	[ -s "$work/port-$kind" ] || fail "the $kind server did not start: $(cat "$work/server-$kind.log")"
	printf '[%s]\nurl = http://127.0.0.1:%s/mcp\n' $kind "$(cat "$work/port-$kind")" >>"$work/config/ocai/mcp.conf"
done

for kind in stdio json sse; do
	out=$(timeout 300 "$ocai" mcp list $kind 2>"$work/err") || fail "list $kind: $(cat "$work/err")"
	[ ! -s "$work/err" ] || fail "list $kind: standard error of the server came through: $(cat "$work/err")"
	[ "$(grep -c "^$kind  " <<<"$out")" = 4 ] || fail "list $kind: expected 4 tools of 2 pages, got: $out"
	out=$(timeout 300 "$ocai" mcp call $kind echo '{"a":"中文","n":[1,2]}') || fail "call $kind echo"
	[ "$out" = '{"a":"中文","n":[1,2]}'$'\n''[image]' ] || fail "call $kind echo: $out"
	out=$(timeout 300 "$ocai" mcp call --json $kind fail) && fail "call $kind fail: exit 0"
	grep -q '"isError":true' <<<"$out" || fail "call $kind fail: $out"
	timeout 300 "$ocai" mcp call $kind nothing 2>"$work/err" && fail "call $kind nothing: exit 0"
	grep -q 'no such tool' "$work/err" || fail "call $kind nothing: $(cat "$work/err")"
	# The time is for each request, the first greeting too: a machine that stands still needs more of it.
	for limit in 1 5 25; do
		timeout 300 "$ocai" mcp call --timeout $limit $kind slow 2>"$work/err" && fail "call $kind slow: exit 0"
		grep -q "no answer to tools/call within $limit seconds" "$work/err" && { [ $kind != stdio ] || [ -e "$work/aborted" ]; } && break
	done
	grep -q "no answer to tools/call within $limit seconds" "$work/err" || fail "call $kind slow: $(cat "$work/err")"
done
[ -e "$work/aborted" ] || fail "the stdio server was not told of the cancelled request"
for _ in $(seq 600); do [ -e "$work/port-sse.deleted" ] && break; sleep 0.1; done
[ -e "$work/port-sse.deleted" ] || fail "the HTTP session was not ended"
[ "$("$ocai" mcp call stdio env)" = "value -" ] || fail "the environment did not reach the server"

# The assistant's own loop: a server's tools join its table, and are called unasked where mcp.conf allows it.
if command -v python3 >/dev/null; then
	cp "$work/config/ocai/mcp.conf" "$work/mcp.all"
	sed -n '/^\[stdio\]/,/^env/p' "$work/mcp.all" >"$work/config/ocai/mcp.conf"
	echo 'allow = echo' >>"$work/config/ocai/mcp.conf"
	sed -n '/^\[sse\]/,/^url/p' "$work/mcp.all" >>"$work/config/ocai/mcp.conf"
	echo 'allow = *' >>"$work/config/ocai/mcp.conf"
	printf '%s\n' '{"call": [["mcp_stdio_echo", {"a": "中文"}], ["mcp_stdio_env", {}], ["mcp_sse_echo", {"b": 2}], ["mcp_sse_fail", {}]]}' \
		'{"say": "called"}' >"$work/script"
	python3 "$top/tests/integration/fake-openai/server.py" 127.0.0.1 "$work/script" "$work/log" "$work/port-openai" &
	for _ in $(seq 1200); do [ -s "$work/port-openai" ] && break; sleep 0.1; done
	out=$(timeout 300 "$ocai" --no-history --url "http://127.0.0.1:$(cat "$work/port-openai")" "hello" 2>"$work/err" </dev/null) ||
		fail "the loop: $(cat "$work/err")"
	[ "$out" = called ] || fail "the loop: $out"
	grep -q '\[1\] mcp_stdio_echo .* bytes' "$work/err" || fail "the step: $(cat "$work/err")"
	grep -q '\[2\] mcp_stdio_env .*nobody can b' "$work/err" || fail "an MCP tool ran unasked: $(cat "$work/err")"
	grep -q '\[3\] mcp_sse_echo .* bytes' "$work/err" || fail "the step over HTTP: $(cat "$work/err")"
	grep -q '"role": "tool".*{\\"a\\":\\"中文\\"}' "$work/log" || fail "the result did not reach the model: $(tail -n1 "$work/log")"
	cp "$work/mcp.all" "$work/config/ocai/mcp.conf"
fi

"$ocai" mcp call silent x 2>"$work/err" &
pid=$!
# It is deaf to it until it has begun.
for _ in $(seq 600); do
	kill -INT $pid 2>/dev/null || break
	sleep 0.1
done
wait $pid && fail "a cancelled call exits 0"
grep -q 'silent: cancelled' "$work/err" || fail "cancel: $(cat "$work/err")"

"$ocai" mcp list gone 2>"$work/err" && fail "gone: exit 0"
grep -q '/does/not/exist: No such file' "$work/err" || fail "gone: $(cat "$work/err")"
"$ocai" mcp list dying 2>"$work/err" && fail "dying: exit 0"
grep -q 'the server ended: cannot open the licence' "$work/err" || fail "dying: $(cat "$work/err")"
"$ocai" mcp list nobody 2>"$work/err" && fail "nobody: exit 0"
grep -q "no server 'nobody'" "$work/err" || fail "nobody: $(cat "$work/err")"
echo "ok"
