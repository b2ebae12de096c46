"""``torch.compile`` and ``DataParallel`` wrap a network; its parameters keep their names."""

from functools import partial

import pytest
import torch
import zarr
from torch import nn

from causalprune.training.recorder import Recorder

NETWORK = """
import torch
from torch import nn

def net(input_shape, num_outputs):
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, num_outputs))
    return torch.compile(layers, backend="eager")
"""
PRUNE = ["--criterion", "magnitude", "--granularity", "neuron", "--sparsity", "0.5"]


@pytest.fixture
def pruned(causalprune, folder):
    """Options that name a pruned checkpoint of a network whose factory compiles it."""
    pytest.importorskip("torch_pruning")
    (folder / "compiled.py").write_text(NETWORK)
    assert causalprune("pretrain", "--model", "compiled:net", "--epochs", "1", "-q").code == 0
    dense = ["--checkpoint", "run/pretrained.safetensors", "--trust-code"]
    assert causalprune("apply-mask", *PRUNE, *dense, "-q").code == 0
    return ["--checkpoint", "run/pruned.safetensors", "--trust-code", "-q"]


@pytest.mark.parametrize("wrap", [partial(torch.compile, backend="eager"), nn.DataParallel], ids=["compile", "data"])
def test_the_columns_of_a_wrapped_network_have_the_networks_names(folder, wrap):
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer, criterion, wrapped = torch.optim.SGD(model.parameters(), lr=0.01), nn.CrossEntropyLoss(), wrap(model)
    inputs, targets = torch.randn(8, 20), torch.randint(2, (8,))
    with Recorder(wrapped, optimizer, "t.zarr", max_rows=2) as recorder:
        for _ in range(2):
            loss = criterion(wrapped(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda: criterion(wrapped(inputs), targets))
    index = zarr.open_group("t.zarr", mode="r").attrs["causalprune"]["index"]
    assert [entry["name"] for entry in index] == ["0.weight", "2.weight"]


def test_the_cost_of_a_compiled_network_is_measured(causalprune, pruned):
    result = causalprune("evaluate", "--cost", *pruned)
    assert result.code == 0, result.error


def test_a_compiled_network_is_exported_compact_or_refused(causalprune, pruned):
    result = causalprune("export", "--compact", *pruned)
    assert result.code == 0 or result.refuses("compact", codes=(3, 5)), result.error
