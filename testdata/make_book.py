"""A small GPT as the book "Build a Large Language Model (From Scratch)" defines it, saved as the book saves it, and its logits.

    python make_book.py        # torch 2.15

`models/book.pth` holds the weights and the settings, `models/book.safetensors` the f64 logits of 20 tokens, as f32. The module below has the
names and the arithmetic of chapter 4 of <https://github.com/rasbt/LLMs-from-scratch> (Apache-2.0), without dropout.
"""
import os

import torch
from safetensors.torch import save_file
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIG = {"vocab_size": 61, "context_length": 32, "emb_dim": 24, "n_heads": 3, "n_layers": 2, "drop_rate": 0.0, "qkv_bias": False}


class MultiHeadAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["emb_dim"]
        self.heads = c["n_heads"]
        self.W_query = nn.Linear(d, d, bias=c["qkv_bias"])
        self.W_key = nn.Linear(d, d, bias=c["qkv_bias"])
        self.W_value = nn.Linear(d, d, bias=c["qkv_bias"])
        self.out_proj = nn.Linear(d, d)
        self.register_buffer("mask", torch.triu(torch.ones(c["context_length"], c["context_length"]), diagonal=1))

    def forward(self, x):
        b, n, d = x.shape
        split = lambda y: y.view(b, n, self.heads, d // self.heads).transpose(1, 2)
        q, k, v = split(self.W_query(x)), split(self.W_key(x)), split(self.W_value(x))
        scores = (q @ k.transpose(2, 3)).masked_fill(self.mask.bool()[:n, :n], -torch.inf)
        weights = torch.softmax(scores / k.shape[-1] ** 0.5, dim=-1)
        return self.out_proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class LayerNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))

    def forward(self, x):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(var + 1e-5) + self.shift


class GELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


class FeedForward(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d, 4 * d), GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        return self.layers(x)


class TransformerBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.att, self.ff = MultiHeadAttention(c), FeedForward(c["emb_dim"])
        self.norm1, self.norm2 = LayerNorm(c["emb_dim"]), LayerNorm(c["emb_dim"])

    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class GPTModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.tok_emb = nn.Embedding(c["vocab_size"], c["emb_dim"])
        self.pos_emb = nn.Embedding(c["context_length"], c["emb_dim"])
        self.trf_blocks = nn.Sequential(*[TransformerBlock(c) for _ in range(c["n_layers"])])
        self.final_norm = LayerNorm(c["emb_dim"])
        self.out_head = nn.Linear(c["emb_dim"], c["vocab_size"], bias=False)

    def forward(self, ids):
        x = self.tok_emb(ids) + self.pos_emb(torch.arange(ids.shape[1]))
        return self.out_head(self.final_norm(self.trf_blocks(x)))


torch.manual_seed(123)
model = GPTModel(CONFIG).eval()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.add_(0.2 * torch.randn_like(parameter))
torch.save({"model_state_dict": model.state_dict(), "config": CONFIG}, os.path.join(HERE, "models", "book.pth"))
with torch.no_grad():
    logits = model.double()(torch.tensor([[(7 * i + 3) % 61 for i in range(20)]]))[0].float()
save_file({"logits": logits.contiguous()}, os.path.join(HERE, "models", "book.safetensors"))
