#!/bin/bash
# A model with an adapter and without, asked at the same time: greedy answers are the stored ones of each, also when the
# prompts begin alike and their beginnings are in the cache; wrong names and wrong adapters are refused.
set -u
. "$(dirname "$0")/serve/lib.sh"
folder=$top/tests/fixtures/formats/qwen3-lora

"$engine" serve --model "$folder" --lora none="$work" --port 0 >"$work/log" 2>&1 && fail "an empty folder is taken for an adapter"
grep -q "adapter_config.json" "$work/log" || fail "an empty folder: $(<"$work/log")"
"$engine" serve --model "$folder" --lora tuned --port 0 >"$work/log" 2>&1 && fail "--lora without a folder"
grep -q "NAME=FOLDER" "$work/log" || fail "--lora without a folder: $(<"$work/log")"
"$engine" serve --model "$folder" --lora qwen3-lora="$folder/adapter" --port 0 >"$work/log" 2>&1 && fail "the model's own name for an adapter"

start --model "$folder" --lora tuned="$folder/adapter"
python3 - "$url" "$folder" <<'PY' || fail "answers"
import json, sys, threading, urllib.request, urllib.error

url, folder = sys.argv[1:]
wrong = []

def ask(path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)

def check(name, prompt):
    body = {"input_ids": prompt["ids"], "sampling_params": {"temperature": 0, "max_new_tokens": len(prompt["gen"]), "ignore_eos": True}}
    if name != "qwen3-lora":
        body["lora_path"] = name
    status, answer = ask("/generate", body)
    if status != 200 or answer["output_ids"] != prompt["gen"]:
        wrong.append((name, status, answer, prompt["gen"]))

stored = {"qwen3-lora": json.load(open(f"{folder}/expected.json"))["prompts"],
          "tuned": json.load(open(f"{folder}/adapter/expected.json"))["prompts"]}
for _ in range(3):  # the later rounds find prefixes in the cache
    threads = [threading.Thread(target=check, args=(name, p)) for name, prompts in stored.items() for p in prompts]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
assert not wrong, wrong[0]
with urllib.request.urlopen(url + "/v1/models") as reply:
    models = json.load(reply)["data"]
assert [m["id"] for m in models] == ["qwen3-lora", "tuned"] and models[1]["parent"] == "qwen3-lora", models
status, answer = ask("/v1/completions", {"model": "tuned", "prompt": "a", "max_tokens": 1})
assert status == 200 and answer["model"] == "tuned", answer
status, answer = ask("/v1/completions", {"model": "other", "prompt": "a", "max_tokens": 1})
assert status == 404 and answer["error"]["code"] == "model_not_found", answer
with urllib.request.urlopen(url + "/metrics") as reply:
    cached = [l for l in reply.read().decode().split("\n") if l.startswith("ocai_engine_cached_tokens_total ")]
assert float(cached[0].split()[1]) > 0, cached
# Other weights bring their adapters along.
status, answer = ask("/update_weights_from_disk", {"model_path": folder})
assert status == 200, answer
for name, prompts in stored.items():
    check(name, prompts[0])
assert not wrong, wrong[0]
PY
kill $server; wait $server 2>/dev/null

# As many as there may be are all listed.
many=()
for i in {1..255}; do many+=(--lora "adapter-with-a-rather-long-name-of-its-own-$i=$folder/adapter"); done
start --model "$folder" "${many[@]}"
python3 - "$url" <<'PY' || fail "255 adapters"
import json, sys, urllib.request

with urllib.request.urlopen(sys.argv[1] + "/v1/models") as reply:
    models = json.load(reply)["data"]
assert len(models) == 256 and models[-1]["id"].endswith("-255"), len(models)
PY
echo "two models of one: all as stored"
