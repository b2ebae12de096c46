"""Masks: conversions, counts, and weights that stay exactly +0.0 whatever the optimizer does."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from causalprune.base.errors import MismatchError
from causalprune.models.mask import Mask, rewind
from causalprune.models.parameters import ParameterIndex


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def random_mask(index: ParameterIndex, seed: int = 0) -> Mask:
    return Mask(index, torch.rand(index.total, generator=torch.Generator().manual_seed(seed)) < 0.4)


def pruned_bits(model: nn.Module, mask: Mask) -> torch.Tensor:
    """Bit patterns of the pruned weights: 0 for +0.0 and for nothing else."""
    weights = [model.get_parameter(name).detach()[~keep] for name, keep in mask.tensors().items()]
    return torch.cat(weights).view(torch.int32)


def test_tensors_round_trip() -> None:
    index = ParameterIndex.from_model(small_net())
    mask = random_mask(index)
    again = Mask.from_tensors(index, {name: t.clone() for name, t in mask.tensors().items()})
    assert torch.equal(again.keep, mask.keep)
    assert {name: t.shape for name, t in mask.tensors().items()} == {"0.weight": (4, 1, 3, 3), "4.weight": (5, 16)}
    assert np.array_equal(mask.numpy(), np.array(mask.keep.tolist()))


def test_the_flat_view_cant_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Mask.all(ParameterIndex.from_model(small_net())).numpy()[0] = False


def test_counts() -> None:
    index = ParameterIndex.from_model(small_net())
    keep = torch.ones(116, dtype=torch.bool)
    keep[:9] = False
    keep[36:76] = False
    mask = Mask(index, keep)
    assert (mask.num_kept, mask.num_pruned, mask.sparsity) == (67, 49, 49 / 116)
    assert [(s.name, s.total, s.kept, s.sparsity) for s in mask.per_layer()] == [
        ("0.weight", 36, 27, 0.25),
        ("4.weight", 80, 40, 0.5),
    ]
    assert Mask.all(index).sparsity == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
        lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    ],
)
def test_pruned_weights_are_positive_zero_after_every_step(make) -> None:
    model = small_net()
    mask = random_mask(ParameterIndex.from_model(model))
    optimizer = make(model.parameters())
    # Momentum from before the mask pulls at the pruned weights.
    for step in range(6):
        if step == 2:
            hold = mask.bind(model)
        loss = nn.functional.cross_entropy(model(torch.randn(8, 1, 4, 4)), torch.randint(5, (8,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 2:
            assert pruned_bits(model, mask).any(), "the optimizer moved nothing, so the test shows nothing"
            hold()
            assert not pruned_bits(model, mask).any()
    kept = torch.cat([model.get_parameter(name).detach()[keep] for name, keep in mask.tensors().items()])
    assert (kept != 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_nan_infinity_and_negative_zero_become_positive_zero(dtype, layout) -> None:
    model = small_net().to(dtype=dtype, memory_format=layout)
    dense = {name: value.clone() for name, value in model.state_dict().items()}
    index = ParameterIndex.from_model(model)
    keep = torch.ones(index.total, dtype=torch.bool)
    keep[:4] = False
    with torch.no_grad():
        model[0].weight[0, 0, 0] = torch.tensor([float("nan"), float("-inf"), -0.0])
        model[0].weight[0, 0, 1, 0] = -1.0
    Mask(index, keep).apply_(model)
    pruned = model[0].weight.detach().flatten()[:4]
    assert not pruned.contiguous().view(torch.uint8).any(), "a bit is set"
    dense["0.weight"].view(4, 9)[0, :4] = 0
    assert all(torch.equal(dense[name], value) for name, value in model.state_dict().items()), "a kept weight changed"


def test_holding_allocates_nothing() -> None:
    model = small_net()
    hold = random_mask(ParameterIndex.from_model(model)).bind(model)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        hold()
    assert not [event for event in measured.events() if event.cpu_memory_usage]
    # The profiler does see an allocation when there is one.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        _ = model[4].weight * 2
    assert [event for event in measured.events() if event.cpu_memory_usage]


def test_tied_weights_are_masked_once_for_both() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    index = ParameterIndex.from_model(model)
    Mask(index, torch.arange(9) > 3).apply_(model)
    assert second.weight.count_nonzero() == 5


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (
            torch.ones(115, dtype=torch.bool),
            r"expected torch.bool of shape \(116,\), found torch.bool of shape \(115,\)",
        ),
        (torch.ones(116), "found torch.float32"),
        (torch.ones(2, 58, dtype=torch.bool), r"found torch.bool of shape \(2, 58\)"),
    ],
)
def test_a_mask_of_another_form_is_refused(keep: torch.Tensor, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        Mask(ParameterIndex.from_model(small_net()), keep)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("4.weight"), "4.weight missing"),
        (lambda t: t.update(other=t["4.weight"]), "other of no prunable parameter"),
        (lambda t: t.update({"4.weight": t["4.weight"].T}), r"mask of 4.weight.*\(5, 16\).*\(16, 5\)"),
        (lambda t: t.update({"4.weight": t["4.weight"].float()}), "mask of 4.weight.*torch.float32"),
    ],
)
def test_tensors_of_another_model_are_refused(change, message: str) -> None:
    index = ParameterIndex.from_model(small_net())
    tensors = Mask.all(index).tensors()
    change(tensors)
    with pytest.raises(MismatchError, match=message):
        Mask.from_tensors(index, tensors)


@pytest.mark.parametrize("other", [nn.Sequential(nn.Conv2d(1, 4, 5)), nn.Sequential(nn.ReLU()), nn.Linear(4, 9)])
def test_a_mask_of_another_model_changes_nothing(other: nn.Module) -> None:
    index = ParameterIndex.from_model(small_net())
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(MismatchError, match=r"a parameter 0\.weight of shape"):
        Mask(index, torch.zeros(index.total, dtype=torch.bool)).apply_(other)
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


@pytest.mark.parametrize("total", [1, 7, 8, 9, 120])
def test_packed_bits_give_the_mask_back(total: int) -> None:
    index = ParameterIndex.from_model(nn.Linear(total, 1))
    mask = Mask.from_numpy(index, np.random.default_rng(total).random(total) < 0.5)
    assert len(mask.packed()) == -(-total // 8)
    assert np.array_equal(Mask.unpacked(mask.packed(), total), mask.numpy())


# Rewinding: the whole earlier state under the mask, or nothing at all -------------------------------------------------


def net_with_statistics() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2), nn.BatchNorm1d(2))


def train_a_little(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(6, 1, 4, 4)).square().mean().backward()
        optimizer.step()


def test_the_whole_state_comes_back_under_the_mask() -> None:
    model = net_with_statistics()
    train_a_little(model)
    earlier = copy.deepcopy(model.state_dict())
    train_a_little(model)
    index = ParameterIndex.from_model(model)
    mask = Mask(index, torch.arange(index.total) % 3 > 0)
    rewind(model, earlier, mask)
    kept = mask.tensors()
    for name, value in model.state_dict().items():
        expected = torch.where(kept[name], earlier[name], 0.0) if name in kept else earlier[name]
        assert torch.equal(value, expected), name
    assert "1.running_mean" in earlier


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("1.running_var"), "1.running_var missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra of no such model"),
        (lambda s: s.update({"3.bias": torch.zeros(3)}), r"3.bias to rewind to: expected shape \(2,\), found \(3,\)"),
    ],
)
def test_weights_of_another_model_change_nothing(change, message: str) -> None:
    model = net_with_statistics()
    mask = Mask.all(ParameterIndex.from_model(model))
    before = copy.deepcopy(model.state_dict())
    weights = {name: torch.zeros_like(value) for name, value in before.items()}
    change(weights)
    with pytest.raises(MismatchError, match=message):
        rewind(model, weights, mask)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_rewinding_under_a_mask_of_another_model_changes_nothing() -> None:
    model = net_with_statistics()
    before = copy.deepcopy(model.state_dict())
    weights = {name: torch.zeros_like(value) for name, value in before.items()}
    with pytest.raises(MismatchError, match="a parameter weight"):
        rewind(model, weights, Mask.all(ParameterIndex.from_model(nn.Linear(2, 2))))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_gradients_of_pruned_weights_become_positive_zero_and_others_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2))
    index = ParameterIndex.from_model(model)
    keep = torch.arange(index.total) % 2 > 0
    hold = Mask(index, keep).bind(model)
    hold.gradients()
    for layer in (model[0], model[1]):
        layer.weight.grad = torch.full_like(layer.weight, -3.0)
        layer.weight.grad.view(-1)[0] = math.nan
    hold.gradients()
    found = torch.cat([model[0].weight.grad.view(-1), model[1].weight.grad.view(-1)])
    assert torch.equal(found.view(torch.int32), torch.where(keep[: len(found)], -3.0, 0.0).view(torch.int32))
    assert model[2].weight.grad is None
