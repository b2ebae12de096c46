"""A state dict that is pruned without its network: every reading that a network would accept, and its ties."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.state_dict import read_state_dict


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.body, self.norm = nn.Embedding(7, 6), nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.twin, self.out = nn.Linear(6, 6), nn.Linear(6, 7)
        self.out.weight = self.embedding.weight


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Tied()
    # Equal, but two weights: both are prunable.
    model.twin.load_state_dict(model.body.state_dict())
    return model


def some_mask(index):
    return Mask(index, torch.rand(index.total, generator=torch.Generator().manual_seed(1)) < 0.5)


def saved(model, path, *, prefix="", key=""):
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file({name: value.clone() for name, value in state.items()}, path)
    else:
        torch.save({key: state, "epoch": 3} if key else state, path)
    return path


@pytest.mark.parametrize(
    ("name", "prefix", "key"),
    [
        ("model.pt", "", ""),
        ("model.safetensors", "", ""),
        ("model.pth.tar", "module.", "state_dict"),
        ("model.ckpt", "_orig_mod.module.", "model"),
    ],
)
def test_what_is_written_is_what_apply_makes_of_the_network(model, tmp_path, name, prefix, key):
    index = ParameterIndex.from_model(model)
    found = read_state_dict(saved(model, tmp_path / name, prefix=prefix, key=key), index)
    mask = some_mask(index)
    assert found.mask.num_pruned == 0
    assert torch.equal(found.theta(), index.flatten(dict(model.named_parameters(remove_duplicate=False))))
    assert found.tied == {"out.weight": ["embedding.weight"]}
    twin = Tied()
    twin.load_state_dict(found.pruned(mask, {}), strict=True)
    mask.apply_(model)
    assert all(map(torch.equal, twin.state_dict().values(), model.state_dict().values()))


def test_half_precision_stays_half(model, tmp_path):
    model.to(torch.bfloat16)
    index = ParameterIndex.from_model(model)
    found = read_state_dict(saved(model, tmp_path / "model.pt"), index)
    written = found.pruned(some_mask(index), {"body.weight": torch.full((6, 6), 0.3)})
    assert {t.dtype for n, t in written.items() if "norm" not in n} == {torch.bfloat16}


def test_masks_of_pytorch_are_known(tmp_path):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(5, 4))
    model = copy.deepcopy(plain)
    prune.l1_unstructured(model[0], "weight", amount=8)
    path = saved(model, tmp_path / "model.pt")
    found = read_state_dict(path, ParameterIndex.from_model(plain))
    assert list(found.tensors) == ["0.bias", "0.weight"]
    assert torch.equal(found.mask.keep.view(4, 5), model[0].weight_mask != 0)
    assert torch.equal(found.tensors["0.weight"], model[0].weight)
    # A loop that was recorded with these masks has the original's name.
    own = read_state_dict(path, ParameterIndex.from_model(model))
    assert set(own.tensors) == {"0.bias", "0.weight_orig", "0.weight_mask"}


def test_other_networks_and_other_things_are_refused(model, tmp_path):
    index = ParameterIndex.from_model(model)
    with pytest.raises(
        MismatchError, match=r"expected a weight body\.weight, as in the recording, found none \(3 of 3"
    ):
        read_state_dict(saved(nn.Linear(2, 2), tmp_path / "other.pt"), index)
    model.body = nn.Linear(6, 5)
    with pytest.raises(
        MismatchError, match=r"body\.weight in .*: expected shape \(6, 6\), as in the .* found \(5, 6\)"
    ):
        read_state_dict(saved(model, tmp_path / "shape.pt"), index)
    model.body = nn.Linear(6, 6)
    state = model.state_dict()
    torch.save({**state, "_extra_state": {"a": 1}}, tmp_path / "extra.pt")
    with pytest.raises(
        CorruptError, match=r"_extra_state in .*: expected a dense tensor, .* found dict; prune the network"
    ):
        read_state_dict(tmp_path / "extra.pt", index)
    torch.save({**state, "body.weight": torch.full((6, 6), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(DataError, match="expected finite floating-point weights"):
        read_state_dict(tmp_path / "nan.pt", index)
