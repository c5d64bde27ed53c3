"""Writes the Hugging Face folder, and reference logits computed by transformers in float32."""
import json
import os

import evaluate

PROMPTS = [evaluate.prompt("cmd", "如何更新yum源"), evaluate.prompt("cmd", "show disk usage"), evaluate.prompt("cmd", "查看哪个进程占用80端口"),
           evaluate.prompt(None, "what does systemctl restart nginx do"), "OpenCloudOS 是一个 Linux 发行版。 Numbers 1234567, café, 🐧\n  indented",
           "a"]


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=2)
        f.write("\n")


def export(model, tok, folder):
    """The tokenizer files are in the folder already. Linear weights are written as their Q4_0 values, exact in bf16."""
    import torch
    from safetensors.torch import save_file

    import model as m
    c = model.config
    end, pad = tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")
    write_json(folder, "config.json", {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": pad, "eos_token_id": end, "pad_token_id": pad, "head_dim": c.head_dim, "hidden_act": "silu",
        "hidden_size": c.hidden_size, "initializer_range": 0.02, "intermediate_size": c.intermediate_size,
        "max_position_embeddings": c.max_position_embeddings, "max_window_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads, "num_hidden_layers": c.num_hidden_layers,
        "num_key_value_heads": c.num_key_value_heads, "rms_norm_eps": c.rms_norm_eps, "rope_scaling": None,
        "rope_theta": c.rope_theta, "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "use_cache": True, "use_sliding_window": False, "vocab_size": c.vocab_size})
    write_json(folder, "generation_config.json", {"bos_token_id": pad, "pad_token_id": pad, "eos_token_id": [end, pad],
                                                  "do_sample": False, "max_new_tokens": 256})
    state = {}
    for name, p in model.state_dict().items():
        linear = name.endswith("_proj.weight")
        value = m.q4_0_values(p) if linear else p
        state[name] = value.to(torch.bfloat16).contiguous().cpu()
        if linear and not torch.equal(state[name].float(), value.cpu()):
            raise SystemExit(f"{name}: its Q4_0 values are not exact in bf16")
    save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def references(folder):
    """expected.safetensors: ids_k, logits_k, gen_k; expected.json: the texts. Float32, eager attention, on the CPU."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, __version__
    tok = AutoTokenizer.from_pretrained(folder)
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tensors, prompts = {}, []
    for k, text in enumerate(PROMPTS):
        ids = tok(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            logits = net(ids).logits[0]
            gen, seq = [], ids
            for _ in range(24):
                nxt = net(seq).logits[0, -1].argmax().view(1, 1)
                gen.append(int(nxt))
                seq = torch.cat([seq, nxt], dim=1)
        tensors[f"ids_{k}"], tensors[f"logits_{k}"], tensors[f"gen_{k}"] = ids[0].contiguous(), logits.contiguous(), torch.tensor(gen)
        prompts.append({"text": text, "ids": ids[0].tolist(), "gen": gen, "gen_text": tok.decode(gen)})
    save_file(tensors, os.path.join(folder, "expected.safetensors"))
    messages = [{"role": "system", "content": "cmd"}, {"role": "user", "content": "uptime?"}]
    rendered = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    write_json(folder, "expected.json", {"prompts": prompts, "arch": "qwen3", "transformers": __version__,
                                         "chat": {"messages": messages, "text": rendered}})
