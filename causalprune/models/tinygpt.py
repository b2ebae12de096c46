"""A small transformer that predicts the next token of a text."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from causalprune.base.errors import UsageError

WIDTH = 64
HEADS = 4
LAYERS = 2
_SCALE = 0.02
"""Deviation of new embeddings, that of GPT-2."""


class TinyGPT(nn.Module):
    """A decoder as in GPT-2 (Radford et al., 2019), with 2 blocks of width 64 and 4 heads.

    Each product with a weight is a layer of its own: ``query``, ``key``, ``value`` and ``out`` of the attention, ``up``
    and ``down`` of the multilayer perceptron, and ``head``. The head isn't tied to the embedding: a weight that is
    pruned in one of them would be lost to the other, where it does something else.

    Args:
        input_shape: (T,), the tokens that are seen at once.
        num_outputs: Number of tokens that may come next.
        vocabulary: Number of tokens that may come in.

    Raises:
        UsageError: The data aren't tokens.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, vocabulary: int) -> None:
        super().__init__()
        if not vocabulary or len(input_shape) != 1:
            kind = "images" if len(input_shape) == 3 else "features"
            raise UsageError("model tinygpt", expected="tokens", found=kind, remedy="use it with `dataset=topics`")
        self.tokens = nn.Embedding(vocabulary, WIDTH)
        self.places = nn.Parameter(torch.empty(*input_shape, WIDTH))
        self.blocks = nn.Sequential(*(_Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, num_outputs, bias=False)
        for embedding in (self.tokens.weight, self.places):
            nn.init.normal_(embedding, std=_SCALE)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (N, T) tokens to logits (N, T, outputs); place t depends on the tokens up to t only."""
        hidden = self.blocks(self.tokens(tokens) + self.places)
        outputs: torch.Tensor = self.head(self.norm(hidden))
        return outputs


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        count, length, _ = hidden.shape
        seen = self.norm1(hidden)
        query, key, value = (
            layer(seen).view(count, length, HEADS, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.out(mixed.transpose(1, 2).reshape(count, length, WIDTH))
        changed: torch.Tensor = hidden + self.down(functional.gelu(self.up(self.norm2(hidden))))
        return changed
