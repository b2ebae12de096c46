"""Dead ends: against reachability in a graph, and against outputs that don't change whatever the weights are."""

import itertools
import logging

import numpy as np
import pytest
import torch
from torch import nn

import causalprune as cp
from causalprune.base.errors import DataError, UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criterion import Criterion, Scores
from causalprune.pruning.dead_ends.finder import DeadEnds
from causalprune.pruning.dead_ends.selection import without_dead_ends
from causalprune.pruning.selection import select


def mlp(*widths, bias=True):
    torch.manual_seed(0)
    layers = [nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


def cut_paths(keep: list[np.ndarray]) -> list[np.ndarray]:
    """The kept weights of fully connected layers, (out, in) each, that lie on no path, by walking it both ways."""
    forward = [np.ones(keep[0].shape[1], dtype=bool)]
    for matrix in keep:
        forward.append((matrix & forward[-1]).any(1))
    backward = [np.ones(keep[-1].shape[0], dtype=bool)]
    for matrix in reversed(keep):
        backward.insert(0, (matrix & backward[0][:, None]).any(0))
    return [matrix & ~(forward[n][None, :] & backward[n + 1][:, None]) for n, matrix in enumerate(keep)]


@pytest.mark.parametrize("density", [0.5, 0.2, 0.1, 0.05, 0.02])
@pytest.mark.parametrize("seed", range(5))
def test_those_of_fully_connected_layers_are_the_weights_on_no_path(density: float, seed: int) -> None:
    model = mlp(12, 10, 8, 6, 4)
    index = ParameterIndex.from_model(model)
    keep = np.random.default_rng(seed).random(index.total) < density
    mask = Mask.from_numpy(index, keep)
    wanted = np.concatenate([part.ravel() for part in cut_paths([t.numpy() for t in mask.tensors().values()])])
    found = DeadEnds(model, index, torch.zeros(2, 12)).find(mask)
    assert np.array_equal(found, wanted)


class Residual(nn.Module):
    """Convolutions around a shortcut, batch normalization, a depthwise and a strided one, ReLU6."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.wide = nn.Conv2d(6, 8, 3, stride=2, bias=False)
        self.last = nn.Linear(8, 3, bias=False)

    def forward(self, x):
        x = self.first(x)
        x = x + nn.functional.relu6(self.norm(self.deep(x)))
        return self.last(nn.functional.relu(self.wide(x)).mean((2, 3)))


class Sequence(nn.Module):
    """Tokens, attention, layer normalization, an LSTM; the outputs are a dictionary."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(50, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.memory = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, ids):
        return {"logits": self.head(self.memory(self.block(self.tokens(ids)))[0][:, -1])}


NETWORKS = {
    "residual": (Residual, lambda: torch.randn(2, 3, 8, 8)),
    "sequence": (Sequence, lambda: torch.arange(10).reshape(2, 5)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_network_has_none(name: str) -> None:
    make, samples = NETWORKS[name]
    model = make()
    index = ParameterIndex.from_model(model)
    assert not DeadEnds(model, index, samples()).find(Mask.all(index)).any()


def test_they_change_no_output_and_all_others_do() -> None:
    """With the network's own weights, in float64; it has no biases, so what is cut off is 0."""
    torch.manual_seed(0)
    model = Residual().double().eval()
    for parameter in model.parameters():
        # Positive, so that every rectifier lets the change through.
        parameter.detach().abs_()
    index = ParameterIndex.from_model(model)
    mask = Mask.from_numpy(index, np.random.default_rng(0).random(index.total) < 0.06)
    mask.apply_(model)
    inputs = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    found = DeadEnds(model, index, inputs).find(mask)
    kept = np.flatnonzero(mask.numpy())
    assert 0 < found.sum() < len(kept), "else the mask tests nothing"
    expected = model(inputs)
    for position in kept:
        name, where = index.locate(position)
        weight = model.get_parameter(name).detach()
        before = weight[where].clone()
        weight[where] = before + 0.01
        assert torch.equal(model(inputs), expected) == bool(found[position]), (name, where)
        weight[where] = before


class Pooled(nn.Module):
    """Convolutions of which a maximum takes the largest position."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 3, bias=False)

    def forward(self, x):
        for layer in (self.first, self.second):
            x = nn.functional.max_pool2d(nn.functional.relu(layer(x)), 2)
        return self.head(x.amax((2, 3)))


class Gated(nn.Module):
    """A unit times another, whose bias is a factor; then a vector divided by its length."""

    def __init__(self):
        super().__init__()
        self.main, self.gate, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        nn.init.ones_(self.gate.bias)

    def forward(self, x):
        return self.head(nn.functional.normalize(self.main(x) * self.gate(x), dim=1))


class Normalized(nn.Module):
    """A batch normalization whose shift is what an empty channel puts out, before a convolution with padding."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 3)
        nn.init.uniform_(self.norm.bias, 0.1, 1)

    def forward(self, x):
        x = nn.functional.relu(self.norm(self.first(x)))
        return self.head(nn.functional.relu(self.second(x)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.memory, self.head = kind(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.memory(x)[0][:, -1])


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)
        nn.init.normal_(self.attention.in_proj_bias)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Routed(nn.Module):
    """Each sample goes through the expert that a router chooses."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 4) for _ in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        chosen = self.router(x).argmax(1)
        out = torch.stack([expert(x) for expert in self.experts], 1)
        return self.head(nn.functional.relu(out[torch.arange(len(x)), chosen]))


MISLEADING = {
    "max pooling": (Pooled, (1, 8, 8)),
    "a bias is a factor": (Gated, (6,)),
    "a shift before a padded convolution": (Normalized, (1, 8, 8)),
    "LSTM": (lambda: Recurrent(nn.LSTM), (4, 5)),
    "GRU": (lambda: Recurrent(nn.GRU), (4, 5)),
    "attention": (Attending, (4, 8)),
    "experts": (Routed, (6,)),
    "rectifiers with biases": (lambda: mlp(12, 10, 8, 4), (12,)),
}


@pytest.mark.parametrize("density", [0.3, 0.1])
@pytest.mark.parametrize("name", MISLEADING)
def test_without_them_outputs_are_the_same_but_for_a_constant_that_a_bias_can_be(name: str, density: float) -> None:
    """On samples that finding them didn't see, in float64."""
    torch.manual_seed(0)
    make, shape = MISLEADING[name]
    model = make().eval()
    index = ParameterIndex.from_model(model)
    mask = Mask.from_numpy(index, np.random.default_rng(1).random(index.total) < density)
    mask.apply_(model)
    found = DeadEnds(model, index, torch.randn(32, *shape)).find(mask)
    if name in ("rectifiers with biases", "max pooling"):
        assert found.any(), "else the mask tests nothing"
    model = model.double()
    inputs = torch.randn(64, *shape, dtype=torch.float64)
    expected = model(inputs)
    fed = {}
    for module_name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs, name=module_name: fed.update({name: inputs[0]}))
    for position in np.flatnonzero(found):
        weight_name, where = index.locate(position)
        weight = model.get_parameter(weight_name).detach()
        before = weight[where].clone()
        weight[where] = 0
        if not torch.equal(model(inputs), expected):
            layer = weight_name.removesuffix(".weight")
            value = fed[layer].movedim(1, 0)[where[1]].unique().item()
            bias = model.get_submodule(layer).bias.detach()
            bias[where[0]] += before * value
            torch.testing.assert_close(model(inputs), expected)
            bias[where[0]] -= before * value
        weight[where] = before


def test_a_network_that_draws_leaves_the_global_numbers_alone() -> None:
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x + 0.01 * torch.randn_like(x))

    model = Drawing()
    index = ParameterIndex.from_model(model)
    mask = Mask.from_numpy(index, np.arange(12) < 5)
    inputs, state = torch.rand(2, 4), torch.get_rng_state()
    with torch.inference_mode():
        DeadEnds(model, index, inputs).find(mask)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_unit_without_outputs_makes_dead_ends_in_attention_and_recurrent_layers() -> None:
    model = Sequence()
    index = ParameterIndex.from_model(model)
    keep = Mask.all(index).tensors()
    keep["block.linear2.weight"][:, 3] = False
    keep["head.weight"][:] = False
    keep["head.weight"][:, 2] = True
    keep["memory.weight_hh_l0"][:] = False
    mask = Mask.from_numpy(index, np.concatenate([keep[entry.name].numpy().ravel() for entry in index]))
    found = index.split(torch.from_numpy(DeadEnds(model, index, torch.arange(10).reshape(2, 5)).find(mask)))
    assert found["block.linear1.weight"][3].all()
    assert not found["block.linear1.weight"][[n for n in range(16) if n != 3]].any()
    # Of the LSTM only the gates of unit 2 reach an output.
    reaching = torch.zeros(24, dtype=torch.bool)
    reaching[[2, 8, 14, 20]] = True
    assert not found["memory.weight_ih_l0"][reaching].any()
    assert found["memory.weight_ih_l0"][~reaching].all()


def test_nothing_of_the_network_changes() -> None:
    model = Residual().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    index = ParameterIndex.from_model(model)
    DeadEnds(model, index, torch.randn(2, 3, 8, 8)).find(Mask.all(index))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


# The selection -------------------------------------------------------------------------------------------------------


def ranked(model, sparsity: float, **options):
    index = ParameterIndex.from_model(model)
    scores = Scores(index.flatten(model.state_dict()).abs().double().numpy())

    def choose(scores: Scores, sparsity: float):
        return select(scores, Mask.all(index), sparsity=sparsity, **options)

    plain = choose(scores, sparsity)
    ends = DeadEnds(model, index, torch.zeros(1, model[0].in_features))
    return plain, without_dead_ends(choose, scores, sparsity, plain, ends), ends


@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
def test_as_many_weights_are_kept_and_all_of_them_reach_an_output(scope: str) -> None:
    plain, found, ends = ranked(mlp(30, 20, 20, 5), 0.97, scope=scope)
    assert ends.find(plain.mask).any(), "else there is nothing to replace"
    assert not ends.find(found.mask).any()
    assert found.mask.num_kept == plain.mask.num_kept
    assert [entry.name for entry in found.mask.index] == [entry.name for entry in plain.mask.index]


def test_without_dead_ends_it_is_the_plain_selection() -> None:
    plain, found, _ = ranked(mlp(30, 20, 20, 5), 0.5)
    assert found is plain


def test_the_best_path_is_kept_where_only_one_fits() -> None:
    """Three layers of one weight each: by scores alone the best of each layer, which have no unit in common."""
    model = mlp(2, 2, 2, 1)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.9, 0.1], [0.2, 0.1]]))
        model[2].weight.copy_(torch.tensor([[0.1, 0.9], [0.3, 0.4]]))
        model[4].weight.copy_(torch.tensor([[0.2, 0.9]]))
    index = ParameterIndex.from_model(model)
    plain, found, ends = ranked(model, 0.7)
    assert plain.mask.num_kept == 3
    assert ends.cut(plain.mask, ends.reaching(plain.mask))
    assert not ends.find(found.mask).any()
    assert found.mask.num_kept == index.total - round(0.7 * index.total) == 3


def test_dead_ends_in_a_layer_that_is_left_alone_are_not_looked_for_again() -> None:
    """Those of the first layer, which keeps all of its weights, stay whatever is selected."""
    model = mlp(30, 20, 20, 5)
    index = ParameterIndex.from_model(model)
    scores = Scores(index.flatten(model.state_dict()).abs().double().numpy())
    asked = []

    def choose(scores: Scores, sparsity: float):
        asked.append(sparsity)
        return select(scores, Mask.all(index), sparsity=sparsity, frozen=["0.weight"])

    plain = choose(scores, 0.97)
    ends = DeadEnds(model, index, torch.zeros(1, 30))
    found = without_dead_ends(choose, scores, 0.97, plain, ends).mask.tensors()
    mask = Mask.from_numpy(index, np.concatenate([keep.numpy().ravel() for keep in found.values()]))
    left = index.split(torch.from_numpy(ends.find(mask)))
    assert left["0.weight"].any()
    assert not left["2.weight"].any()
    assert not left["4.weight"].any()
    assert asked.count(0.97) < 10


def test_a_network_that_cannot_be_connected_keeps_the_plain_selection() -> None:
    """Fewer weights than layers: the guard keeps one of each, but more than the target can't be had."""
    plain, found, ends = ranked(mlp(4, 4, 4, 4, 4, 4, 2), 0.96)
    assert not ends.find(found.mask).any() or found is plain


# Prune ---------------------------------------------------------------------------------------------------------------


def test_prune_takes_inputs_to_find_them() -> None:
    options = {"sparsity": 0.97, "criterion": "magnitude"}
    plain = cp.prune(mlp(30, 20, 20, 5), **options)
    first = cp.prune(mlp(30, 20, 20, 5), **options, dead_ends="first", inputs=torch.zeros(3, 30))
    scored = cp.prune(mlp(30, 20, 20, 5), **options, dead_ends="scored", inputs=torch.zeros(3, 30))
    assert torch.equal(scored.keep, plain.keep)
    assert not torch.equal(first.keep, plain.keep)
    with pytest.raises(UsageError, match="reach an output"):
        cp.prune(mlp(30, 20, 20, 5), **options, dead_ends="first")


def test_prune_says_what_became_of_dead_ends_without_alarm(caplog: pytest.LogCaptureFixture) -> None:
    """What takes their place is counted; where ``effect``'s own rule lacks inputs it is said, and where asked, not."""
    by_effect = Criterion("own", lambda inputs: Scores(np.abs(inputs.theta)), dead_ends="first")
    inputs = torch.zeros(3, 30)

    def said(**options) -> tuple[cp.Mask, str]:
        caplog.clear()
        with caplog.at_level("INFO", "causalprune"):
            mask = cp.prune(mlp(30, 20, 20, 5), sparsity=0.97, criterion=by_effect, **options)
        found = [record for record in caplog.records if "dead ends" in record.message]
        assert all(record.levelname == "INFO" for record in found)
        return mask, "".join(record.message for record in found)

    scored, nothing = said(inputs=inputs, dead_ends="scored")
    first, counted = said(inputs=inputs)
    unknown, why = said()
    exchanged = int((first.keep & ~scored.keep).sum())
    assert exchanged > 0
    assert counted.endswith(f"instead of dead ends, which reach no output: {exchanged}")
    assert torch.equal(unknown.keep, scored.keep)
    assert "dead ends are ranked by their scores: without `inputs`" in why
    assert not nothing
    assert not said(dead_ends="scored")[1]


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "neuron", "sparsity": 0.5},
        {"pattern": "2:4"},
    ],
)
def test_groups_are_refused(options) -> None:
    with pytest.raises(UsageError, match="no weights are ranked"):
        cp.prune(mlp(32, 16, 4), **options, criterion="magnitude", dead_ends="first", inputs=torch.zeros(3, 32))


def test_a_criterion_that_sets_weights_is_refused() -> None:
    obs = Criterion("mine", lambda inputs: Scores(inputs.theta, theta=inputs.theta), reweights=True)
    with pytest.raises(UsageError, match="sets the weights that it keeps"):
        cp.prune(mlp(32, 16, 4), sparsity=0.5, criterion=obs, dead_ends="first", inputs=torch.zeros(3, 32))


def test_a_network_that_fails_on_random_numbers_is_pruned_by_scores(caplog) -> None:
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            if x.max() > 0:
                raise ValueError("only zeros, please")
            return self.layer(x)

    model = Picky()
    index = ParameterIndex.from_model(model)
    with pytest.raises(DataError, match="only zeros, please"):
        DeadEnds(model, index, torch.zeros(1, 4)).find(Mask.all(index))
    with caplog.at_level(logging.WARNING, "causalprune"):
        mask = cp.prune(model, sparsity=0.5, criterion="magnitude", dead_ends="first", inputs=torch.zeros(1, 4))
    assert mask.num_kept == 8
    assert "pruned as they are scored" in caplog.text
