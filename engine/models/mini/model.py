"""The Qwen3 decoder in PyTorch, small enough to read, and Q4_0 weights simulated in training.

Parameter names follow the Hugging Face checkpoint, so state_dict() is what export_hf.py writes.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F


class Config:
    def __init__(self, **kw):
        self.vocab_size = 16384
        self.hidden_size = 512
        self.num_hidden_layers = 13
        self.num_attention_heads = 8
        self.num_key_value_heads = 4
        self.head_dim = 64
        self.intermediate_size = 1536
        self.rope_theta = 10000.0
        self.rms_norm_eps = 1e-6
        self.max_position_embeddings = 2048
        for k, v in kw.items():
            setattr(self, k, v)


def q4_0_values(w):
    """The values that w takes in blocks of 32 along the input dimension: a scale times -8..7.

    The scale is the block's largest value (by magnitude, with its sign) over -8, cut to 5 significant bits. Then every
    value is exact in bfloat16, and quantizing the exported weights again gives exactly the same scale and numbers:
    the bf16 folder and the Q4_0 file hold the same model.
    """
    b = w.detach().float().reshape(w.shape[0], -1, 32)
    high, low = b.amax(dim=2, keepdim=True), b.amin(dim=2, keepdim=True)
    d = torch.where(high > -low, high, low) / -8.0
    bits = (d.contiguous().view(torch.int32) + (1 << 18)) & ~((1 << 19) - 1)  # keeps the hidden bit and 4 of 23 mantissa bits
    d = bits.view(torch.float32)
    q = torch.where(d == 0, torch.zeros_like(b), torch.round(b / torch.where(d == 0, torch.ones_like(d), d)))
    return (torch.clamp(q, -8, 7) * d).reshape(w.shape)


class QLinear(nn.Linear):
    """A linear layer whose weights can be seen through Q4_0; gradients pass straight through the rounding."""
    quant = False  # one switch for the whole model

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x):
        w = self.weight
        if QLinear.quant:
            w = w + (q4_0_values(w) - w).detach()
        return F.linear(x, w.to(x.dtype))


class RMSNorm(nn.Module):
    def __init__(self, n, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(n)), eps

    def forward(self, x):
        h = x.float()
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
        return (h * self.weight).to(x.dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n_head, self.n_kv, self.d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = QLinear(c.hidden_size, self.n_head * self.d)
        self.k_proj = QLinear(c.hidden_size, self.n_kv * self.d)
        self.v_proj = QLinear(c.hidden_size, self.n_kv * self.d)
        self.o_proj = QLinear(self.n_head * self.d, c.hidden_size)
        self.q_norm, self.k_norm = RMSNorm(self.d, c.rms_norm_eps), RMSNorm(self.d, c.rms_norm_eps)

    def forward(self, x, cos, sin, mask):
        n, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(n, t, self.n_head, self.d)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(n, t, self.n_kv, self.d)).transpose(1, 2)
        v = self.v_proj(x).view(n, t, self.n_kv, self.d).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k = k.repeat_interleave(self.n_head // self.n_kv, dim=1)
        v = v.repeat_interleave(self.n_head // self.n_kv, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(y.transpose(1, 2).reshape(n, t, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = QLinear(c.hidden_size, c.intermediate_size)
        self.up_proj = QLinear(c.hidden_size, c.intermediate_size)
        self.down_proj = QLinear(c.intermediate_size, c.hidden_size)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c)

    def forward(self, x, cos, sin, mask):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Qwen3(nn.Module):
    """forward() gives the last hidden states; logits() multiplies by the tied embedding."""

    def __init__(self, c):
        super().__init__()
        self.config, self.model = c, Decoder(c)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 0.02 / (2 * c.num_hidden_layers) ** 0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                nn.init.normal_(p, std=std)
        inv = c.rope_theta ** (-torch.arange(0, c.head_dim, 2).float() / c.head_dim)
        angle = torch.outer(torch.arange(c.max_position_embeddings).float(), inv)
        angle = torch.cat((angle, angle), dim=-1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids, positions=None, mask=None):
        """ids [n, t]; positions [n, t] or None for 0..t-1; mask [n, 1, t, t] (True: may look) or None for causal."""
        dtype = torch.bfloat16 if ids.is_cuda else torch.float32
        if positions is None:
            cos, sin = self.cos[:ids.shape[1]][None, None], self.sin[:ids.shape[1]][None, None]
        else:
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        cos, sin = cos.to(dtype), sin.to(dtype)
        x = F.embedding(ids, self.model.embed_tokens.weight).to(dtype)
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        return self.model.norm(x)

    def logits(self, h):
        return F.linear(h, self.model.embed_tokens.weight.to(h.dtype))
