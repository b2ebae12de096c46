import pytest
import torch
from torch import nn

from causalprune.pruning.layer_calls import Walk, layer_by_layer, weight_uses


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.shared(self.shared(x)) @ self.shared.weight)


def weights_of(model):
    return {name: p for name, p in model.named_parameters() if p.ndim > 1}


def test_uses_are_named_in_the_order_of_the_forward_pass():
    model = Twice()
    # A product with the untransposed weight is none of a linear layer.
    assert weight_uses(model, torch.randn(4, 3), weights_of(model)) == ["shared.weight", "shared.weight", "last.weight"]


def test_attention_multiplies_where_it_is_seen():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with layer_by_layer(model):
        names = weight_uses(model, torch.randn(3, 5, 8), weights_of(model))
    assert names == [
        "self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"
    ]  # fmt: skip
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_pass_pauses_before_a_layer_and_goes_on_with_its_new_weights():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(4, 3)
    walk = Walk(model, x, weights_of(model), after=False)
    first = walk.advance()
    assert first.name == "0.weight"
    assert torch.equal(first.inputs, x)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(2.0)
    second = walk.advance()
    assert torch.equal(second.inputs, torch.full((4, 3), 2.0))
    assert second.outputs is None
    assert walk.advance() is None


def test_a_pass_may_pause_after_a_layer():
    model, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True)), torch.randn(4, 1, 5, 5)
    walk = Walk(model, x, weights_of(model), after=True)
    with torch.no_grad():
        assert torch.equal(walk.advance().outputs, model[0](x))
    walk.cancel()


def test_the_networks_own_error_is_raised_where_it_is_advanced():
    walk = Walk(nn.Linear(3, 2), torch.randn(4, 5), {}, after=False)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        walk.advance()


@pytest.mark.parametrize(
    "inputs", [[torch.ones(2, 3), torch.ones(2, 3)], {"y": torch.ones(2, 3), "x": torch.ones(2, 3)}]
)
def test_networks_may_take_several_inputs(inputs):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x, y):
            return self.fc(x + 2 * y)

    model = Sum()
    walk = Walk(model, inputs, weights_of(model), after=False)
    assert torch.equal(walk.advance().inputs, torch.full((2, 3), 3.0))
    walk.cancel()
