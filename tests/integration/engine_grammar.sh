#!/bin/bash
# Structured output: masks against python3-jsonschema and re over random schemas, check-schema as a program, and a served
# model at temperature 1 whose answers are always valid.
set -eu
. "$(dirname "$0")/serve/lib.sh"
model=$top/tests/fixtures/models/qwen3
python3 -c 'import jsonschema' 2>/dev/null || { echo "skipped: python3-jsonschema is not installed"; exit 77; }

export PYTHONWARNINGS=ignore
for tokenizer in qwen3 llama; do
	python3 "$top/tests/integration/grammar/differential.py" "$build/tests/tools/grammar_check" \
		"$top/tests/fixtures/models/$tokenizer" 11 "${SCHEMAS:-150}" >"$work/log" || fail "differences with $tokenizer"
	echo "ok $(head -n 1 "$work/log")"
	rm "$work/log"
done

cat >"$work/schema" <<'EOF'
{"type":"object","properties":{"name":{"type":"string","maxLength":12},"age":{"type":"integer","minimum":0,"maximum":150},
"tags":{"type":"array","items":{"enum":["red","green"]},"maxItems":3}},"required":["name","age","tags"],"additionalProperties":false}
EOF
echo '{ "name": "Zoë", "tags": ["red"], "age": 41 }' >"$work/good"
echo '{"name": "x", "age": 151, "tags": []}' >"$work/bad"
echo '{"contains": {}}' >"$work/unsupported"
check() { "$engine" check-schema --tokenizer "$model" --schema "$work/$1" --instance "$work/$2" --json; }
[[ $(check schema good) == '{"accepted":true,'* ]] || fail "a valid instance"
r=0 && out=$(check schema bad) || r=$?
[[ $r == 1 && $out == *'"accepted":false'*'"offset":23,'* ]] || fail "an invalid instance: $r $out"
r=0 && check unsupported good 2>"$work/log" || r=$?
[[ $r == 2 ]] && grep -q '#/contains: not supported' "$work/log" || fail "an unsupported keyword"
r=0 && "$engine" check-schema --instance "$work/good" 2>"$work/log" || r=$?
[[ $r == 2 ]] && grep -q 'one of --schema' "$work/log" || fail "no schema"
echo "ok check-schema says accepted, refused, wrong input by its exit status"

start --model "$model"
URL=$url SCHEMA=$(cat "$work/schema") python3 - <<'EOF' || fail "answers of the server"
import json, os, re, urllib.request
import jsonschema
url, schema = os.environ["URL"], json.loads(os.environ["SCHEMA"])

def ask(path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))

chat = {"messages": [{"role": "user", "content": "hi"}], "temperature": 1, "max_tokens": 1500}
for seed in range(12):
    body = dict(chat, seed=seed, n=2, response_format={"type": "json_schema",
                "json_schema": {"name": "x", "strict": True, "schema": schema}})
    for choice in ask("/v1/chat/completions", body)["choices"]:
        assert choice["finish_reason"] == "stop", choice
        jsonschema.validate(json.loads(choice["message"]["content"]), schema)
for seed in range(8):
    text = ask("/v1/completions", {"prompt": "x", "temperature": 1, "max_tokens": 60, "seed": seed,
                                   "regex": "[A-Z]{2,3}-\\d{4}"})["choices"][0]["text"]
    assert re.fullmatch(r"[A-Z]{2,3}-\d{4}", text), text
    text = ask("/generate", {"text": "x", "sampling_params": {"temperature": 1, "max_new_tokens": 300, "sampling_seed": seed,
                             "ebnf": 'root ::= "(" root ")" | [a-c]'}})["text"]
    assert re.fullmatch(r"(\()*[abc](\))*", text) and text.count("(") == text.count(")"), text
    choice = ask("/v1/completions", {"prompt": "x", "temperature": 1, "seed": seed, "guided_choice": ["yes", "no (maybe)"]})["choices"][0]
    assert choice["text"] in ("yes", "no (maybe)") and choice["finish_reason"] == "stop", choice
body = ask("/v1/chat/completions", dict(chat, temperature=0, max_tokens=400, response_format={"type": "json_object"}))
assert body["choices"][0]["message"]["content"].lstrip().startswith("{"), body
print("ok 24 answers to a schema and 24 to expressions and grammars at temperature 1, all valid")
EOF
