"""A held mask: pruned weights are 0 after every step, whatever takes it, and all others are trained as without it."""

import copy
import pickle

import pytest
import torch
from torch import nn

from causalprune.base.errors import MismatchError, UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def pruned(model):
    index = ParameterIndex.from_model(model)
    mask = Mask(index, torch.rand(index.total, generator=torch.Generator().manual_seed(1)) < 0.4)
    mask.apply_(model)
    return mask


def step(model, optimizer, seed=0):
    inputs = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    (model(inputs) ** 2).sum().backward()
    optimizer.step()


def bits(model, mask):
    """Bit patterns of the pruned weights: 0 for +0.0 and for nothing else."""
    weights = [model.get_parameter(name).detach()[~keep] for name, keep in mask.tensors().items()]
    return torch.cat(weights).view(torch.int32)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_that_of_projected_steps(name):
    model = network()
    # Momentum of the pruned weights, too.
    optimizer = OPTIMIZERS[name](model.parameters())
    step(model, optimizer)
    mask = pruned(model)
    twin = copy.deepcopy(model)
    other = OPTIMIZERS[name](twin.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    mask.hold(optimizer)
    for seed in range(5):
        step(model, optimizer, seed)
        step(twin, other, seed)
        for parameter, keep in mask.tensors().items():
            twin.get_parameter(parameter).data[~keep] = 0
        assert not bits(model, mask).any()
        assert all(map(torch.equal, model.state_dict().values(), twin.state_dict().values()))


def test_without_it_pruned_weights_move():
    model = network()
    mask = pruned(model)
    step(model, OPTIMIZERS["momentum"](model.parameters()))
    assert bits(model, mask).all()


def test_a_gradient_scaler_steps_like_any_other_caller():
    model = network()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    mask = pruned(model)
    mask.hold(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((model(torch.randn(8, 1, 4, 4)) ** 2).sum()).backward()
    before = model[0].weight.detach().clone()
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(model[0].weight, before)
    assert not bits(model, mask).any()


def test_it_sets_weights_that_were_loaded_since_to_zero_at_once():
    model = network()
    dense = copy.deepcopy(model.state_dict())
    mask = pruned(model)
    model.load_state_dict(dense)
    mask.hold(torch.optim.SGD(model.parameters(), lr=0.1))
    assert not bits(model, mask).any()


def test_it_ends_with_the_block_or_when_it_is_released():
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    mask = pruned(model)
    with mask.hold(optimizer):
        step(model, optimizer)
        assert not bits(model, mask).any()
    step(model, optimizer)
    assert bits(model, mask).all()
    hold = mask.hold(optimizer)
    hold.release()
    hold.release()
    step(model, optimizer)
    assert bits(model, mask).all()


def test_a_model_that_is_moved_stays_held():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mask = pruned(model)
    mask.hold(optimizer)
    model.double()
    (model(torch.randn(8, 1, 4, 4, dtype=torch.float64)) ** 2).sum().backward()
    optimizer.step()
    assert all(not model.get_parameter(n).detach()[~keep].any() for n, keep in mask.tensors().items())


def test_a_mask_that_was_loaded_needs_the_model():
    model = network()
    mask = pruned(model)
    again = pickle.loads(pickle.dumps(mask))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1.0)
    with pytest.raises(UsageError, match=r"Mask.hold: expected a network that .* found none; pass `model`"):
        again.hold(optimizer)
    again.hold(optimizer, model)
    step(model, optimizer)
    assert not bits(model, mask).any()


def test_what_cannot_be_held_is_said():
    model = network()
    mask = pruned(model)
    other = network()
    with pytest.raises(
        UsageError, match="expected an optimizer of the pruned weights, found one that has none of them"
    ):
        mask.hold(torch.optim.SGD(other.parameters(), lr=0.1))
    with pytest.raises(UsageError, match=r"expected a torch\.optim\.Optimizer, found object; pass the optimizer"):
        mask.hold(object())
    with pytest.raises(MismatchError, match=r"expected a parameter 0\.weight of shape \(4, 1, 3, 3\)"):
        mask.hold(torch.optim.SGD(other.parameters(), lr=0.1), nn.Sequential(nn.Linear(2, 2)))


def test_only_some_layers_may_be_trained():
    model = network()
    mask = pruned(model)
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1, weight_decay=1.0)
    mask.hold(optimizer)
    step(model, optimizer)
    assert not bits(model, mask).any()


def dead_channels() -> tuple[nn.Sequential, Mask]:
    """A network half of whose first channels are pruned, before a batch normalization."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))
    index = ParameterIndex.from_model(model)
    keep = torch.ones(index.total, dtype=torch.bool)
    keep[: index["0.weight"].stop // 2] = False
    mask = Mask(index, keep)
    mask.apply_(model)
    return model, mask


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_dead_channels_put_out_the_same_in_training_and_evaluation(optimizer):
    model, mask = dead_channels()
    before = model[0].bias.detach().clone()
    trained = optimizer(model.parameters(), lr=1e-2)
    mask.hold(trained)
    for _ in range(150):
        images = torch.randn(16, 2, 6, 6)
        nn.functional.cross_entropy(model(images), images[:, 0, 0, 0].gt(0).long()).backward()
        trained.step()
        trained.zero_grad()
    assert torch.equal(model[0].bias[:4], before[:4])
    assert not torch.equal(model[0].bias[4:], before[4:])
    normalized = model[:2].eval()(images)[:, :4]
    # A constant: what the normalization adds, in either mode.
    assert torch.allclose(normalized, model[1].bias[:4, None, None].expand_as(normalized), atol=1e-3)


def test_with_sgd_every_bias_is_trained():
    model, mask = dead_channels()
    plain = nn.Sequential(model[0], nn.ReLU(), nn.Flatten(), model[4])
    before = model[0].bias.detach().clone()
    trained = torch.optim.SGD(plain.parameters(), lr=0.1)
    mask.hold(trained, model)
    plain(torch.randn(16, 2, 6, 6)).square().mean().backward()
    trained.step()
    positive = before[:4] > 0
    assert positive.any()
    assert (model[0].bias[:4] != before[:4])[positive].all()


def spectral(model):
    nn.utils.spectral_norm(model[0])


def by_torch(model):
    nn.utils.prune.identity(model[0], "weight")
    nn.utils.prune.identity(model[0], "bias")


def parametrized(model):
    nn.utils.parametrizations.spectral_norm(model[0])


@pytest.mark.parametrize("wrap", [lambda model: None, spectral, by_torch, parametrized])
def test_no_adaptive_step_moves_the_bias_of_a_unit_without_weights(wrap):
    model = network()
    wrap(model)
    index = ParameterIndex.from_model(model)
    mask = Mask.all(index)
    mask.tensors()[index.entries[0].name][1:3] = False
    mask.apply_(model)
    bias = next(p for name, p in model.named_parameters() if name.startswith("0.") and "bias" in name)
    before = bias.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with mask.hold(optimizer):
        step(model, optimizer)
        assert torch.equal(bias[1:3], before[1:3])
        assert (bias != before).any()
    # The gradients are rounding, so that not all need be other than 0.
    step(model, optimizer)
    assert (bias[1:3] != before[1:3]).any()


def test_biases_that_are_loaded_while_a_mask_is_held_stay():
    model = network()
    mask = Mask.all(ParameterIndex.from_model(model))
    mask.tensors()["0.weight"][1:3] = False
    mask.apply_(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    mask.hold(optimizer)
    step(model, optimizer)
    other = {name: torch.full_like(value, 3.0) for name, value in model.state_dict().items() if "num" not in name}
    model.load_state_dict(other, strict=False)
    step(model, optimizer)
    assert model[0].bias[1:3].tolist() == [3.0, 3.0]
    assert not model[0].weight[1:3].any()
