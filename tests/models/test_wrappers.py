"""Names and tensors of networks within wrappers, and of weights that are computed from others."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from causalprune.base.errors import DataError, MismatchError
from causalprune.models import parameters
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.wrappers import named_parameters, plain_copy, uncompiled, unwrapped


def compiled(module):
    return torch.compile(module, backend="eager")


def plain():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ConvTranspose2d(2, 2, 3), nn.ReLU()), nn.Linear(4, 3))


WRAPPED = {
    "compiled": lambda: compiled(plain()),
    "data parallel": lambda: nn.DataParallel(plain()),
    "both": lambda: compiled(nn.DataParallel(compiled(plain()))),
    "a part": lambda: nn.Sequential(*[compiled(m) if isinstance(m, nn.Sequential) else m for m in plain()]),
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrappers_have_no_name(wrap):
    expected, model = plain(), WRAPPED[wrap]()
    assert ParameterIndex.from_model(model) == ParameterIndex.from_model(expected)
    found = {name: p.shape for name, p in named_parameters(model).items()}
    assert found == {name: p.shape for name, p in expected.named_parameters()}
    index = ParameterIndex.from_model(model)
    Mask(index, torch.zeros(index.total, dtype=torch.bool)).apply_(model)
    assert not any(p.any() for name, p in named_parameters(model).items() if name.endswith("weight"))
    state = uncompiled(model).state_dict()
    assert list(state) == list(expected.state_dict())


def test_a_network_without_a_wrapper_is_itself():
    model = plain()
    assert unwrapped(model) is model
    assert uncompiled(model) is model


def test_a_tied_weight_has_all_its_names():
    layer = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": layer, "b": layer, "c": nn.Linear(3, 3)})
    model["c"].weight = layer.weight
    assert set(named_parameters(model)) == set(dict(model.named_parameters(remove_duplicate=False)))
    assert [entry.name for entry in ParameterIndex.from_model(model)] == ["a.weight"]


def half(layer):
    return prune.l1_unstructured(layer, "weight", 0.5)


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (half, "0.weight_orig"),
        (spectral_norm, "0.weight_orig"),
        (parametrizations.spectral_norm, "0.parametrizations.weight.original"),
    ],
)
def test_an_original_weight_is_pruned_and_with_it_the_weight(wrap, name):
    model = nn.Sequential(wrap(nn.Linear(6, 5)), nn.Linear(5, 2))
    index = ParameterIndex.from_model(model)
    assert [(entry.name, entry.layer) for entry in index] == [(name, "0"), ("1.weight", "1")]
    assert name in model.state_dict()
    keep = torch.rand(index.total, generator=torch.Generator().manual_seed(0)) < 0.5
    Mask(index, keep).apply_(model)
    model(torch.randn(2, 6))
    assert not model[0].weight.detach().flatten()[~keep[:30]].any()
    assert model[0].weight.isfinite().all()


@pytest.mark.parametrize("wrap", [weight_norm, parametrizations.weight_norm, parametrizations.orthogonal])
def test_a_weight_that_zeros_would_break_is_left_out(wrap, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = wrap(nn.Linear(6, 5))
    said = []
    monkeypatch.setattr(parameters.logger, "warning", lambda text, *values: said.append(text % values))
    index = ParameterIndex.from_model(nn.Sequential(layer, nn.Linear(5, 2)))
    assert [entry.name for entry in index] == ["1.weight"]
    assert said == ["layer 0 can't be pruned: the weight is computed from other tensors"]
    with pytest.raises(DataError, match="found weights computed from other tensors, which can't be pruned"):
        ParameterIndex.from_model(nn.Sequential(layer))


def test_the_mask_of_pytorchs_pruning_is_the_models():
    model = nn.Sequential(half(nn.Linear(6, 5)), nn.Linear(5, 2))
    index = ParameterIndex.from_model(model)
    mask = Mask.of_model(model, index)
    assert torch.equal(mask.tensors()["0.weight_orig"], model[0].weight_mask.bool())
    assert mask.tensors()["1.weight"].all()
    assert Mask.of_model(plain(), ParameterIndex.from_model(plain())).num_pruned == 0


def test_another_model_is_still_told_by_its_names():
    with pytest.raises(MismatchError, match=r"expected a parameter 0\.weight"):
        Mask.all(ParameterIndex.from_model(plain())).bind(nn.Sequential(nn.Identity(), nn.Linear(4, 3)))


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
