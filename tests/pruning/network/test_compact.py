"""``causalprune.compact``: a smaller network that computes the same."""

import copy

import pytest
import torch
from torch import nn

import causalprune as cp
from causalprune.base.errors import DataError, MismatchError

INPUTS = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    )


def pruned(model: nn.Module, sparsity: float = 0.5) -> cp.Mask:
    return cp.prune(
        model, sparsity=sparsity, criterion="magnitude", granularity="channel", scope="layer", inputs=INPUTS
    )


def test_the_outputs_are_the_same_and_the_layers_as_small_as_the_mask_says(network):
    mask = pruned(network)
    kept = [int(tensor.flatten(1).any(1).sum()) for tensor in mask.tensors().values()]
    before = copy.deepcopy(network.state_dict())
    smaller = cp.compact(network, mask, inputs=[(INPUTS[:40], torch.zeros(40)), (INPUTS[40:], torch.zeros(24))])
    network.eval()
    unseen = torch.randn(50, 3, 8, 8)
    assert torch.allclose(smaller(unseen), network(unseen), atol=1e-5)
    convolutions = [module for module in smaller if isinstance(module, nn.Conv2d)]
    # At most one channel more: one that stands for what the biases of the removed ones put out.
    assert [c.out_channels - k for c, k in zip(convolutions, kept, strict=False)] in ([0, 0], [1, 0], [0, 1], [1, 1])
    assert convolutions[0].out_channels < 8
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)


def test_the_smaller_network_can_be_trained_and_copied(network):
    smaller = cp.compact(network, pruned(network), inputs=INPUTS).train()
    optimizer = torch.optim.SGD(smaller.parameters(), lr=0.1)
    before = copy.deepcopy(smaller.state_dict())
    smaller(INPUTS).square().mean().backward()
    optimizer.step()
    assert any(not torch.equal(before[name], value) for name, value in smaller.state_dict().items())


def test_a_compiled_network_becomes_a_plain_one(network):
    mask = pruned(network)
    smaller = cp.compact(torch.compile(network), mask, inputs=INPUTS)
    assert type(smaller) is nn.Sequential
    assert torch.allclose(smaller(INPUTS), network.eval()(INPUTS), atol=1e-5)


def test_what_cannot_be_made_smaller_is_refused(network):
    scattered = cp.prune(copy.deepcopy(network), sparsity=0.3, criterion="random")
    with pytest.raises(MismatchError, match="pruned weights of exactly 0"):
        cp.compact(network, scattered, inputs=INPUTS)
    scattered.apply_(network)
    with pytest.raises(DataError, match="a filter or neuron with every weight pruned"):
        cp.compact(network, scattered, inputs=INPUTS)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 12), nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, left, right):
        return {"logits": self.last(self.second(self.first(torch.cat([left, right], 1)).relu()).relu())}


def test_a_network_of_several_inputs():
    torch.manual_seed(0)
    model, rows = Two(), torch.randn(60, 5)
    batches = [{"left": part[:, :2], "right": part[:, 2:], "labels": torch.zeros(20)} for part in rows.split(20)]
    mask = cp.prune(model, sparsity=0.5, criterion="magnitude", granularity="channel", inputs=batches)
    smaller = cp.compact(model, mask, inputs=batches)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    unseen = torch.randn(9, 2), torch.randn(9, 3)
    assert torch.allclose(smaller(*unseen)["logits"], model(*unseen)["logits"], atol=1e-5)


class Sentences(nn.Module):
    """Words, of which a mask says which count, at a scale for all."""

    def __init__(self):
        super().__init__()
        self.words, self.hidden, self.last = nn.Embedding(20, 6), nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, ids, mask, scale):
        means = (self.words(ids.int()) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.last(input=self.hidden(means * scale).relu())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_batches_of_several_lengths_and_dtypes(dtype):
    torch.manual_seed(0)
    model, scale = Sentences(), torch.tensor(2.0)
    batches = [
        {"ids": torch.randint(20, (8, length)).to(dtype), "mask": torch.rand(8, length) < 0.9, "scale": scale}
        for length in (5, 9, 3)
    ]
    for batch in batches:
        batch["mask"][:, 0] = True
    mask = cp.prune(model, sparsity=0.5, criterion="magnitude", granularity="channel", inputs=batches)
    smaller = cp.compact(model, mask, inputs=batches)
    assert smaller.hidden.out_features < 12
    ids, keep = torch.randint(20, (4, 7)).to(dtype), torch.ones(4, 7, dtype=torch.bool)
    assert torch.allclose(smaller(ids, keep, scale), model(ids, keep, scale), atol=1e-5)


def test_batches_in_which_time_comes_first():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2))
    batches = [torch.randn(length, 3, 4) for length in (40, 50)]
    mask = cp.prune(model, sparsity=0.5, criterion="magnitude", granularity="channel", inputs=batches)
    assert cp.compact(model, mask, inputs=batches)[0].out_features < 10
