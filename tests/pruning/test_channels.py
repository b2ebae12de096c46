"""Channels: which layers produce and which consume them, of networks where the answer follows from their definition."""

import copy
import sys

import pytest
import torch
from torch import nn

from causalprune.base.compute.inputs import example_inputs
from causalprune.base.errors import MismatchError, UsageError
from causalprune.models.networks import MLP, LeNet, ResNet20
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.channels import ChannelGraph, last_layer


def channels_of(model: nn.Module, shape: tuple[int, ...]):
    """By the names of the producers: the number of channels, and the consumers' columns by name."""
    index = ParameterIndex.from_model(model.eval())
    names = {module: name for name, module in model.named_modules()}
    return {
        " ".join(index.entries[number].layer for number in channels.producers): (
            channels.count,
            {names[consumer]: columns.tolist() for consumer, columns in channels.consumers.items()},
        )
        for channels in ChannelGraph(model, index, example_inputs(shape, 1, random=True), wanted_by="a test")
    }


def test_neurons_but_not_the_outputs() -> None:
    one_each = [[0], [1], [2], [3]]
    found = channels_of(MLP((5,), 2, (4, 3)), (5,))
    assert found == {"layers.0": (4, {"layers.1": one_each}), "layers.1": (3, {"layers.2": one_each[:3]})}


def test_flattened_channels_are_read_by_several_columns() -> None:
    found = channels_of(LeNet((1, 28, 28), 10), (1, 28, 28))
    assert list(found) == ["conv1", "conv2", "fc1"]
    count, consumers = found["conv2"]
    assert consumers == {"fc1": torch.arange(count * 16).view(count, 16).tolist()}


def test_a_shortcut_that_pads_channels_has_none_that_can_be_removed() -> None:
    assert list(channels_of(ResNet20((3, 16, 16), 10), (3, 16, 16))) == [f"blocks.{n}.conv1" for n in range(9)]


def test_layers_whose_weight_is_computed_are_counted_too() -> None:
    computed = nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 4, 3))
    model = nn.Sequential(computed, nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten())
    assert channels_of(model, (1, 6, 6)).keys() <= {"0.parametrizations.weight", "0"}


class LastStep(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0][-1]


WEIGHTS = [f"weight_{kind}_l{number}{way}" for number in range(2) for way in ("", "_reverse") for kind in ("ih", "hh")]


@pytest.mark.parametrize("way", [None, *WEIGHTS])
def test_outputs_of_a_recurrent_layer_are_those_of_its_last_one(way: str | None) -> None:
    from torch.nn.utils import parametrizations, prune

    def found(model: nn.Module) -> set[str]:
        index = ParameterIndex.from_model(model)
        names = [index.entries[number].name for number in last_layer(model, index, torch.zeros(5, 2, 3))]
        return {next(w for w in sorted(WEIGHTS, key=len, reverse=True) if w in name) for name in names}

    plain = LastStep(nn.LSTM(3, 4, 2, bidirectional=True)).eval()
    assert found(plain) == {name for name in WEIGHTS if "_l1" in name}
    if way is not None:
        masked, computed = copy.deepcopy(plain), copy.deepcopy(plain)
        prune.random_unstructured(masked.layer, way, 0.5)
        parametrizations.spectral_norm(computed.layer, way)
        assert found(masked) == found(computed) == found(plain)


def test_torchvisions_resnet_is_coupled_by_stages() -> None:
    from torchvision.models import resnet18

    found = channels_of(resnet18(num_classes=3), (3, 32, 32))
    inner = [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3, 4) for block in (0, 1)]
    stages = [f"layer{n}.0.conv2 layer{n}.0.downsample.0 layer{n}.1.conv2" for n in (2, 3, 4)]
    assert sorted(found) == sorted(["conv1 layer1.0.conv2 layer1.1.conv2", *inner, *stages])
    assert found[stages[-1]][1].keys() == {"layer4.1.conv1", "fc"}


@pytest.mark.parametrize(
    ("name", "producers", "families"),
    [("mobilenet_v2", 52, 25), ("efficientnet_b0", 81, 40), ("vit_b_16", 12, 12)],
)
def test_other_networks_of_torchvision(name: str, producers: int, families: int) -> None:
    """All layers but the outputs; of a transformer, whose LayerNorms consume the rest, hidden layers of its blocks."""
    from torchvision import models

    shape = (3, 224, 224) if name == "vit_b_16" else (3, 64, 64)
    found = channels_of(getattr(models, name)(num_classes=3), shape)
    assert len(found) == families
    assert sum(len(names.split()) for names in found) == producers


class Joined(nn.Module):
    """Two layers whose outputs lie side by side before a third."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 3, 3), nn.Conv2d(5, 2, 3)

    def forward(self, images):
        return self.c(torch.cat([self.a(images), self.b(images)], 1))


def test_concatenated_channels_keep_their_columns() -> None:
    found = channels_of(Joined(), (1, 8, 8))
    assert found == {"a": (2, {"c": [[0], [1]]}), "b": (3, {"c": [[2], [3], [4]]})}


def test_a_depthwise_convolution_is_pruned_with_the_layer_before_it() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 3))
    assert channels_of(model, (1, 12, 12)) == {"0 2": (4, {"3": [[0], [1], [2], [3]]})}


@pytest.mark.parametrize(
    "middle",
    [nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2), nn.GroupNorm(2, 4), nn.ConvTranspose2d(4, 4, 3)],
    ids=["two of each channel", "grouped", "group norm", "transposed"],
)
def test_layers_that_hold_channels_together(middle: nn.Module) -> None:
    width = getattr(middle, "out_channels", 4)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), middle, nn.Conv2d(width, 2, 3))
    assert channels_of(model, (1, 12, 12)) == {}


def test_a_network_that_cannot_be_followed() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, inputs):
            raise ValueError("two of a kind wanted\nsecond line")

    model = Fixed().eval()
    with pytest.raises(MismatchError, match=r"`compact` of Fixed: .* found two of a kind wanted; do without it"):
        ChannelGraph(model, ParameterIndex.from_model(model), torch.rand(1, 3), wanted_by="`compact`")


def test_without_torch_pruning(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    model = nn.Linear(3, 2)
    with pytest.raises(UsageError, match=r"pip install '\.\[compact\]'"):
        ChannelGraph(model, ParameterIndex.from_model(model), torch.rand(1, 3), wanted_by="`compact`")
