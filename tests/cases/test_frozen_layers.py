"""Layers with ``requires_grad=False`` neither break the training nor are pruned first."""

import pytest

NETWORKS = """
from torch import nn

def net(*frozen):
    def make(input_shape, num_outputs):
        layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, num_outputs)]
        model = nn.Sequential(nn.Flatten(), *layers)
        for index in frozen:
            model[index].requires_grad_(False)
        return model
    return make

backbone, everything = net(1, 3), net(1, 3, 5)
"""


@pytest.fixture
def frozen(folder):
    (folder / "frozen.py").write_text(NETWORKS)


def test_a_network_that_is_frozen_altogether_is_refused(causalprune, frozen):
    result = causalprune("pretrain", "--model", "frozen:everything", "--epochs", "1", "-q")
    assert result.refuses("froz") or result.refuses("requires_grad"), result.error


def test_frozen_weights_are_left_alone(causalprune, frozen):
    assert causalprune("pretrain", "--model", "frozen:backbone", "--epochs", "5", "-q").code == 0
    assert causalprune("record", "--steps", "30", "--trust-code", "-q").code == 0
    assert causalprune("fit-gamma", "-q").code == 0
    pruned = causalprune("apply-mask", "--sparsity", "0.05", "--trust-code", "--json")
    if pruned.refuses("froz") or "frozen" in pruned.error:
        return
    kept = {layer["name"]: layer["kept"] / layer["total"] for layer in pruned.metrics["layers"]}
    assert (kept["1.weight"], kept["3.weight"]) == (1, 1)
