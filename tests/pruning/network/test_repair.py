"""``causalprune.repair``: the repair of layers, on what a loop has."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import causalprune as cp
from causalprune.base.errors import MismatchError, UsageError
from causalprune.pruning.repair import repair_layers


@pytest.fixture
def pruned():
    """A pruned network, its mask, the dense one, and inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 4))
    dense = copy.deepcopy(model)
    mask = cp.prune(model, sparsity=0.6, criterion="magnitude")
    return model, mask, dense, torch.randn(90, 6)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_is_the_repair_of_layers_whatever_the_inputs_come_in(pruned):
    model, mask, dense, inputs = pruned
    targets = torch.zeros(90)
    twin = copy.deepcopy(model)
    layers = list(repair_layers(twin, dense, mask, list(inputs[:64].split(30))))
    expected = state(twin)
    for given in (
        DataLoader(TensorDataset(inputs, targets), batch_size=30),
        DataLoader(TensorDataset(inputs), batch_size=30),
        list(inputs.split(30)),
        iter(inputs.split(30)),
        [((part,), None) for part in inputs.split(30)],
    ):
        twin = copy.deepcopy(model)
        assert cp.repair(twin, mask, dense=dense, inputs=given, samples=64) == layers
        assert same(state(twin), expected)


def test_two_kept_weights_are_enough_for_inputs_of_two_dimensions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 40), nn.Linear(40, 3))
    dense = copy.deepcopy(model)
    inputs = torch.randn(50, 2) @ torch.randn(2, 4)
    mask = cp.prune(model, sparsity=0.5, criterion="magnitude", scope="layer")
    before = model[0](inputs)
    cp.repair(model, mask, dense=dense, inputs=inputs, ridge=1e-5)
    enough = mask.tensors()["0.weight"].sum(1) >= 2
    assert 10 < enough.sum() < 40
    wanted = dense[0](inputs)[:, enough]
    assert torch.allclose(model[0](inputs)[:, enough], wanted, atol=1e-2)
    assert not torch.allclose(before[:, enough], wanted, atol=0.5)


def test_a_state_dict_will_do_for_the_dense_network_and_is_not_changed(pruned):
    model, mask, dense, inputs = pruned
    weights = copy.deepcopy(dense.state_dict())
    before = {name: value.clone() for name, value in weights.items()}
    twin = copy.deepcopy(model)
    cp.repair(twin, mask, dense=dense, inputs=inputs)
    cp.repair(nn.DataParallel(model), mask, dense=weights, inputs=inputs)
    assert same(state(model), state(twin))
    assert same(weights, before)


def test_pruned_weights_stay_zero_and_modes_stay(pruned):
    model, mask, dense, inputs = pruned
    model.train()
    cp.repair(model, mask, dense=dense, inputs=inputs)
    assert model.training
    for name, keep in mask.tensors().items():
        assert not model.get_parameter(name).detach()[~keep].any()


def test_a_state_dict_that_was_not_copied_is_told_apart(pruned):
    model, mask, _, inputs = pruned
    for dense in (model, model.state_dict()):
        with pytest.raises(
            MismatchError, match=r"`dense`: .* found one that is pruned as well; copy it before: copy\.deep"
        ):
            cp.repair(model, mask, dense=dense, inputs=inputs)


def test_weights_that_moved_between_mask_and_repair_are_refused(pruned):
    model, mask, dense, inputs = pruned
    model.load_state_dict(dense.state_dict())
    with pytest.raises(MismatchError, match=r"pruned weights of exactly 0, found others in 0\.weight; call mask"):
        cp.repair(model, mask, dense=dense, inputs=inputs)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"dense": OrderedDict(a=torch.ones(1))}, MismatchError, "`dense`: expected a state dict of this Sequential"),
        ({"dense": nn.Linear(6, 4)}, MismatchError, "dense network: expected a parameter 0.weight, found none"),
        ({"dense": "dense.pt"}, UsageError, "`dense`: expected a network or its state dict, found str"),
        ({"inputs": 3}, UsageError, "`inputs`: expected a tensor of inputs (N, …), or batches"),
        ({"inputs": ["text"]}, UsageError, "`inputs`: expected a tensor"),
        ({"samples": 0}, UsageError, "`samples`: expected a whole number of at least 1, found 0"),
        ({"ridge": 0.0}, UsageError, "`ridge`: expected a finite number above 0"),
    ],
)
def test_bad_input_is_one_line(pruned, wrong, error, said):
    model, mask, dense, inputs = pruned
    before = state(model)
    with pytest.raises(error) as raised:
        cp.repair(model, mask, **{"dense": dense, "inputs": inputs, **wrong})
    assert said in str(raised.value)
    assert same(state(model), before)
