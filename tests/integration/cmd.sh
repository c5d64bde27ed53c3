#!/bin/bash
# ocai cmd with the real engine: started once by two callers, private files, clear failures, no command run.
# With the embedded model the answer must be a command; without it a fixture with random weights stands in,
# and "no command in the answer" is as good as one.
set -u
cd "$(dirname "$0")/../.."
bin=$(realpath "${BUILD_DIR:-build/release}")/bin
[[ -x $bin/ocai ]] || { echo "no $bin/ocai"; exit 77; }

tmp=$(mktemp -d)
# Process ids of the engines that serve our socket.
engines() {
	local p
	for p in /proc/[0-9]*; do
		tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -q "ocai-engine serve .*$tmp/run/ocai/engine.sock" && echo "${p#/proc/}"
	done | grep .
}
finish() {
	local pids
	pids=$(engines) && kill $pids
	rm -rf "$tmp"
}
trap finish EXIT
fail() { echo "FAILED: $*"; exit 1; }

mkdir -m 700 "$tmp/run" "$tmp/home"
export XDG_RUNTIME_DIR=$tmp/run XDG_CONFIG_HOME=$tmp/home HOME=$tmp/home
# The catalogue answers what it is certain of without an engine; here the engine is what is tested.
export OCAI_KNOWLEDGE_DIR=/nonexistent
unset OCAI_URL OCAI_MODEL OCAI_TIMEOUT OCAI_ENGINE OCAI_API_KEY_FILE

# run EXPECTED_STATUS ARGS...: output in $out, errors in $errors
run() {
	local want=$1 rc
	shift
	out=$("$bin/ocai" cmd --no-history "$@" 2>"$tmp/err" </dev/null)
	rc=$?
	errors=$(<"$tmp/err")
	[[ $want == any || $rc == "$want" ]] || fail "ocai cmd $*: status $rc, expected $want: $out $errors"
	status=$rc
}

# Wrong usage is 2, everything that fails 1, with a sentence.
run 2
[[ $errors == *"a question is missing"* ]] || fail "$errors"
run 2 --no-such-option hi
run 1 --url http://127.0.0.1:1 hi
[[ $errors == *"no server answers at http://127.0.0.1:1"* ]] || fail "$errors"
run 1 --url nonsense hi
OCAI_ENGINE=/nonexistent run 1 hi
[[ $errors == *"/nonexistent: no such program"* ]] || fail "$errors"

[[ -x $bin/ocai-engine ]] || { echo "no $bin/ocai-engine: only the errors were tested"; exit 77; }

# An engine that cannot start: its own words.
mkdir -p "$tmp/home/ocai"
printf '[engine]\nmodel = /nonexistent/model\n' >"$tmp/home/ocai/ocai.conf"
run 1 hi
[[ $errors == *"its log ends"*"/nonexistent/model"* ]] || fail "$errors"

embedded=1
if [[ ! -e engine/models/mini/config.json && -z $(compgen -G 'engine/models/mini/*.gguf') ]]; then
	embedded=0
	printf '[engine]\nmodel = %s\n' "$PWD/tests/fixtures/models/qwen3" >"$tmp/home/ocai/ocai.conf"
else
	: >"$tmp/home/ocai/ocai.conf"
fi

# Two callers, one engine.
"$bin/ocai" cmd --print "show disk usage" >"$tmp/a" 2>&1 &
"$bin/ocai" cmd --print "列出当前目录下的文件" >"$tmp/b" 2>&1 &
wait
n=$(engines | wc -l)
((n == 1)) || fail "$n engines run: $(cat "$tmp/a" "$tmp/b")"
[[ $(stat -c %a "$tmp/run/ocai") == 700 ]] || fail "the folder is not private"
[[ $(stat -c %a "$tmp/run/ocai/engine.log") == 600 ]] || fail "the log is not private"

run any --print "show disk usage"
if ((embedded)); then
	((status == 0)) && [[ -n $out ]] || fail "no command from the embedded model: $out $errors"
	run 0 --json "列出当前目录下的文件"
	[[ $out == '{"question":"列出当前目录下的文件","command":"'* ]] || fail "$out"
	run 0 "查看内存"
	[[ -n $out && $out != *$'\n'* ]] || fail "not the command alone: $out"
else
	((status == 0)) || [[ $status == 1 && $errors == *"the model's answer"* ]] || fail "$status $out $errors"
fi
(($(engines | wc -l) == 1)) || fail "a second engine was started"

# A dead engine is replaced.
kill -9 $(engines)
for ((i = 0; i < 600; i++)); do engines >/dev/null || break; sleep 0.1; done
run any --print "show disk usage"
((status == 0)) || [[ $status == 1 && $errors == *"the model's answer"* ]] || fail "after a crash: $status $out $errors"
(($(engines | wc -l) == 1)) || fail "no engine after a crash"

# A folder that others can enter is refused.
chmod 755 "$tmp/run/ocai"
run 1 hi
[[ $errors == *"others have access"* ]] || fail "$errors"
chmod 700 "$tmp/run/ocai"
echo "ocai cmd: passed"
