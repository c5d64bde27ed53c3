#!/bin/bash
# ocai QUESTION with a scripted server in place of a large model: tools, measured facts, documents with sources, assistants
# of the configuration, rules, a server of another host; and with the embedded model, which only suggests commands.
set -u
cd "$(dirname "$0")/../.."
top=$PWD
bin=$(realpath "${BUILD_DIR:-build/release}")/bin
[[ -x $bin/ocai ]] || { echo "no $bin/ocai"; exit 77; }
command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 77; }

tmp=$(mktemp -d)
finish() {
	local p
	kill $(jobs -pr) 2>/dev/null
	for p in /proc/[0-9]*; do
		tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -q "ocai-engine serve .*$tmp/run/ocai/engine.sock" && kill "${p#/proc/}"
	done
	rm -rf "$tmp"
}
trap finish EXIT
fail() { echo "FAILED: $*"; exit 1; }

mkdir -m 700 "$tmp/run" "$tmp/home" "$tmp/home/ocai"
export XDG_RUNTIME_DIR=$tmp/run XDG_CONFIG_HOME=$tmp/home XDG_DATA_HOME=$tmp/data XDG_STATE_HOME=$tmp/state HOME=$tmp/home
export LC_ALL=C.UTF-8
unset OCAI_URL OCAI_MODEL OCAI_TIMEOUT OCAI_ENGINE OCAI_API_KEY_FILE OCAI_ALLOW_REMOTE http_proxy HTTP_PROXY
cd "$tmp"

n_servers=0
# serve ADDRESS: the script is standard input; the server's url in $url, its log in $log.
serve() {
	log=$tmp/log.$((++n_servers))
	: >"$log"
	cat >"$tmp/script"
	rm -f "$tmp/port"
	python3 "$top/tests/integration/fake-openai/server.py" "$1" "$tmp/script" "$log" "$tmp/port" &
	for _ in $(seq 2400); do [[ -s $tmp/port ]] && break; sleep 0.05; done
	[[ -s $tmp/port ]] || fail "the scripted server did not start"
	url=http://$1:$(<"$tmp/port")
}
# run EXPECTED_STATUS ARGS...: output in $out, errors in $errors; standard input is the caller's.
run() {
	local want=$1 rc
	shift
	out=$(timeout 300 "$bin/ocai" "$@" 2>"$tmp/err")
	rc=$?
	errors=$(<"$tmp/err")
	[[ $rc == "$want" ]] || fail "ocai $*: status $rc, expected $want: $out $errors"
}

# ---- The state of this machine: measured, then explained; tools; a number that was not measured is named.
serve 127.0.0.1 <<'S'
{"say": "Let me look.", "call": [["system_facts", {"section": "storage"}], ["list_processes", {"limit": 3}]]}
{"say": "The machine is fine. It has 987654 disks."}
{"say": "机器状态正常。"}
S
run 0 --url "$url" "why is my machine slow" </dev/null
[[ $errors == *"[sys: state of this machine]"* ]] || fail "not routed to sys: $errors"
[[ $errors == *'[1] system_facts {"section": "storage"} ... '*" s, "* ]] || fail "the step is not shown: $errors"
[[ $errors == *"[2] list_processes"* ]] || fail "the second step is not shown: $errors"
[[ $errors == *"findings"* ]] || fail "the findings are not shown: $errors"
[[ $errors == *"none of the measured facts: 987654"* ]] || fail "an invented number is not named: $errors"
[[ $out == "The machine is fine. It has 987654 disks." ]] || fail "answer: $out"
run 0 --url "$url" "系统为什么这么慢" </dev/null
[[ $errors == *"[sys: 本机状态]"* && $errors == *"发现"* && $out == "机器状态正常。" ]] || fail "sys in Chinese: $out $errors"
run 0 -q --url "$url" "系统为什么这么慢" </dev/null
[[ $errors == "" && $out == "机器状态正常。" ]] || fail "-q: $out $errors"
python3 - "$log" <<'P' || fail "what the model was sent"
import json, sys
posts = [json.loads(l)["body"] for l in open(sys.argv[1]) if json.loads(l)["body"]]
first, second = posts[0], posts[1]
names = [t["function"]["name"] for t in first["tools"]]
assert {"system_facts", "perf_sample", "unit_log", "package_owner", "man_page", "read_file", "kb_search", "run_command"} <= set(names), names
assert "measured" in first["messages"][0]["content"]
assert "--- standard input ---" in first["messages"][1]["content"]
tool = [m for m in second["messages"] if m["role"] == "tool"]
assert len(tool) == 2 and "mounts" in tool[0]["content"] and "PID" in tool[1]["content"], tool
assert second["messages"][2]["tool_calls"][0]["function"]["name"] == "system_facts"
P

# Without a server the findings are there all the same.
run 1 --url http://127.0.0.1:1 "why is this server slow" </dev/null
[[ $out == *findings* && $errors == *"no server answers"* ]] || fail "findings without a server: $out $errors"

# ---- Packages: a real rpm database, in a home of its own, asked through the tools.
if command -v rpmbuild >/dev/null && [[ $(rpm -E '%{_dbpath}') == "$HOME"* ]]; then
	cat >example.spec <<SPEC
Name: ocai-example
Version: 1.2
Release: 3
Summary: an example
License: MIT
BuildArch: noarch
%description
example
%install
mkdir -p %{buildroot}$tmp/opt
echo data >%{buildroot}$tmp/opt/data.txt
%files
$tmp/opt/data.txt
SPEC
	rpmbuild -bb --quiet --define "_topdir $tmp/rpm" example.spec >/dev/null 2>&1 || fail "rpmbuild"
	rpm -i --nodeps rpm/RPMS/noarch/*.rpm >/dev/null 2>&1
	echo changed >"$tmp/opt/data.txt"
	serve 127.0.0.1 <<S
{"call": [["package_owner", {"path": "$tmp/opt/data.txt"}], ["package_verify", {"package": "ocai-example"}], ["package_info", {"package": "ocai-example"}], ["package_history", {}], ["package_info", {"package": "no-such"}]]}
{"say": "known"}
S
	run 0 --url "$url" chat "who owns it" </dev/null
	python3 - "$log" <<'P' || fail "what the tools said of packages: $(tail -n1 "$log")"
import json, sys
said = [m["content"] for m in json.loads(open(sys.argv[1]).readlines()[-1])["body"]["messages"] if m["role"] == "tool"]
owner, verify, info, history, none = said
assert "ocai-example" in owner and "1.2-3.noarch" in owner, owner
assert "data.txt" in verify and "content" in verify, verify
assert "an example" in info and "MIT" in info and "1.2-3.noarch" in info, info
assert "ocai-example" in history, history
assert "No package no-such is installed" in none, none
P
else
	echo "no rpmbuild: packages were not tested"
fi

# ---- Documents: a question they cover is answered from them, with the sources at the end.
mkdir docs
printf '# 备份策略\n\n数据库备份每天凌晨两点运行,保留三十天,放在 /srv/backup。\n' >docs/backup.md
printf '# VPN\n\nThe VPN gateway of the office is vpn.example.org, port 1194.\n' >docs/vpn.md
run 0 kb add "$tmp/docs" </dev/null
serve 127.0.0.1 <<'S'
{"say": "每天凌晨两点运行 [1]。"}
S
run 0 --url "$url" "什么是数据库备份策略" </dev/null
[[ $errors == *"[kb: 知识库]"* ]] || fail "not routed to the documents: $errors"
[[ $out == $'每天凌晨两点运行 [1]。\n\n来源:\n[1] '*"docs/backup.md:"* && $out != *"[2]"* ]] || fail "sources: $out"
grep -q '保留三十天' "$log" || fail "the passage did not go to the model"
run 0 --url "$url" "how to reach the VPN gateway of the office" </dev/null
[[ $errors == *"[kb: "* && $out == *"docs/vpn.md:"* ]] || fail "a question that looks like a command: $out $errors"
run 0 --url "$url" "show disk usage" </dev/null
[[ $errors == *"[cmd: "* && $out == *d[fu]* ]] || fail "a command is a command: $out $errors"
run 0 --url "$url" "what is a symlink" </dev/null
[[ $errors == *"[chat: "* ]] || fail "what the documents do not cover: $errors"
run 1 --url "$url" "according to the docs what is zzyzx" </dev/null
[[ $errors == *"your documents hold nothing about this"* ]] || fail "nothing found: $errors"

# ---- An assistant of the configuration is a row: its prompt, tools and output rule.
cat >"$tmp/home/ocai/ocai.conf" <<C
[backend]
url = $url
[tools]
run-read = true
[assistant poet]
prompt = You are a poet.
tools = man_page, run_command
about = verses
[assistant kube]
prompt = One kubectl command.
output = command
C
serve 127.0.0.1 <<'S'
{"call": [["run_command", {"command": "echo roses; rm -rf /tmp/nothing-there"}]]}
{"call": [["run_command", {"command": "echo roses | wc -c"}]]}
{"say": "Roses."}
{"say": "kubectl get pods"}
S
sed -i "s|^url = .*|url = $url|" "$tmp/home/ocai/ocai.conf"
run 0 poet "a verse" </dev/null
[[ $out == Roses. ]] || fail "own assistant: $out $errors"
[[ $errors == *'[1] run_command'*"nobody can be asked here"* ]] || fail "a change ran unasked: $errors"
grep -q 'exit code 0\\n6' "$log" || fail "the command that reads did not run: $(tail -n1 "$log")"
grep -q '"content": "You are a poet' "$log" || fail "its prompt was not used"
grep -q '"run_command"' "$tmp/state/ocai/audit.jsonl" && fail "the audit log names the tool, not the command"
grep -q 'echo roses | wc -c' "$tmp/state/ocai/audit.jsonl" || fail "the command is not in the audit log"
run 0 --json kube "show all pods" </dev/null
[[ $out == *'"command":"kubectl get pods"'* ]] || fail "own command assistant: $out"

# ---- cmd --json obeys the rules of the user.
printf 'deny kubectl get\n' >"$tmp/home/ocai/gate.rules"
run 0 --json kube "show all pods" </dev/null
[[ $out == *'"verdict":"deny"'* && $out == *gate.rules* ]] || fail "cmd --json without the rules: $out"
rm "$tmp/home/ocai/gate.rules" "$tmp/home/ocai/ocai.conf"

# ---- A server of another host: refused; with leave, named and sent no secret; a key that others can read is refused.
address=$(hostname -I 2>/dev/null | tr ' ' '\n' | grep -m1 '^[0-9.]*$' || true)
if [[ -n $address ]]; then
	serve "$address" <<'S'
{"call": [["run_command", {"command": "cat secrets.txt"}]]}
{"say": "done"}
S
	run 1 --url "$url" "hello" </dev/null
	[[ $errors == *"is not this machine"*"allow-remote"* && ! -s $log ]] || fail "a remote server was asked without leave: $errors"
	printf 'password=hunter2hunter2\nAKIAIOSFODNN7EXAMPLE\n' >secrets.txt
	printf '[backend]\nurl = %s\nallow-remote = true\n[tools]\nrun-read = true\n' "$url" >"$tmp/home/ocai/ocai.conf"
	run 0 "why" < <(echo "login failed: token=ghp_16C7e42F292c6912E7710c838347Ae178B4a")
	[[ $out == done && $errors == *"remote: $address"* ]] || fail "remote: $out $errors"
	grep -q 'exit code 0' "$log" || fail "the result did not go: $(tail -n1 "$log")"
	grep -q 'hunter2hunter2\|AKIAIOSFODNN7EXAMPLE\|ghp_16C7' "$log" && fail "a secret left this machine"
	echo key >"$tmp/key"
	chmod 644 "$tmp/key"
	OCAI_API_KEY_FILE=$tmp/key run 1 "hello" </dev/null
	[[ $errors == *"others can read the key (mode 644); chmod 600 it"* ]] || fail "a wide key: $errors"
	rm "$tmp/home/ocai/ocai.conf"
else
	echo "no address but loopback: a remote server was not tried"
fi

# ---- The embedded model.
[[ -x $bin/ocai-engine && -s $top/engine/models/mini/ocai-mini.gguf ]] || { echo "ok (no embedded model here)"; exit 0; }
run 0 "why is my machine slow" </dev/null
[[ $out == *findings* && $errors == *"only suggests commands"* ]] || fail "findings with the embedded model: $out $errors"
run 0 "什么是数据库备份策略" </dev/null
[[ $out == "[1] "*docs/backup.md*凌晨两点* && $errors == *"只会给出命令"* ]] || fail "passages with the embedded model: $out $errors"
run 1 "hello" </dev/null
[[ $out == "" && $errors == *"only suggests commands"*"url in [backend]"* ]] || fail "chat with the embedded model: $out $errors"
run 1 code "a script that counts lines" </dev/null
[[ $out == "" && $errors == *"only suggests commands"* ]] || fail "code with the embedded model: $out $errors"
run 0 "查看内存使用情况" </dev/null
[[ $out == *free* ]] || fail "a command with the embedded model: $out"
echo ok
