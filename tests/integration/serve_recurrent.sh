#!/bin/bash
# A model with recurrent layers behind the server, as a folder and as GGUF that quantize made of it: greedy answers are the
# stored ones, alone, together, again from the cache, after a flush; the next turn of a conversation finds the last one's
# answer; states have a budget of their own; what such a model cannot do is told at the start.
set -u
. "$(dirname "$0")/serve/lib.sh"
folder=$top/tests/fixtures/formats/qwen3_next

"$engine" serve --model "$folder" --state-bytes 20K --port 0 >"$work/log" 2>&1 && fail "states beyond their budget"
grep -q "does not hold a recurrent state and a copy" "$work/log" || fail "a small budget: $(<"$work/log")"

"$engine" quantize --model "$folder" --type f32 -o "$work/model.gguf" >"$work/log" 2>&1 || fail "quantize"
"$engine" quantize --model "$folder" --type q8_0 -o "$work/small.gguf" >"$work/log" 2>&1 || fail "quantize to q8_0"
"$engine" run --model "$work/small.gguf" --raw --max-tokens 8 "restart nginx" >"$work/answer" 2>"$work/log" || fail "q8_0 does not run"

for model in "$folder" "$work/model.gguf"; do
	start --model "$model" --precision exact --cache-dir "$work/cache" --max-running 4
	grep -q "recurrent states" "$work/log" || fail "the plan says nothing of states"
	grep -q "no speculation" "$work/log" || fail "nothing is said of speculation"
	grep -q "no prompt cache on disk" "$work/log" || fail "nothing is said of the disk"
	python3 - "$url" "$folder" <<'PY' || fail "answers of $model"
import json, sys, threading, urllib.request

url, folder = sys.argv[1:]
prompts = json.load(open(f"{folder}/expected.json"))["prompts"]
wrong = []

def post(path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return reply.read()

def ask(ids, n):
    body = {"input_ids": ids, "sampling_params": {"temperature": 0, "max_new_tokens": n, "ignore_eos": True}}
    answer = json.loads(post("/generate", body))
    return answer["output_ids"], answer["meta_info"]["cached_tokens"]

def check(prompt):
    ids, cached = ask(prompt["ids"], len(prompt["gen"]))
    if ids != prompt["gen"]:
        wrong.append((ids, prompt["gen"]))

def metric(name):
    with urllib.request.urlopen(url + "/metrics") as reply:
        for line in reply.read().decode().split("\n"):
            if line.startswith(f"ocai_engine_{name} "):
                return float(line.split()[1])

for _ in range(3):
    threads = [threading.Thread(target=check, args=(p,)) for p in prompts for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
assert not wrong, wrong[0]
long = prompts[1]["ids"]
assert ask(long, 1)[1] == (len(long) - 1) // 32 * 32, "the prompt is not cached up to its last page"
post("/flush_cache", {})
assert metric("state_checkpoints") == 0 and ask(long, 1)[1] == 0
# A conversation: what was asked, the answer, and more.
first = [(i * 37 + 11) % 600 for i in range(50)]
answer, _ = ask(first, 60)
again, cached = ask(first + answer + [7, 8, 9], 5)
assert cached == 96, f"the next turn finds {cached} tokens"
assert again == ask(first + answer + [7, 8, 9], 5)[0]
assert metric("states_running") == 0 and 0 < metric("state_checkpoints") <= metric("states") - 4
post("/update_weights_from_disk", {"model_path": folder})
assert ask(long, 1)[1] == 0
check(prompts[1])
assert not wrong, wrong[0]
PY
	kill $server
	wait $server || fail "the server ends with $?"
	[[ -e $work/cache ]] && fail "pages on disk"
done
echo "a folder and GGUF: all as stored"
