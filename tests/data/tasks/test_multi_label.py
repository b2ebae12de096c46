"""Multi-label metrics against scikit-learn's."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import nn

from causalprune.base.errors import DataError
from causalprune.data.tasks.multi_label import MultiLabel

TASK = MultiLabel(("a", "b", "c", "never"), num_outputs=4)


def samples():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(40, 4, generator=generator)
    targets = (torch.rand(40, 4, generator=generator) < torch.tensor([0.7, 0.4, 0.1, 0.0])).float()
    return outputs, targets


def test_metrics_are_those_of_scikit_learn():
    outputs, targets = samples()
    found = TASK.metrics(nn.Identity(), list(zip(outputs.split(15), targets.split(15), strict=True)))
    true, said = targets.numpy().astype(int), (outputs > 0).numpy().astype(int)
    chances = expit(outputs.double().numpy())
    losses = [log_loss(true[:, k], chances[:, k], labels=[0, 1]) for k in range(4)]
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-9)
    assert found["f1"] == pytest.approx(f1_score(true, said, average="micro"))
    assert found["f1_macro"] == pytest.approx(f1_score(true, said, average="macro", zero_division=0))
    assert found["per_class"] == pytest.approx(f1_score(true, said, average=None, zero_division=0).tolist())
    assert found["exact"] == pytest.approx(accuracy_score(true, said))


def test_guessing_is_the_best_of_all_constant_answers():
    outputs, targets = samples()
    true = targets.numpy().astype(int)
    every = [np.broadcast_to(answer, true.shape) for answer in product((0, 1), repeat=4)]
    best = max(f1_score(true, said, average="micro", zero_division=0) for said in every)
    assert TASK.metrics(nn.Identity(), [(outputs, targets)])["guessing"] == pytest.approx(best)


def test_training_minimizes_the_binary_cross_entropy():
    outputs, targets = samples()
    wanted = nn.functional.binary_cross_entropy_with_logits(outputs.double(), targets.double())
    torch.testing.assert_close(TASK.loss(nn.Identity(), (outputs, targets), exact=True), wanted)


def test_distillation_minimizes_the_divergence_of_each_label():
    outputs, _ = samples()
    wanted = outputs.flip(0)
    p, q = (expit(each.double().numpy() / 2) for each in (wanted, outputs))
    divergence = 4 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean()
    assert TASK.distance(outputs, wanted).item() == pytest.approx(divergence, rel=1e-5)
    assert TASK.distance(outputs, outputs).item() == 0


def test_drawn_labels_are_those_of_the_network():
    outputs = torch.tensor([[0.3, -1.0, 4.0, -6.0]]).expand(50_000, 4)
    loss = TASK.drawn_loss(outputs, torch.Generator().manual_seed(0)) / 50_000
    own = outputs[0].double()
    chances = 0.9 * own.sigmoid() + 0.05
    expected = nn.functional.binary_cross_entropy_with_logits(own, chances, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)


@pytest.mark.parametrize("rows", [np.array([0, 1, 1]), np.array([[0, 2]]), np.array([[0.5, 1.0]])])
def test_other_rows_are_refused(rows):
    with pytest.raises(DataError, match="rows of 0 and 1"):
        MultiLabel.read({"y": rows}, "d")
