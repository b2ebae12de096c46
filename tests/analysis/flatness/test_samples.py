"""What flatness is measured on: samples and parameters."""

import pytest
import torch
from small_networks import batches, network
from torch import nn

from causalprune.analysis.flatness.samples import draw_samples, mean_loss
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.data.tasks.classification import Classification


def test_the_mean_is_over_samples_however_they_are_batched():
    model, samples, loss = network(), batches((5,)), nn.CrossEntropyLoss()
    inputs, targets = (torch.cat(parts) for parts in zip(*samples, strict=True))
    assert mean_loss(model, Classification(), samples) == pytest.approx(loss(model(inputs), targets).item())


@pytest.mark.parametrize(
    ("count", "sizes"), [(5, [5]), (33, [16, 17]), (40, [16, 16, 8]), (48, [16, 16, 16]), (10**6, None)]
)
def test_as_many_samples_are_drawn_as_asked_for_or_all(count, sizes):
    data = load_data(DataSpec(name="breast-cancer"))
    found = draw_samples(data, "test", count=count, batch_size=16, device=torch.device("cpu"), seed=3)
    lengths = [len(inputs) for inputs, _ in found]
    assert lengths == [len(targets) for _, targets in found]
    assert sum(lengths) == min(count, len(data.test))
    assert sizes is None or lengths == sizes
    again = draw_samples(data, "test", count=count, batch_size=16, device=torch.device("cpu"), seed=3)
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(found, again, strict=True))
