"""Channels are pruned only where a network without them computes what it does with them at zero."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from causalprune.base.errors import MismatchError
from causalprune.base.specs import ModelSpec
from causalprune.models.networks import LeNet, ResNet20
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.removable import prunable_producers

pytest.importorskip("torch_pruning")


class Between(nn.Module):
    """Two convolutions, something between them, and a third one behind a plain ReLU."""

    def __init__(self, between, channels, read=16):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(read, 16, 3, padding=1)
        self.c, self.head = nn.Conv2d(16, 8, 3, padding=1), nn.Linear(8, 4)
        self.between = between

    def forward(self, images):
        hidden = torch.relu(self.b(self.between(self.a(images))))
        return self.head(torch.relu(self.c(hidden)).mean((2, 3)))


def producers_of(model, shape=(1, 8, 8), granularity="channel"):
    """The layers whose channels may be pruned, and those that can't be removed, by their names."""
    torch.manual_seed(0)
    index = ParameterIndex.from_model(model.eval())
    found = prunable_producers(granularity, model, index, ModelSpec("a test", shape, 4))
    return tuple([" ".join(index.entries[n].layer for n in family) for family in families] for families in found)


def shuffled(hidden):
    return hidden.view(len(hidden), 2, -1, *hidden.shape[2:]).transpose(1, 2).reshape(hidden.shape)


@pytest.mark.parametrize(
    ("between", "channels"),
    [
        (lambda h: functional.glu(h, 1), 32),
        (lambda h: functional.pixel_shuffle(h, 2), 64),
        (shuffled, 16),
        (lambda h: torch.softmax(h, 1), 16),
        (lambda h: h.cumsum(1), 16),
        (lambda h: h.flip(1), 16),
    ],
    ids=["glu", "pixel shuffle", "shuffle", "softmax", "cumsum", "flip"],
)
def test_functions_that_couple_channels(between, channels):
    producers, stuck = producers_of(Between(between, channels))
    assert "a" not in producers
    assert producers == ["b", "c"]
    assert stuck in ([], ["a"])


@pytest.mark.parametrize(
    "between",
    [
        torch.relu,
        functional.silu,
        lambda h: functional.max_pool2d(h, 3, 1, 1),
        lambda h: functional.instance_norm(h),
        lambda h: h * h.mean((2, 3), keepdim=True).sigmoid(),
    ],
    ids=["relu", "silu", "max pool", "instance norm", "gated by itself"],
)
def test_functions_that_keep_channels_apart(between):
    assert producers_of(Between(between, 16)) == (["a", "b", "c"], [])


def test_channels_that_are_never_constant():
    """Whatever a dead channel puts out, the image itself is added to it."""
    assert producers_of(Between(lambda h: h + torch.linspace(0, 1, 8), 16)) == (["b", "c"], ["a"])


def test_networks_of_our_own_keep_all_their_channels():
    assert producers_of(LeNet((1, 8, 8), 4)) == (["conv1", "conv2", "fc1"], [])
    assert producers_of(ResNet20((3, 8, 8), 4), (3, 8, 8)) == ([f"blocks.{n}.conv1" for n in range(9)], [])


def test_a_network_with_none_but_such():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GLU(1), nn.Flatten(), nn.Linear(4 * 36, 4))
    with pytest.raises(
        MismatchError, match=r"`granularity=channel`: .* can be removed, found only such .*\(0.weight\)"
    ):
        producers_of(model)


def test_outputs_are_never_pruned():
    assert producers_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 4)), granularity="neuron") == (
        ["1"],
        [],
    )


class Recurrent(nn.Module):
    """Whose outputs are those of its last layer, a recurrent one."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.last = nn.Linear(8, 4), layer

    def forward(self, x):
        found = self.last(self.first(x))
        return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        (nn.LSTM(4, 6), ["weight_ih_l0", "weight_hh_l0"]),
        (nn.GRU(4, 6, 2), ["weight_ih_l1", "weight_hh_l1"]),
        (
            nn.RNN(4, 6, 1, bidirectional=True),
            [f"weight_{w}_l0{way}" for w in ("ih", "hh") for way in ("", "_reverse")],
        ),
        (nn.GRUCell(4, 6), ["weight_ih", "weight_hh"]),
    ],
)
def test_all_matrices_of_the_outputs_are_kept(layer, kept):
    model = Recurrent(layer)
    index = ParameterIndex.from_model(model)
    found, _ = prunable_producers("neuron", model, index, ModelSpec("a test", (8,), 4))
    left = {entry.name for number, entry in enumerate(index) if (number,) not in found}
    assert left == {f"last.{name}" for name in kept}
