"""Segmentation against scikit-learn's confusion matrix and Jaccard index."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score, log_loss
from torch import nn

from causalprune.data.tasks.segmentation import Segmentation

TASK = Segmentation(num_outputs=4)


class Colors(nn.Module):
    """A class per pixel by a 1×1 convolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 1)

    def forward(self, images):
        return self.conv(images)


def pictures():
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(5, 2, 6, 3, generator=generator)
    labels = torch.randint(3, (5, 6, 3), generator=generator)
    labels[0, 0] = -100
    return images, labels


def test_metrics_are_those_of_scikit_learn():
    images, labels = pictures()
    with torch.no_grad():
        found = TASK.metrics(Colors(), list(zip(images.split(2), labels.split(2), strict=True)))
        outputs = Colors()(images).double().movedim(1, -1)
    known = (labels >= 0).numpy()
    true, rows = labels.numpy()[known], outputs.numpy()[known]
    said = rows.argmax(1)
    chances = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
    assert found["loss"] == pytest.approx(log_loss(true, chances, labels=range(4)), rel=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(true, said))
    present = sorted({*true.tolist(), *said.tolist()})
    assert found["miou"] == pytest.approx(jaccard_score(true, said, average="macro", labels=present))
    shares = jaccard_score(true, said, average=None, labels=range(4), zero_division=0)
    assert [s or 0 for s in found["per_class"]] == pytest.approx(shares.tolist())
    assert found["headline"]["metric"] == "miou"


def test_guessing_is_the_best_constant_answer():
    _, labels = pictures()
    true = labels[labels >= 0].numpy()
    best = max(
        jaccard_score(true, np.full_like(true, c), average="macro", labels=np.unique(true)) for c in np.unique(true)
    )
    sums = {name: value.tolist() for name, value in TASK.sums(torch.zeros(5, 4, 6, 3).double(), labels).items()}
    assert TASK.summary(sums, 5)["guessing"] == pytest.approx(best)


def test_training_minimizes_the_mean_over_labeled_pixels():
    images, labels = pictures()
    outputs = Colors()(images)
    wanted = nn.functional.cross_entropy(outputs, labels, ignore_index=-100)
    torch.testing.assert_close(TASK.loss(Colors(), (images, labels)), wanted)
