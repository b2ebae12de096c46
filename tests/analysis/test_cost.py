import torch
from torch import nn

from causalprune.analysis.cost import flops, parameter_counts
from causalprune.models.parameters import ParameterIndex


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 25, 4)
    )


def test_dense_operations_have_a_closed_form():
    assert flops(small_net(), (2, 5, 5)).dense == 2 * (3 * 2 * 9 * 25) + 2 * (75 * 4)


def test_pruned_operations_equal_a_count_weight_by_weight():
    model = small_net()
    keep = {"0.weight": torch.rand(3, 2, 3, 3) < 0.4, "4.weight": torch.rand(4, 75) < 0.3}
    # Every weight of the convolution is used at 25 positions, every weight of the linear layer once.
    expected = 2 * (25 * int(keep["0.weight"].sum()) + int(keep["4.weight"].sum()))
    assert flops(model, (2, 5, 5), keep).theoretical == expected


def test_the_model_stays_as_it_was():
    model = small_net().train()
    model[1].eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    flops(model, (2, 5, 5))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert [m.training for m in model] == [True, False, True, True, True]


def test_parameters_are_counted_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    keep = {"0.weight": torch.eye(4, dtype=torch.bool)}
    assert parameter_counts(model, keep) == (24, 12)


class Shared(nn.Module):
    """One weight in two modules, one of which has two names and runs three times."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4, bias=False))
        self.alias = self.block[0]
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.alias.weight

    def forward(self, inputs):
        return self.tied(self.alias(self.block(self.block(inputs))))


def test_every_use_of_a_shared_weight_is_skipped():
    model = Shared()
    (entry,) = ParameterIndex.from_model(model)
    keep = {entry.name: torch.eye(4, dtype=torch.bool)}
    result = flops(model, (4,), keep)
    assert (result.dense, result.theoretical) == (4 * 2 * 16, 4 * 2 * 4)
