"""The distilled part of the loss against NumPy and SciPy in float64."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from torch import nn

from causalprune.data.tasks.classification import Classification
from causalprune.data.tasks.regression import Regression
from causalprune.training.distillation import Distillation


class Known(nn.Module):
    """Puts out what it was given, doubled in training."""

    def forward(self, inputs):
        return inputs * (2 if self.training else 1)


def tensors(shape):
    generator = torch.Generator().manual_seed(3)
    return [3 * torch.randn(shape, generator=generator) for _ in range(2)]


class Says(nn.Module):
    """Puts out the same whatever it is given."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs):
        return self.outputs


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_classification_minimizes_the_divergence_at_temperature_two(weight):
    outputs, wanted = tensors((7, 5))
    labels = torch.arange(7) % 5
    network = Known()
    loss = Distillation(network, weight).loss(Classification(), Says(outputs), (wanted, labels))
    p, q = (softmax(t.double().numpy() / 2, axis=1) for t in (wanted, outputs))
    of_labels = -log_softmax(outputs.double().numpy(), axis=1)[range(7), labels].mean()
    expected = (1 - weight) * of_labels + weight * 4 * rel_entr(p, q).sum(1).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert network.training


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("width", [1, 3])
def test_a_regression_minimizes_the_squared_difference(weight, width):
    outputs, wanted = tensors((7, width))
    targets = torch.ones(7, width)
    loss = Distillation(Known(), weight).loss(Regression(), Says(outputs), (wanted, targets))
    errors = [np.mean((outputs - other).double().numpy() ** 2) for other in (targets, wanted)]
    assert loss.item() == pytest.approx((1 - weight) * errors[0] + weight * errors[1], rel=1e-6)


def test_outputs_of_reduced_precision_are_compared_in_float32():
    outputs, wanted = (t.bfloat16() for t in tensors((7, 5)))
    loss = Distillation(Known(), 1.0).loss(Classification(), Says(outputs), (wanted, torch.zeros(7, dtype=torch.int64)))
    p, q = (softmax(t.double().numpy() / 2, axis=1) for t in (wanted, outputs))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(4 * rel_entr(p, q).sum(1).mean(), rel=1e-5)


def test_its_own_network_costs_nothing():
    outputs, _ = tensors((7, 5))
    outputs.requires_grad_()
    labels = torch.zeros(7, dtype=torch.int64)
    loss = Distillation(Known(), 1.0).loss(Classification(), Says(outputs), (outputs.detach(), labels))
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad.abs().max() < 1e-7


class OwnLoss(Classification):
    """A task with a loss of its own, which calls the network itself."""

    def loss(self, model, batch):
        inputs, labels = batch
        return nn.functional.multi_margin_loss(model(inputs), labels)


def test_both_parts_of_the_loss_are_of_one_forward_pass():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    loss = Distillation(nn.Linear(3, 2), 0.5).loss(OwnLoss(), model, (torch.randn(8, 3), torch.arange(8) % 2))
    assert loss.requires_grad
    assert model[1].num_batches_tracked == 1
