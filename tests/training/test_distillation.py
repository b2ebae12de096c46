"""The distilled part of the loss against NumPy and SciPy in float64."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import nn

from causalprune.training.distillation import Distillation


class Known(nn.Module):
    """Puts out what it was given, doubled in training."""

    def forward(self, inputs):
        return inputs * (2 if self.training else 1)


def tensors(shape):
    generator = torch.Generator().manual_seed(3)
    return [3 * torch.randn(shape, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_classification_minimizes_the_divergence_at_temperature_two(weight):
    outputs, wanted = tensors((7, 5))
    network = Known()
    loss = Distillation(network, weight).loss("classification", torch.tensor(1.5), outputs, wanted)
    p, q = (softmax(t.double().numpy() / 2, axis=1) for t in (wanted, outputs))
    expected = (1 - weight) * 1.5 + weight * 4 * rel_entr(p, q).sum(1).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert network.training


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_regression_minimizes_the_squared_difference(weight):
    outputs, wanted = tensors((7, 1))
    loss = Distillation(Known(), weight).loss("regression", torch.tensor(1.5), outputs, wanted)
    expected = (1 - weight) * 1.5 + weight * np.mean((outputs - wanted).double().numpy() ** 2)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_outputs_of_reduced_precision_are_compared_in_float32():
    outputs, wanted = (t.bfloat16() for t in tensors((7, 5)))
    loss = Distillation(Known(), 1.0).loss("classification", torch.tensor(0.0), outputs, wanted)
    p, q = (softmax(t.double().numpy() / 2, axis=1) for t in (wanted, outputs))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(4 * rel_entr(p, q).sum(1).mean(), rel=1e-5)


def test_its_own_network_costs_nothing():
    outputs, _ = tensors((7, 5))
    outputs.requires_grad_()
    loss = Distillation(Known(), 1.0).loss("classification", torch.tensor(9.0), outputs, outputs.detach())
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad.abs().max() < 1e-7
