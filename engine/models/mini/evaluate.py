"""Asks a model the development questions and compares commands after normalisation.

    python3 evaluate.py --model DIR                    an exported folder, through PyTorch
    python3 evaluate.py --url http://127.0.0.1:8080    a running `ocai-engine serve`: the shipped file itself

A wrong answer is wrong: there is no partial credit. Two figures are given: all questions, and the held-out ones, those
that are no sentence of the task catalogue.
"""
import argparse
import json
import os
import re
import urllib.request

import make_mix
import nearest

HERE = os.path.dirname(os.path.abspath(__file__))
CATALOGUE = make_mix.CATALOGUE  # the development questions are there
CLUSTERS = {"ls", "ss", "ps", "df", "du", "grep", "netstat", "lsof", "free", "tail", "head", "tar", "journalctl", "restorecon", "ssh-copy-id",
            "find", "docker", "podman", "tcpdump", "scp", "rsync", "curl", "iostat", "iotop", "ausearch"}
SORTED = {"ls", "ss", "ps", "df", "du", "grep", "netstat", "iotop", "rsync", "restorecon"}


def normalise(command):
    """One form for commands that differ only in what does not matter."""
    c = command.strip()
    c = re.sub(r"^(```\w*|\$|#)\s*|`+$|^`", "", c).strip()
    c = re.sub(r"(^|[|;&] ?)sudo ", r"\1", c)
    c = re.sub(r"\byum\b", "dnf", c) if not re.search(r"yum\.repos|yum\.conf|https?://\S*yum", c) else c
    c = re.sub(r"\b(podman|docker)\b", "docker", c)
    if c.startswith("dnf"):
        c = re.sub(r" (-y|--assumeyes)\b", "", c)
    c = re.sub(r"\b([\w@-]+)\.service\b", r"\1", c)
    c = re.sub(r" --no-pager\b", "", c)
    c = re.sub(r"^ll\b", "ls -l", c)
    c = c.replace('"', "'")
    c = re.sub(r"(?<= )'([\w./*:=@%+-]+)'(?= |$)", r"\1", c) if "*" not in c else re.sub(r"(?<= )'([\w./:=@%+-]+)'(?= |$)", r"\1", c)
    c = re.sub(r"\s+", " ", c).strip()
    c = re.sub(r" ?2>/dev/null", "", c)
    c = re.sub(r"^nmcli (c|con|connection) ", "nmcli con ", c)
    c = c.replace("&& nmcli connection", "&& nmcli con").replace("nmcli device", "nmcli dev")
    words = c.split(" ")
    if words[0] in SORTED:
        words = ["-" + "".join(sorted(w[1:])) if re.fullmatch(r"-[a-zA-Z]{2,}", w) else w for w in words]
    return " ".join(words)


def load_questions(name):
    """[(question, [accepted form, ...])]"""
    out = []
    for line in open(name if os.path.exists(name) else os.path.join(CATALOGUE if name == "dev_questions.tsv" else HERE, name), encoding="utf-8"):
        if line.strip() and not line.startswith("#"):
            question, accepted = line.rstrip("\n").split("\t")
            out.append((question, accepted.split(" || ")))
    return out


def is_right(answer, forms):
    got = normalise(answer.split("\n")[0])
    for form in forms:
        if form.startswith("re:"):
            if re.fullmatch(form[3:], got) or re.fullmatch(form[3:], normalise_keep(answer)):
                return True
        elif normalise(form) == got:
            return True
    return False


def normalise_keep(answer):
    """For regular expressions: the answer with only sudo, yum and podman made one form, flag letters in their order."""
    c = re.sub(r"\s+", " ", answer.split("\n")[0].strip())
    c = re.sub(r"(^|[|;&] ?)sudo ", r"\1", c).replace('"', "'")
    return re.sub(r" ?2>/dev/null", "", re.sub(r"\byum\b", "dnf", c))


def prompt(system, user):
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return text + f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def generate(model, tok, prompts, limit=64):
    """Greedy answers, all prompts in one batch, without a cache: simple, and quick enough for a small model."""
    import torch
    device = next(model.parameters()).device
    end = tok.token_to_id("<|im_end|>")
    rows = [tok.encode(p).ids for p in prompts]
    lens = [len(r) for r in rows]
    ids = torch.zeros(len(rows), max(lens) + limit, dtype=torch.long)
    for i, r in enumerate(rows):
        ids[i, :len(r)] = torch.tensor(r)
    ids, at = ids.to(device), torch.tensor(lens, device=device)
    alive = torch.ones(len(rows), dtype=torch.bool, device=device)
    every = torch.arange(len(rows), device=device)
    with torch.no_grad():
        for _ in range(limit):
            width = int(at.max())
            h = model(ids[:, :width])
            nxt = model.logits(h[every, at - 1]).float().argmax(dim=-1)
            nxt = torch.where(alive, nxt, torch.full_like(nxt, end))
            ids[every, at] = nxt
            alive &= nxt != end
            at = at + alive.long()
            if not bool(alive.any()):
                break
    out = []
    for i, n in enumerate(lens):
        new = ids[i, n:n + limit].tolist()
        new = new[:new.index(end)] if end in new else new
        out.append(tok.decode(new))
    return out


def ask_server(url, questions, hints=False):
    """The same questions over the chat API, one after the other."""
    answers = []
    for q in questions:
        body = {"model": "default", "temperature": 0, "max_tokens": 64,
                "messages": [{"role": "system", "content": system_message(q, hints)}, {"role": "user", "content": q}]}
        req = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(req, timeout=120) as reply:
            answers.append(json.load(reply)["choices"][0]["message"]["content"] or "")
    return answers


def system_message(question, hints):
    """The keyword, and with hints the nearest tasks' templates, as the assistant sends it."""
    return "\n".join(["cmd"] + (nearest.hints(question) if hints else []))


def score(model, tok, name="dev_questions.tsv", url=None, hints=False):
    questions = load_questions(name)
    known = make_mix.in_catalogue([q for q, _ in questions])
    asked = [q for q, _ in questions]
    answers = ask_server(url, asked, hints) if url else generate(model, tok, [prompt(system_message(q, hints), q) for q in asked])
    rows = [{"question": q, "answer": a, "right": is_right(a, forms), "in_catalogue": q in known}
            for (q, forms), a in zip(questions, answers)]
    held = [r for r in rows if not r["in_catalogue"]]
    res = {"all": sum(r["right"] for r in rows) / len(rows), "n_all": len(rows),
           "held_out": sum(r["right"] for r in held) / max(1, len(held)), "n_held_out": len(held), "rows": rows}
    return res


def load_model(folder):
    import torch
    from safetensors.torch import load_file

    import model as m
    config = json.load(open(os.path.join(folder, "config.json")))
    c = m.Config(**{k: v for k, v in config.items() if k in vars(m.Config())})
    net = m.Qwen3(c)
    state = {k: v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()}
    missing, extra = net.load_state_dict(state, strict=False)
    if missing or extra:
        raise SystemExit(f"{folder}: tensors missing {missing}, not known {extra}")
    return net.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def main():
    ap = argparse.ArgumentParser()
    which = ap.add_mutually_exclusive_group(required=True)
    which.add_argument("--model")
    which.add_argument("--url")
    ap.add_argument("--questions", default="dev_questions.tsv", help="dev_questions.tsv or test_questions.tsv")
    ap.add_argument("--out")
    args = ap.parse_args()
    if args.url:
        res = score(None, None, args.questions, args.url)
    else:
        import build_tokenizer
        res = score(load_model(args.model), build_tokenizer.load(args.model), args.questions)
    for r in res["rows"]:
        if not r["right"]:
            print(f"wrong: {r['question']}  ->  {r['answer']}")
    print(json.dumps({k: v for k, v in res.items() if k != "rows"}))
    if args.out:
        json.dump(res, open(args.out, "w", encoding="utf-8"), ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
