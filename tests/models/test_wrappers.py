"""Copies of networks compute with their own weights, whatever is wrapped around the original."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from causalprune.models.wrappers import plain_copy


def compiled_forward(model):
    model.forward = torch.compile(model.forward, backend="eager")
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: nn.Sequential(torch.compile(model, backend="eager")),
        compiled_forward,
        nn.DataParallel,
        lambda model: nn.Sequential(*(prune.l1_unstructured(layer, "weight", 0.5) for layer in model)),
        lambda model: nn.Sequential(*map(spectral_norm, model)),
        lambda model: nn.Sequential(*map(parametrizations.weight_norm, model)),
    ],
    ids=["plain", "compile", "part", "forward", "data parallel", "torch prune", "old spectral norm", "weight norm"],
)
def test_a_copy_has_real_names_and_weights_of_its_own(wrap):
    torch.manual_seed(0)
    model, inputs = wrap(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))).eval(), torch.randn(5, 4)
    expected = model(inputs)
    twin = plain_copy(model)
    assert torch.equal(twin(inputs), expected)
    assert not any("_orig_mod" in name or "module." in name for name, _ in twin.named_parameters())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(model(inputs), expected)
        assert not torch.equal(twin(inputs), expected)
