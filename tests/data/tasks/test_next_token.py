"""Loss and perplexity of a language model, counted by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from causalprune.base.errors import DataError
from causalprune.data.tasks.next_token import NextToken

TASK = NextToken(num_outputs=7)


class Table(nn.Module):
    """Logits from the last token alone."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.randn(7, 7, generator=torch.Generator().manual_seed(0)))

    def forward(self, tokens):
        return self.logits[tokens]


def texts(count=6, length=5):
    seen = torch.randint(7, (count, length + 1), generator=torch.Generator().manual_seed(1))
    return seen[:, :-1], seen[:, 1:].clone()


def by_hand(inputs, targets):
    chances = log_softmax(Table().logits.detach().double().numpy(), axis=1)
    pairs = [(a, b) for a, b in zip(inputs.flatten().tolist(), targets.flatten().tolist(), strict=True) if b >= 0]
    return pairs, [-chances[pair] for pair in pairs]


@pytest.mark.parametrize("unlabeled", [False, True])
def test_perplexity_is_that_of_the_mean_over_tokens(unlabeled):
    inputs, targets = texts()
    if unlabeled:
        targets[0, :3] = -100
    pairs, losses = by_hand(inputs, targets)
    batches = list(zip(inputs.split(4), targets.split(4), strict=True))
    with torch.no_grad():
        found = TASK.metrics(Table(), batches)
    assert (found["task"], found["samples"], found["tokens"]) == ("next-token", 6, len(pairs))
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-12)
    best = Table().logits.argmax(1).tolist()
    assert found["top1"] == np.mean([best[a] == b for a, b in pairs])
    shares = [n / len(pairs) for n in Counter(b for _, b in pairs).values()]
    assert found["unigram"] == pytest.approx(math.prod(share**-share for share in shares), rel=1e-12)


def test_training_minimizes_that_loss():
    inputs, targets = texts()
    targets[1, 2] = -100
    loss = TASK.loss(Table(), (inputs, targets), exact=True)
    assert loss.item() == pytest.approx(np.mean(by_hand(inputs, targets)[1]), rel=1e-12)


def test_no_label_is_no_loss():
    inputs, targets = texts(1)
    assert TASK.loss(Table(), (inputs, torch.full_like(targets, -100))).item() == 0


def test_lower_perplexity_is_the_better_epoch():
    good, bad = ({"perplexity": p, "loss": math.log(p)} for p in (3.0, 9.0))
    assert TASK.score(good) > TASK.score(bad)


def test_drawn_tokens_are_those_of_the_network():
    """Many draws from one place: their loss is that of the smoothed softmax."""
    logits = Table().logits.detach()[:1].expand(1, 50_000, 7)
    loss = TASK.drawn_loss(logits, torch.Generator().manual_seed(0)) / 50_000
    own = log_softmax(logits[0, 0].double().numpy())
    assert loss.item() == pytest.approx(-((0.9 * np.exp(own) + 0.1 / 7) * own).sum(), rel=0.01)


def test_tokens_beyond_the_outputs_are_refused():
    with pytest.raises(DataError, match=r"labels in 0\.\.6, found the label 7"):
        TASK.check(torch.tensor([[1, 7]]), "d")
