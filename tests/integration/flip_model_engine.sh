#!/bin/bash
# ocai-engine --model flip://NAME: a model is loaded while it arrives over a slow link and answers the same ids as from its
# folder; bytes that do not come end the start with words, not with a signal; who may not ask flip is told.
. "$(dirname "$0")/flip/lib.sh"
begin flip-engine docker-registry curl
engine=$build/bin/ocai-engine
[[ -x $engine ]] || skip "no $engine"
mini=engine/models/mini/ocai-mini.gguf
export FLIP_MODELS=$work/models FLIP_CONTROL=$work/control.sock FLIP_RETRIES=1 FLIP_STALL=20 FLIP_MIN_FREE=1M

# A Hugging Face folder in two shards that are larger than what is read ahead, and one GGUF file.
folder=$work/shapes
python3 - "$folder" <<'PY' || fail "no folder"
import json, os, random, struct, sys
folder = sys.argv[1]
os.makedirs(folder)
random.seed(3)
source = "tests/fixtures/models/qwen3"
config = json.load(open(f"{source}/config.json"))
for name in os.listdir(source):
    if name.endswith((".json", ".jinja")) and not name.startswith("expected"):
        open(f"{folder}/{name}", "wb").write(open(f"{source}/{name}", "rb").read())
config.update(num_hidden_layers=6, intermediate_size=6144, hidden_size=512, num_attention_heads=8, num_key_value_heads=4, head_dim=64)
config.pop("layer_types", None)
json.dump(config, open(f"{folder}/config.json", "w"))
h, m, v, q, k, d = 512, 6144, config["vocab_size"], 8 * 64, 4 * 64, 64
shapes = {"model.embed_tokens.weight": [v, h], "model.norm.weight": [h], "lm_head.weight": [v, h]}
for i in range(6):
    p = f"model.layers.{i}."
    shapes |= {p + "input_layernorm.weight": [h], p + "post_attention_layernorm.weight": [h],
               p + "mlp.gate_proj.weight": [m, h], p + "mlp.up_proj.weight": [m, h], p + "mlp.down_proj.weight": [h, m],
               p + "self_attn.q_proj.weight": [q, h], p + "self_attn.k_proj.weight": [k, h], p + "self_attn.v_proj.weight": [k, h],
               p + "self_attn.o_proj.weight": [h, q], p + "self_attn.q_norm.weight": [d], p + "self_attn.k_norm.weight": [d]}
noise = [struct.pack("<e", random.gauss(0, 0.05)) for _ in range(65521)]
noise = b"".join(noise)
index, names = {}, list(shapes)
for part, some in enumerate((names[:35], names[35:])):
    file, header, at, body = f"model-0000{part + 1}-of-00002.safetensors", {}, 0, []
    for name in some:
        n = 2
        for x in shapes[name]:
            n *= x
        s = random.randrange(len(noise) // 2) * 2
        body.append(((noise[s:] + noise[:s]) * (n // len(noise) + 1))[:n])
        header[name] = {"dtype": "F16", "shape": shapes[name], "data_offsets": [at, at + n]}
        at += n
        index[name] = file
    text = json.dumps(header).encode()
    open(f"{folder}/{file}", "wb").write(struct.pack("<Q", len(text)) + text + b"".join(body))
json.dump({"weight_map": index}, open(f"{folder}/model.safetensors.index.json", "w"))
PY
bytes=$(du -sb "$folder" | cut -f1)

start_registry
start_proxy
start_flip
mkdir "$work/mini" && cp $mini "$work/mini/"
"$flip" model push "$folder" 127.0.0.1:$port/m/shapes:1 >/dev/null 2>"$work/out" || fail "push"
"$flip" model push "$work/mini" 127.0.0.1:$port/m/mini:1 >/dev/null 2>"$work/out" || fail "push"
of() { "$flip" model list --json | python3 -c "import json,sys; print([m for m in json.load(sys.stdin) if m['name'] == '$1'][0]['$2'])"; }

ids() { # MODEL: what a server of it answers
	local server url answer
	rm -f "$work/port"
	"$engine" serve --model "$1" --backend cpu --port 0 --port-file "$work/port" --ctx 256 2>"$work/engine.log" &
	server=$!
	keep $server
	until_true eval "[[ -s $work/port ]] || ! kill -0 $server"
	[[ -s $work/port ]] || { cat "$work/engine.log" >&2 && return 1; }
	url=http://127.0.0.1:$(<"$work/port")
	answer=$(curl -sS "$url/generate" -d '{"text":"Once upon","sampling_params":{"temperature":0,"max_new_tokens":24,"ignore_eos":true}}')
	kill $server && wait $server
	python3 -c 'import json,sys; print(json.loads(sys.argv[1])["output_ids"])' "$answer"
}

expected=$(ids "$folder") || fail "the folder is not served"
[[ $(wc -w <<<"$expected") == 24 ]] || fail "not 24 ids: $expected"
fault slow 1000000 # each of some twelve connections
"$flip" model pull -d 127.0.0.1:$proxy_port/m/shapes:1 || fail "pull"
here_before=$(of shapes here)
((here_before < bytes / 2)) || fail "the link is not slow: $here_before of $bytes are here"
got=$(ids flip://shapes) || fail "not served from flip"
[[ $got == "$expected" ]] || fail "other ids while it arrives: $got, from the folder $expected"
[[ $("$engine" run --model flip://shapes --backend cpu --raw -n 4 -T 0 Once 2>&1) == $("$engine" run --model "$folder" --backend cpu --raw -n 4 -T 0 Once 2>&1) ]] ||
	fail "other words"

# One GGUF file: the folder, and the file by name; again when all of it is here.
fault none
"$flip" model pull 127.0.0.1:$proxy_port/m/mini:1 || fail "pull"
expected=$(ids "$mini")
[[ $(ids flip://mini) == "$expected" && $(ids flip://mini/ocai-mini.gguf) == "$expected" ]] || fail "other ids from the GGUF file"

# The daemon gone: what is mounted is read without it.
stop_flip
[[ $(ids flip://mini) == "$expected" ]] || fail "not without the daemon"
must_fail() { # WORDS MODEL
	"$engine" run --model "$2" --raw -n 1 x >"$work/out" 2>&1
	[[ $? == 1 ]] || fail "$2: ended otherwise than with words"
	grep -qE -- "$1" "$work/out" || fail "$2: not told why"
}
must_fail "flip://none: no flip answers at $work/control.sock" flip://none
must_fail "not flip://NAME" flip://mini/../x
start_flip
must_fail "flip://none: there is no model none here" flip://none

# Bytes that do not come: told, where touching them would have been a SIGBUS.
for m in shapes mini; do
	umount "$work/models/$m"
	"$flip" model remove $m || fail "remove"
done
"$flip" gc --all >/dev/null || fail "gc"
fault slow 1000000
"$flip" model pull -d 127.0.0.1:$proxy_port/m/shapes:1 || fail "pull"
begun() { (($(of shapes here) > 1000000)); }
until_true begun || fail "nothing arrives"
fault refuse
must_fail "shapes/.*do not come \(flip model list" flip://shapes
fault none
[[ $(ids flip://shapes) ]] || fail "not when the registry is back"
! grep -E "Sanitizer|runtime error" "$work/flip.log" "$work/engine.log" || fail "sanitizer"
echo ok
