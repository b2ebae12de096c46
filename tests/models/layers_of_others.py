"""Layers that PyTorch doesn't have."""

import torch
from torch import nn


class Conv1D(nn.Module):
    """What GPT-2's layers are in Hugging Face's transformers: linear, with a weight (in, out)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.empty(nx, nf)), nn.Parameter(torch.zeros(nf))
        nn.init.normal_(self.weight, std=0.3)

    def forward(self, x):
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], self.nf)


class TinyGPT2(nn.Module):
    """A block of GPT-2 with its embeddings; the head is tied to the tokens."""

    def __init__(self, vocabulary=11, length=6, width=8):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(length, width) / 4)
        nn.init.normal_(self.wte.weight, std=0.25)
        self.ln, self.c_attn, self.c_proj = nn.LayerNorm(width), Conv1D(3 * width, width), Conv1D(width, width)
        self.c_fc, self.c_out = Conv1D(4 * width, width), Conv1D(width, 4 * width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens):
        hidden = self.wte(tokens) + self.wpe
        query, key, value = self.c_attn(self.ln(hidden)).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.c_proj(mixed)
        return self.head(hidden + self.c_out(nn.functional.gelu(self.c_fc(hidden))))
