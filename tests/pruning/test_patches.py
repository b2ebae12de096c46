import pytest
import torch
from torch import nn

from causalprune.pruning.layer_calls import LayerCall, WeightUses
from causalprune.pruning.patches import input_rows, output_rows, sample_slices, weight_rows, weights_of

LAYERS = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear without a bias": (nn.Linear(5, 3, bias=False), (4, 5)),
    "linear on sequences": (nn.Linear(5, 3), (4, 6, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (3, 4, 11)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1)), (3, 4, 9, 8)),
    "conv3d": (nn.Conv3d(2, 4, 2, stride=2), (2, 2, 4, 5, 6)),
    "depthwise": (nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False), (3, 6, 7, 7)),
    "groups": (nn.Conv2d(6, 9, 3, groups=3), (3, 6, 7, 7)),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), (3, 4, 9, 8)),
    "circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (3, 4, 9, 8)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (3, 4, 5, 6)),
    "transposed, groups": (nn.ConvTranspose1d(6, 9, 4, stride=3, padding=5, dilation=2, groups=3), (3, 6, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_weights_are_the_outputs(name):
    """The independent truth is PyTorch's own layer."""
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    calls: list[LayerCall] = []

    def visit(call, compute):
        call.outputs = compute()
        calls.append(call)
        return call.outputs

    with torch.no_grad(), WeightUses({"weight": layer.weight}, visit):
        layer(torch.randn(shape))
    (call,) = calls
    with torch.no_grad():
        weights = weight_rows(layer.weight, call.groups, transposed=call.transposed)
        everything = slice(None)
        product = input_rows(call, layer.weight, everything) @ weights.mT
        if layer.bias is not None:
            product = product + layer.bias.reshape(len(weights), 1, -1)
        torch.testing.assert_close(product, output_rows(call.outputs, call.convolution, everything))
        assert torch.equal(weights_of(weights, layer.weight.shape, transposed=call.transposed), layer.weight)


def test_many_samples_are_divided(monkeypatch):
    monkeypatch.setattr("causalprune.pruning.patches._CHUNK_VALUES", 100)
    call = LayerCall("w", torch.zeros(7, 2, 3, 3), None)
    slices = list(sample_slices(call, torch.zeros(4, 2, 1, 2)))
    assert [len(range(7)[part]) for part in slices] == [2, 2, 2, 1]
