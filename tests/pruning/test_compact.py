"""Networks without their dead units compute what the masked ones do."""

import copy

import pytest
import torch
from torch import nn

from causalprune.analysis.cost import latency, measure_cost, peak_memory, stored_bytes
from causalprune.base.errors import DataError, MismatchError
from causalprune.models.mask import Mask
from causalprune.models.networks import MLP, LeNet, ResNet20, mlpnet
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.channels import ChannelGraph
from causalprune.pruning.compact import compact_model
from causalprune.pruning.criterion import Scores
from causalprune.pruning.selection import select

SHAPES = {"lenet": (1, 8, 8), "lenet unpadded": (3, 20, 20), "mlp": (13,), "mlpnet": (1, 8, 8), "resnet20": (3, 16, 16)}


def samples(shape, count=8):
    """Inputs, the same in every call."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def network(name):
    """With biases and BatchNorm statistics that no initialization would leave at zero."""
    torch.manual_seed(0)
    shape = SHAPES[name]
    model = {
        "lenet": lambda: LeNet(shape, 10),
        "lenet unpadded": lambda: LeNet(shape, 10),
        "mlp": lambda: MLP(shape, 3, (40, 30)),
        "mlpnet": lambda: mlpnet(shape, 10),
        "resnet20": lambda: ResNet20(shape, 10),
    }[name]()
    for module in model.modules():
        for tensor in (getattr(module, n, None) for n in ("bias", "running_mean")):
            if tensor is not None:
                nn.init.normal_(tensor.data, std=0.3)
    return model.eval()


def prune(model, sparsity=0.6, seed=1):
    """Whole units of the lowest of random scores."""
    index = ParameterIndex.from_model(model)
    scores = Scores(torch.rand(index.total, generator=torch.Generator().manual_seed(seed)).double().numpy())
    granularity = "filter" if any(len(e.shape) > 2 for e in index) else "neuron"
    mask = select(scores, Mask.all(index), sparsity=sparsity, granularity=granularity).mask
    mask.apply_(model)
    return index, mask.tensors()


@pytest.mark.parametrize("name", SHAPES)
def test_the_compact_network_computes_the_same(name) -> None:
    model = network(name)
    index, keep = prune(model)
    before = copy.deepcopy(model.state_dict())
    result = compact_model(model, index, keep, [samples(SHAPES[name])])
    inputs = torch.randn(32, *SHAPES[name])
    with torch.no_grad():
        assert torch.allclose(model(inputs), result.model(inputs), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    removed = {layer.name: layer.removed for layer in result.layers}
    dead = {layer.name: layer.dead for layer in result.layers}
    for entry in index:
        units = result.model.get_parameter(entry.name).shape[0]
        assert units == entry.shape[0] - removed[entry.name]
        assert dead[entry.name] == int((~keep[entry.name].flatten(1).any(1)).sum())
    last = index.entries[-1].name
    assert removed[last] == 0
    # One dead unit of a layer stays for the constants of all the others, none where there are no biases.
    spared = {"mlpnet": 0}.get(name, 1)
    shared = {"resnet20": lambda n: not n.endswith("conv1.weight") or n == "conv1.weight"}.get(name, lambda _: False)
    inner = [n for n in removed if n != last and not shared(n)]
    assert all(dead[n] - removed[n] <= spared for n in inner if dead[n])
    assert sum(removed.values()) > 0


def test_units_that_a_residual_connection_shares_stay() -> None:
    model = network("resnet20")
    index, keep = prune(model)
    layers = {layer.name: layer for layer in compact_model(model, index, keep, [samples(SHAPES["resnet20"])]).layers}
    assert layers["blocks.4.conv2.weight"].dead > 0
    assert layers["blocks.4.conv2.weight"].removed == layers["conv1.weight"].removed == 0
    assert layers["blocks.4.conv1.weight"].removed > 0


class Towers(nn.Module):
    """Of two inputs, by position or by name; puts out more than what counts."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.norm, self.features = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 6)
        self.middle, self.last = nn.Linear(70, 12), nn.Linear(12, 3)

    def forward(self, image, features):
        seen = self.norm(self.image(image)).relu().flatten(1)
        return self.last(self.middle(torch.cat([seen, self.features(features)], 1)).relu()), None


@pytest.mark.parametrize("by_name", [False, True])
def test_a_network_of_several_inputs_in_training_mode(by_name) -> None:
    torch.manual_seed(0)
    model = Towers()
    keep = {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters() if p.ndim > 1}
    keep["middle.weight"][3:8] = False
    Mask(index := ParameterIndex.from_model(model), torch.cat([keep[e.name].flatten() for e in index])).apply_(model)
    inputs = {"image": samples((1, 6, 6)), "features": samples((5,))}
    result = compact_model(model, index, keep, [inputs if by_name else tuple(inputs.values())])
    assert model.training
    assert [layer.removed for layer in result.layers] == [0, 0, 4, 0]
    with torch.no_grad():
        assert torch.allclose(model.eval()(**inputs)[0], result.model(**inputs)[0], rtol=1e-4, atol=1e-6)


class Residual(nn.Module):
    """Two stages as of a ResNet, the second behind a shortcut that is a convolution."""

    def __init__(self) -> None:
        super().__init__()

        def conv(channels_in: int, channels: int, size: int = 3, stride: int = 1) -> nn.Module:
            layer = nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(channels))

        self.stem, self.a, self.b = conv(3, 8), conv(8, 12), conv(12, 8)
        self.c, self.d, self.short = conv(8, 10, stride=2), conv(10, 16), conv(8, 16, 1, 2)
        self.fc = nn.Linear(16, 4)

    def forward(self, images):
        hidden = torch.relu(self.stem(images))
        hidden = torch.relu(self.b(torch.relu(self.a(hidden))) + hidden)
        hidden = torch.relu(self.d(torch.relu(self.c(hidden))) + self.short(hidden))
        return self.fc(hidden.mean((2, 3)))


def test_channels_across_a_residual_connection_are_pruned_and_removed_in_all_layers() -> None:
    torch.manual_seed(0)
    model = Residual()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
    model.eval()
    index = ParameterIndex.from_model(model)
    graph = ChannelGraph(model, index, samples((3, 12, 12)), wanted_by="a test")
    producers = [channels.producers for channels in graph]
    names = [[index.entries[n].layer for n in numbers] for numbers in producers]
    assert names == [["stem.0", "b.0"], ["a.0"], ["c.0"], ["d.0", "short.0"]]
    scores = Scores(torch.rand(index.total, generator=torch.Generator().manual_seed(0)).double().numpy())
    options = {"sparsity": 0.5, "scope": "layer", "granularity": "channel", "producers": producers}
    mask = select(scores, Mask.all(index), **options).mask
    mask.apply_(model)
    result = compact_model(model, index, mask.tensors(), [samples((3, 12, 12))])
    # One of the dead channels stays for the constants of the others.
    assert {layer.name: (layer.dead, layer.removed) for layer in result.layers} == {
        "stem.0.weight": (4, 3),
        "a.0.weight": (6, 5),
        "b.0.weight": (4, 3),
        "c.0.weight": (5, 4),
        "d.0.weight": (8, 7),
        "short.0.weight": (8, 7),
        "fc.weight": (0, 0),
    }
    shapes = {name: tuple(p.shape) for name, p in result.model.named_parameters() if p.dim() > 1}
    assert shapes["stem.0.weight"] == (5, 3, 3, 3)
    assert shapes["b.0.weight"] == (5, 7, 3, 3)
    assert shapes["short.0.weight"] == (9, 5, 1, 1)
    assert shapes["fc.weight"] == (4, 9)
    inputs = torch.randn(8, 3, 12, 12)
    with torch.no_grad():
        assert torch.allclose(model(inputs), result.model(inputs), rtol=1e-4, atol=1e-5)


def test_a_dead_channel_of_a_depthwise_convolution_is_removed_with_its_padding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 3, 3, padding=1),
        nn.Flatten(),
        nn.Linear(3 * 25, 2),
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0.1, 1)
    index = ParameterIndex.from_model(model.eval())
    keep = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in index}
    keep["0.weight"][1:4] = keep["3.weight"][1:4] = False
    Mask.from_tensors(index, keep).apply_(model)
    result = compact_model(model, index, keep, [samples((2, 5, 5))])
    assert [layer.removed for layer in result.layers] == [2, 2, 0, 0]
    inputs = torch.randn(7, 2, 5, 5)
    assert torch.allclose(model(inputs), result.model(inputs), atol=1e-6)


def test_a_layer_without_a_living_unit_keeps_one() -> None:
    model = MLP((5,), 2, (4, 3))
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in index}
    keep["layers.0.weight"][:] = False
    nn.init.zeros_(model.layers[0].bias)
    Mask.from_tensors(index, keep).apply_(model)
    smaller = compact_model(model, index, keep, [samples((5,))]).model
    assert smaller.layers[0].out_features == 1
    inputs = torch.randn(7, 5)
    assert torch.allclose(model(inputs), smaller(inputs))


def test_constants_that_only_some_consumers_see() -> None:
    class Fork(nn.Module):
        """Two layers read the same hidden units, one through a ReLU, which hides the negative ones."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, inputs):
            hidden = self.first(inputs)
            return self.a(torch.relu(hidden)) + self.b(hidden)

    torch.manual_seed(0)
    model = Fork().eval()
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in index}
    keep["first.weight"][:5] = False
    model.first.bias.data[:5] = torch.tensor([-1.0, -0.5, 0.25, 0.5, 0.0])
    Mask.from_tensors(index, keep).apply_(model)
    result = compact_model(model, index, keep, [samples((6,))])
    inputs = torch.randn(9, 6)
    assert torch.allclose(model(inputs), result.model(inputs), atol=1e-6)
    assert result.layers[0].removed == 4


def test_nothing_that_could_be_removed() -> None:
    model = network("mlp")
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in index}
    with pytest.raises(DataError, match=r"with every weight pruned, found none; .*`granularity=channel`"):
        compact_model(model, index, keep, [samples((13,))])
    keep["layers.2.weight"][1] = False
    with pytest.raises(DataError, match=r"found none among 1 dead filters and neurons .*`granularity=channel`"):
        compact_model(model, index, keep, [samples((13,))])


def test_a_network_that_would_compute_something_else() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, inputs):
            # No elementwise operation, though a dependency graph takes it for one.
            return self.second(torch.softmax(self.first(inputs), 1).cumsum(1))

    model = Sorted().eval()
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in index}
    keep["first.weight"][2] = False
    Mask.from_tensors(index, keep).apply_(model)
    with pytest.raises((MismatchError, DataError)):
        compact_model(model, index, keep, [samples((4,))])


def test_the_outputs_are_compared_by_their_own_size() -> None:
    class Faint(nn.Module):
        """Its outputs are small, and the number of its hidden units is one of the things that they depend on."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, inputs):
            hidden = torch.relu(self.first(inputs))
            return 1e-6 * (self.second(hidden) + hidden.shape[1])

    model = Faint().eval()
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in index}
    keep["first.weight"][4:] = False
    Mask.from_tensors(index, keep).apply_(model)
    nn.init.zeros_(model.first.bias)
    with pytest.raises(MismatchError, match="found a difference of"):
        compact_model(model, index, keep, [samples((4,))])


def test_stored_bytes_have_a_closed_form() -> None:
    model = mlpnet((1, 8, 8), 10)
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.zeros(e.shape, dtype=torch.bool) for e in index}
    for mask in keep.values():
        mask[0, :3] = True
    keep["layers.2.weight"][:] = True
    total = 64 * 40 + 40 * 20 + 20 * 10
    rows = [(41, 3, 2), (21, 3, 2)]
    sparse = sum(4 * pointers + 8 * values + 8 * dimensions for pointers, values, dimensions in rows) + 4 * 200
    assert stored_bytes(model.state_dict(), keep) == {"bytes_dense": 4 * total, "bytes_csr": sparse}


def test_peak_memory_has_a_closed_form() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 200), nn.ReLU(), nn.Linear(200, 1))
    weights = 100 * 50 + 50 + 50 * 200 + 200 + 200 + 1
    # The input, and before and behind the second ReLU.
    assert peak_memory(model, (4, 25), 64) == 4 * (weights + 64 * (100 + 200 + 200))


def test_latency_is_that_of_each_model() -> None:
    small, large = nn.Linear(8, 8), nn.Sequential(*(nn.Linear(512, 512) for _ in range(8)))
    seconds = latency([nn.Sequential(nn.Flatten(), nn.Linear(512, 8)), large], (512,), 64, seconds=0.02)
    assert 0 < seconds[0] < seconds[1]
    assert latency([small], (8,), 1, seconds=0.01)[0] > 0


def test_measured_cost_of_a_network_without_dead_units_says_why() -> None:
    model = network("mlpnet")
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.rand(e.shape) < 0.5 for e in index}
    cost = measure_cost(model, index, keep, samples(SHAPES["mlpnet"]))
    assert "found none" in cost["no_compact"]
    assert cost["latency"]["64"]["dense"] > 0
    assert cost["latency"]["64"]["compact"] is None
    assert cost["peak_memory"]["64"]["dense"] > cost["peak_memory"]["1"]["dense"]


class Gated(nn.Module):
    """Multiplies its hidden units with what is positive in the mean of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)
        nn.init.constant_(self.first.bias, 0.5)

    def forward(self, inputs):
        gate = torch.relu(inputs.mean(1, keepdim=True))
        return self.second(torch.relu(self.first(inputs)) * gate) + inputs[:, :2]


@pytest.fixture
def gated():
    torch.manual_seed(0)
    model = Gated().eval()
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in index}
    keep["first.weight"][:3] = False
    Mask.from_tensors(index, keep).apply_(model)
    return model, index, keep


def test_a_channel_that_some_sample_changes_stays(gated) -> None:
    shut, one_open = -torch.rand(99, 4), torch.ones(1, 4)
    assert sum(layer.removed for layer in compact_model(*gated, [shut]).layers) == 3
    with pytest.raises(DataError, match="depend on the input nevertheless"):
        compact_model(*gated, [shut, one_open])


def test_the_networks_are_compared_on_other_samples_than_those_that_decided(gated) -> None:
    shut, one_open = -torch.rand(99, 4), torch.ones(1, 4)
    with pytest.raises(MismatchError, match=r"expected the outputs of the masked network, found a difference of"):
        compact_model(*gated, [shut], [shut, one_open])


def test_constants_may_differ_in_their_last_bit() -> None:
    """Vectorized kernels round some elements of a tensor otherwise than the rest."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, inputs):
            last_bits = 1 + torch.finfo(torch.float32).eps * torch.arange(len(inputs))[:, None]
            return self.second(self.first(inputs) * last_bits)

    torch.manual_seed(0)
    model = Noisy().eval()
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in index}
    keep["first.weight"][:3] = False
    Mask.from_tensors(index, keep).apply_(model)
    assert [layer.removed for layer in compact_model(model, index, keep, [samples((4,), 3)]).layers] == [2, 0]


def test_a_layer_whose_weight_a_function_uses_keeps_its_channels() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, inputs):
            return nn.functional.linear(self.first(inputs), self.second.weight, self.second.bias)

    model = Functional().eval()
    index = ParameterIndex.from_model(model)
    keep = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in index}
    keep["first.weight"][:3] = False
    Mask.from_tensors(index, keep).apply_(model)
    with pytest.raises((DataError, MismatchError)):
        compact_model(model, index, keep, [samples((4,))])
