"""Layers whose weight isn't a parameter, as under weight or spectral normalization, are skipped or refused."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from causalprune.base.errors import CausalpruneError
from causalprune.training.recorder import Recorder

NETWORKS = """
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

def net(wrap):
    def make(input_shape, num_outputs):
        return nn.Sequential(nn.Flatten(), wrap(nn.Linear(64, 32)), nn.ReLU(), nn.Linear(32, num_outputs))
    return make

weight_norm, spectral = net(parametrizations.weight_norm), net(parametrizations.spectral_norm)
old_spectral, pruned = net(spectral_norm), net(lambda layer: prune.l1_unstructured(layer, "weight", 0.5))
"""


def prune_half(layer):
    return prune.l1_unstructured(layer, "weight", 0.5)


@pytest.mark.parametrize("name", ["weight_norm", "spectral", "old_spectral", "pruned"])
def test_pretrain_skips_such_a_layer_or_says_that_it_cannot_be_pruned(causalprune, folder, name):
    (folder / "reparametrized.py").write_text(NETWORKS)
    result = causalprune("pretrain", "--model", f"reparametrized:{name}", "--epochs", "0", "-q")
    assert result.code == 0 or result.refuses("can't be pruned", codes=(2, 3, 5)), result.error


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, prune_half], ids=["weight_norm", "pruned"])
def test_the_recorder_skips_such_a_layer_or_says_that_it_cannot_be_pruned(folder, wrap):
    model = nn.Sequential(wrap(nn.Linear(20, 8)), nn.Linear(8, 2))
    said = "can't be pruned"
    try:
        Recorder(model, torch.optim.SGD(model.parameters(), lr=0.01), "t.zarr", max_rows=4).writer.close()
    except CausalpruneError as error:
        said = str(error)
    assert "can't be pruned" in said
