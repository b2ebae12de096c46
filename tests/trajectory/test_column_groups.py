"""Groups: numbered like the tensors' own dimensions."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from causalprune.base.errors import UsageError
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory.column_groups import group_ids, groups_per_tensor
from causalprune.trajectory.names import GRANULARITIES

INDEX = ParameterIndex.from_model(
    nn.ModuleDict({"conv": nn.Conv2d(2, 3, 2), "up": nn.ConvTranspose2d(3, 2, 2), "out": nn.Linear(4, 1)})
)


def numbered(by_tensor: dict[str, torch.Tensor]) -> np.ndarray:
    return INDEX.flatten({name: t.expand(INDEX[name].shape).contiguous() for name, t in by_tensor.items()}).numpy()


@pytest.mark.parametrize("granularity", ["filter", "neuron"])
def test_output_units_follow_the_filter_axis(granularity: str) -> None:
    ids, labels = group_ids(INDEX, granularity)
    by_dimension = {
        "conv.weight": torch.arange(3).view(3, 1, 1, 1),
        "up.weight": torch.arange(3, 5).view(1, 2, 1, 1),
        "out.weight": torch.tensor([[5]]),
    }
    assert np.array_equal(ids, numbered(by_dimension))
    assert ids.dtype == np.int64
    assert list(labels) == [
        "conv.weight[0]",
        "conv.weight[1]",
        "conv.weight[2]",
        "up.weight[0]",
        "up.weight[1]",
        "out.weight[0]",
    ]


def test_layers() -> None:
    ids, labels = group_ids(INDEX, "layer")
    assert np.array_equal(ids, np.repeat([0, 1, 2], [24, 24, 4]))
    assert list(labels) == ["conv.weight", "up.weight", "out.weight"]


def test_parameters_are_labeled_as_the_index_locates_them() -> None:
    ids, labels = group_ids(INDEX, "parameter")
    assert np.array_equal(ids, np.arange(52))
    assert list(labels) == [f"{name}{list(where)}" for name, where in map(INDEX.locate, range(52))]
    assert labels[1:3] == ["conv.weight[0, 0, 0, 1]", "conv.weight[0, 0, 1, 0]"]


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_active_columns_keep_their_group(granularity: str) -> None:
    active = np.random.default_rng(0).random(52) < 0.3
    active[24:40] = False
    whole, names = group_ids(INDEX, granularity)
    ids, labels = group_ids(INDEX, granularity, active)
    assert [labels[i] for i in ids] == [names[i] for i in whole[active]]
    assert set(ids) == set(range(len(labels)))
    assert sum(groups_per_tensor(INDEX, granularity)) == len(names)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="did you mean 'filter'"):
        group_ids(INDEX, "filters")


def test_groups_are_numbered_without_pytorch() -> None:
    """A fit has groups, too, and its memory has no room for PyTorch."""
    code = "import sys, causalprune.trajectory.column_groups; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
