"""The transformer against what defines one: no look ahead, attention by hand, every product a layer."""

import torch

from causalprune.base.compute.shapes import Tokens
from causalprune.base.specs import ModelSpec
from causalprune.models.parameters import ParameterIndex
from causalprune.models.registry import build_model
from causalprune.pruning.layer_calls import weight_uses

SPEC = ModelSpec("tinygpt", Tokens((12,), 40), 50, task="next-token", output_shape=(12, 50))


def tokens(count=3):
    return torch.randint(40, (count, 12), generator=torch.Generator().manual_seed(1))


def test_a_place_depends_on_no_later_token():
    model, seen = build_model(SPEC, seed=0), tokens()
    before = model(seen)
    changed = seen.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 40
    after = model(changed)
    assert before.shape == (3, 12, 50)
    assert after[:, :7].equal(before[:, :7])
    assert not torch.isclose(after[:, 7:], before[:, 7:]).all(-1).any()


def test_a_block_is_attention_and_a_perceptron_by_hand():
    block = build_model(SPEC, seed=0).double().blocks[0]
    hidden = torch.randn(2, 12, 64, dtype=torch.float64)
    with torch.no_grad():
        seen = block.norm1(hidden)
        mixed = []
        for head in range(4):
            part = slice(16 * head, 16 * (head + 1))
            q, k, v = (layer(seen)[..., part] for layer in (block.query, block.key, block.value))
            scores = (q @ k.mT / 4).masked_fill(~torch.ones(12, 12, dtype=torch.bool).tril(), -torch.inf)
            mixed.append(scores.softmax(-1) @ v)
        middle = hidden + block.out(torch.cat(mixed, -1))
        wanted = middle + block.down(torch.nn.functional.gelu(block.up(block.norm2(middle))))
        torch.testing.assert_close(block(hidden), wanted)


def test_every_weight_but_the_embeddings_can_be_pruned():
    model = build_model(SPEC, seed=0)
    index = ParameterIndex.from_model(model)
    assert index.total == 2 * (4 * 64 * 64 + 2 * 64 * 256) + 64 * 50
    parameters = dict(model.named_parameters())
    # Each is used once, so that it can be repaired and measured.
    names = [entry.name for entry in index]
    assert sorted(weight_uses(model, tokens(), {n: parameters[n] for n in names})) == sorted(names)
