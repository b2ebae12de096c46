"""Running statistics from samples: PyTorch's own, a closed form, and nothing else of the network changed."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from causalprune.training.batch_statistics import averaging_batchnorm, reestimate_batchnorm


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
        nn.BatchNorm1d(5, momentum=0.3),
    )


class Mine(nn.BatchNorm1d):
    """A derived class, as other packages have them."""


class Frozen(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(False)


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(20, 3, 6, 6, generator=generator) * 2 + 1 for _ in range(4)]


def statistics(model):
    return {name: value.clone() for name, value in model.state_dict().items() if "running" in name}


@pytest.mark.parametrize("synchronized", [False, True])
def test_statistics_are_those_of_update_bn_bit_for_bit(batches, synchronized):
    mine, theirs = convolutional(), convolutional()
    if synchronized:
        mine = nn.SyncBatchNorm.convert_sync_batchnorm(mine)
    # Something to forget.
    for model in (mine, theirs):
        model.train()(batches[0] * 100)
    before = copy.deepcopy(mine.state_dict())
    reestimate_batchnorm(mine.eval(), batches)
    update_bn(batches, theirs)
    expected, found = statistics(theirs), statistics(mine)
    assert len(found) == 4
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    others = {name for name in before if name not in found}
    assert {"1.num_batches_tracked", "1.weight"} <= others
    assert all(torch.equal(before[name], mine.state_dict()[name]) for name in others)
    assert (mine[1].momentum, mine[5].momentum) == (0.1, 0.3)
    assert not any(module.training for module in mine.modules())


def test_the_first_layer_has_the_mean_and_the_unbiased_variance_of_its_inputs():
    model = nn.Sequential(Mine(2), nn.Linear(2, 1))
    x = np.random.default_rng(0).normal(3, 5, size=(3, 40, 2))
    reestimate_batchnorm(model, [torch.tensor(part, dtype=torch.float32) for part in x])
    np.testing.assert_allclose(model[0].running_mean, x.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(model[0].running_var, x.var(1, ddof=1).mean(0), rtol=1e-5)


class Noisy(nn.Module):
    """Drops out in training only, draws from every generator, counts its calls; nothing reaches one of its layers."""

    def __init__(self):
        super().__init__()
        self.norm, self.unreached, self.dropout = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.Dropout(0.9)
        self.none, self.frozen = nn.BatchNorm1d(3, track_running_stats=False), Frozen(3)
        self.own = torch.Generator()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        noise = random.random() + np.random.random() + float(torch.rand(()) + torch.rand((), generator=self.own))  # noqa: NPY002
        return self.norm(self.frozen(self.none(nn.functional.dropout(inputs, 0.9, self.training)))) + 0 * noise


def test_nothing_but_the_statistics_changes():
    model = Noisy().train()
    with torch.no_grad():
        model.frozen.running_mean += 7
    x = torch.randn(50, 3) * 4
    assert averaging_batchnorm(model) == [model.norm, model.unreached]
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]

    def drawn():
        return (
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002
            torch.get_rng_state().tolist(),
            model.own.get_state().tolist(),
        )

    states = drawn()
    reestimate_batchnorm(model, [x])
    assert drawn() == states
    assert [module.training for module in model.modules()] == modes
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"norm.running_mean", "norm.running_var"}
    # Whitened by the layer before, and less by 7 through the frozen one; dropout would give a variance near 10.
    expected = nn.functional.batch_norm(x, None, None, training=True) - 7
    torch.testing.assert_close(model.norm.running_mean, expected.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.norm.running_var, expected.var(0), rtol=1e-4, atol=1e-4)


def test_an_error_leaves_all_as_it_was(batches):
    model = convolutional().train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        reestimate_batchnorm(model, [*batches, batches[0][:1]])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert (model[1].momentum, model[5].momentum) == (0.1, 0.3)
    assert all(module.training for module in model.modules())


def test_layers_without_running_statistics_do_not_count():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2, track_running_stats=False))
    assert averaging_batchnorm(model) == []
