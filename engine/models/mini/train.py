"""Trains ocai-mini from nothing:

    python3 train.py --data DIR --out DIR [--pretrain-seconds N] [--tune-seconds N]

DIR/corpus and DIR/nl2cmd as make_mix.py describes. One GPU with 40 GB or more, PyTorch >= 2.6, tokenizers, transformers,
safetensors, numpy. Four phases: tokenizer; pretraining on documents; fine-tuning on conversations, loss on answers only;
most of that with the linear weights seen through Q4_0. Then the Hugging Face folder is written to OUT/hf, with
reference logits, and OUT/results.json has the development-set figures.
"""
import argparse
import concurrent.futures
import json
import multiprocessing
import os
import random
import time

import numpy as np

import build_tokenizer
import evaluate
import export_hf
import make_mix
import nearest

SEED = 20
PRE_LEN, PRE_ROWS = 2048, 64      # one pretraining step: 131,072 tokens
TUNE_LEN, TUNE_ROWS = 256, 384    # one tuning step: 98,304 tokens, several conversations to a row
MUON_LR, ADAM_LR, DECAY = 4e-3, 3e-3, 0.05
CORPUS_SHARE = 0.10               # of tuning steps
QUANT_FROM = 0.30                 # of the tuning phase
started = time.time()


def say(*words):
    print(f"[{time.time() - started:6.1f}]", *words, flush=True)


# ---- data ------------------------------------------------------------------------------------------------------------


def pack(args):
    """Worker: draws conversations and packs them into rows of TUNE_LEN + 1 ids, with segments, positions and labels."""
    data, out, seed, count = args
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tok = build_tokenizer.load(out)
    nearest.load(out)
    limit = TUNE_LEN + 1
    rows, seg, pos, ans = [], [], [], []
    row, rs, rp, ra, n_seg = [], [], [], [], 0
    convs = make_mix.conversations((data, seed, count))
    heads = tok.encode_batch_fast([evaluate.prompt(s, u) for s, u, _ in convs])
    tails = tok.encode_batch_fast([a + "<|im_end|>\n" for _, _, a in convs])
    for h, t in zip(heads, tails):
        ids = h.ids + t.ids
        if len(h.ids) > limit - 16:
            continue
        ids = ids[:limit]
        if len(row) + len(ids) > limit:
            fill = limit - len(row)
            rows.append(row + [0] * fill), seg.append(rs + [0] * fill), pos.append(rp + [0] * fill), ans.append(ra + [0] * fill)
            row, rs, rp, ra, n_seg = [], [], [], [], 0
        n_seg += 1
        last = len(t.ids) - 1  # the newline after <|im_end|> is no part of the answer
        row += ids
        rs += [n_seg] * len(ids)
        rp += range(len(ids))
        ra += ([0] * len(h.ids) + [1] * last + [0])[:len(ids)]
    return (np.array(rows, dtype=np.uint16), np.array(seg, dtype=np.uint8), np.array(pos, dtype=np.int16), np.array(ans, dtype=np.uint8))


def tokenizer_texts(data, rng):
    s = make_mix.setup(data)
    for docs in make_mix.load_corpus(data).values():
        yield from docs
    for r in s["pairs"]:
        yield r["nl"] + "\n" + r["command"]
    for _ in range(60000):
        _, _, text, command = make_mix.seed_chat(s, rng)
        yield text + "\n" + command


def document_ids(data, tok, rng):
    eot = tok.token_to_id("<|endoftext|>")
    docs = make_mix.pretrain_documents(data, rng)
    enc = tok.encode_batch_fast(docs)
    return np.concatenate([np.array(e.ids + [eot], dtype=np.uint16) for e in enc])


class Documents:
    """Endless batches of PRE_LEN + 1 ids out of one long array, reshuffled each time round."""

    def __init__(self, ids, torch):
        self.torch, self.ids = torch, torch.from_numpy(ids.astype(np.int32))
        self.order, self.at = None, 0

    def next(self):
        torch = self.torch
        if self.order is None or self.at + PRE_ROWS > len(self.order):
            shift = int(torch.randint(PRE_LEN, (1,)))
            n = (len(self.ids) - shift - 1) // PRE_LEN
            self.order, self.at = (torch.randperm(n) * PRE_LEN + shift).tolist(), 0
        starts = self.order[self.at:self.at + PRE_ROWS]
        self.at += PRE_ROWS
        batch = torch.stack([self.ids[s:s + PRE_LEN + 1] for s in starts]).long().pin_memory().cuda(non_blocking=True)
        return batch[:, :-1], batch[:, 1:]


# ---- optimizer -----------------------------------------------------------------------------------------------------------


class Muon:
    """Momentum whose update is made orthogonal by Newton-Schulz iterations; matrices of one shape go together."""

    def __init__(self, params, torch):
        self.torch, self.groups = torch, {}
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.momentum = {s: torch.zeros(len(ps), *s, device=ps[0].device) for s, ps in self.groups.items()}

    def step(self, lr):
        torch = self.torch
        for shape, params in self.groups.items():
            g = torch.stack([p.grad for p in params]).float()
            m = self.momentum[shape].mul_(0.95).add_(g)
            x = g.add(m, alpha=0.95).bfloat16()
            tall = shape[0] > shape[1]
            x = x.transpose(1, 2) if tall else x
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                a = x @ x.transpose(1, 2)
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
            x = (x.transpose(1, 2) if tall else x).float() * (0.2 * max(shape) ** 0.5)
            for p, u in zip(params, x):
                p.mul_(1 - lr * DECAY).add_(u, alpha=-lr)


# ---- training ------------------------------------------------------------------------------------------------------------


class Trainer:
    def __init__(self, net, torch):
        self.net, self.torch, self.steps = net, torch, 0
        inner = [p for n, p in net.named_parameters() if n.endswith("_proj.weight")]
        other = [p for n, p in net.named_parameters() if not n.endswith("_proj.weight")]
        self.muon = Muon(inner, torch)
        self.adam = torch.optim.AdamW(other, lr=ADAM_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def step(self, ids, labels, factor, positions=None, mask=None):
        torch = self.torch
        h = self.net(ids, positions, mask)
        keep = labels.reshape(-1) >= 0
        logits = self.net.logits(h.reshape(-1, h.shape[-1])[keep] if positions is not None else h.reshape(-1, h.shape[-1]))
        target = labels.reshape(-1)[keep] if positions is not None else labels.reshape(-1)
        loss = torch.nn.functional.cross_entropy(logits.float(), target)
        loss.backward()
        factor *= min(1.0, (self.steps + 1) / 60)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_LR * factor
        torch.nn.utils.clip_grad_norm_([p for g in self.adam.param_groups for p in g["params"]], 1.0)
        with torch.no_grad():
            self.muon.step(MUON_LR * factor)
        self.adam.step()
        self.net.zero_grad(set_to_none=True)
        self.steps += 1
        return loss.detach()


def pretrain(trainer, docs, seconds, save):
    begin, n, losses = time.time(), 0, []
    while time.time() - begin < seconds:
        ids, labels = docs.next()
        losses.append(trainer.step(ids, labels, 1.0))
        n += 1
        if n % 50 == 0:
            rate = n * PRE_LEN * PRE_ROWS / (time.time() - begin)
            say(f"pretrain step {n} loss {float(sum(losses) / len(losses)):.3f} {rate / 1e3:.0f}k tokens/s")
            losses = []
    save("pretrain")
    return n


def tune(trainer, rows, docs, seconds, rng, torch):
    import model as m
    ids, seg, pos, ans = [torch.from_numpy(a) for a in rows]
    causal = torch.ones(TUNE_LEN, TUNE_LEN, dtype=torch.bool, device="cuda").tril()
    order, at, begin, n, losses, round_ = None, 0, time.time(), 0, [], 0
    while True:
        done = (time.time() - begin) / seconds
        if done >= 1:
            break
        m.QLinear.quant = done >= QUANT_FROM
        factor = 0.6 * (1 - done) + 0.003
        if rng.random() < CORPUS_SHARE:
            trainer.step(*docs.next(), factor)
            n += 1
            continue
        if order is None or at + TUNE_ROWS > len(order):
            order, at, round_ = torch.randperm(len(ids)), 0, round_ + 1
        pick = order[at:at + TUNE_ROWS]
        at += TUNE_ROWS
        x = ids[pick].to(torch.int32).cuda(non_blocking=True).long()
        s, p, a = (t[pick].cuda(non_blocking=True) for t in (seg, pos, ans))
        labels = torch.where(a[:, 1:] > 0, x[:, 1:], torch.full_like(x[:, 1:], -1))
        s = s[:, :-1]
        mask = ((s[:, :, None] == s[:, None, :]) & causal)[:, None]
        losses.append(trainer.step(x[:, :-1], labels, factor, p[:, :-1].long(), mask))
        n += 1
        if n % 100 == 0:
            say(f"tune step {n} round {round_} loss {float(sum(losses) / len(losses)):.4f} quant {m.QLinear.quant} {n / (time.time() - begin):.1f} steps/s")
            losses = []
    return n


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--data", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--pretrain-seconds", type=float, default=260)
    ap.add_argument("--tune-seconds", type=float, default=800)
    ap.add_argument("--conversations", type=int, default=3200000)
    ap.add_argument("--workers", type=int, default=14)
    args = ap.parse_args()
    hf = os.path.join(args.out, "hf")
    rng = random.Random(SEED)
    os.makedirs(hf, exist_ok=True)
    nearest.build(hf)
    nearest.load(hf)
    if not os.path.exists(os.path.join(hf, "tokenizer.json")):
        build_tokenizer.build(tokenizer_texts(args.data, rng), 16384, hf)
        say("tokenizer made")
    tok = build_tokenizer.load(hf)
    chunk = args.conversations // args.workers // 4
    pool = concurrent.futures.ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn"))
    ids = document_ids(args.data, tok, rng)
    say(f"documents: {len(ids)} tokens")
    jobs = [pool.submit(pack, (args.data, hf, SEED * 1000 + i, chunk)) for i in range(args.workers * 4)]

    import torch
    import model as m
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    net = m.Qwen3(m.Config()).cuda()
    say(f"{sum(p.numel() for p in net.parameters())} parameters")
    plain = m.Qwen3(m.Config()).cuda().eval()  # never compiled: for answers of any length
    for layer in net.model.layers:
        layer.compile()

    def save(name):
        torch.save(net.state_dict(), os.path.join(args.out, name + ".pt"))

    def measure(quant, questions="dev_questions.tsv", hints=False):
        plain.load_state_dict(net.state_dict())
        m.QLinear.quant = quant
        res = evaluate.score(plain, tok, questions, hints=hints)
        m.QLinear.quant = False
        return res

    trainer, docs = Trainer(net, torch), Documents(ids, torch)
    n_pre = pretrain(trainer, docs, args.pretrain_seconds, save)
    parts = [j.result() for j in jobs]
    rows = [np.concatenate([p[i] for p in parts]) for i in range(4)]
    del parts
    pool.shutdown()
    say(f"conversations: {len(rows[0])} rows, {int(rows[3].sum())} answer tokens")
    n_tune = tune(trainer, rows, docs, args.tune_seconds, rng, torch)
    save("tuned")
    say("trained")
    float_res, quant_res = measure(False), measure(True)
    hint_res = measure(True, hints=True)
    say("float", {k: v for k, v in float_res.items() if k != "rows"})
    say("q4_0 ", {k: v for k, v in quant_res.items() if k != "rows"})
    say("q4_0, with the nearest tasks", {k: v for k, v in hint_res.items() if k != "rows"})
    export_hf.export(net, tok, hf)
    test = measure(True, "test_questions.tsv", True)
    say("q4_0, test questions, with the nearest tasks", {k: v for k, v in test.items() if k != "rows"})
    results = {"test_q4_0": test, "parameters": sum(p.numel() for p in net.parameters()), "document_tokens": int(len(ids)), "pretrain_steps": n_pre, "tune_steps": n_tune,
               "rows": len(rows[0]), "seconds": time.time() - started, "device": torch.cuda.get_device_name(), "torch": torch.__version__,
               "float": float_res, "q4_0": quant_res, "q4_0_hints": hint_res}
    chat = ["你好", "what does df -h do", "怎么查看磁盘空间？", "什么是容器", "解释一下 tar -xzf a.tar.gz", "how do I restart nginx?"]
    plain.load_state_dict(net.state_dict())
    m.QLinear.quant = True
    results["chat"] = list(zip(chat, evaluate.generate(plain, tok, [evaluate.prompt(None, c) for c in chat], 100)))
    with open(os.path.join(args.out, "results.json"), "w", encoding="utf-8") as f:
        json.dump(results, f, ensure_ascii=False, indent=1)
    export_hf.references(hf)
    say("exported")


if __name__ == "__main__":
    main()
