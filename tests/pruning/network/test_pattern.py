"""N:M masks: by brute force over the groups, and against what PyTorch takes as semi-structured."""

import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from layers_of_others import Conv1D
from torch import nn
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

import causalprune as cp
from causalprune.base.errors import DataError, UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criterion import Scores
from causalprune.pruning.network.pattern import Pattern, select_pattern
from causalprune.pruning.selection import target_sparsity


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 8, (2, 1)), nn.Flatten(), nn.Linear(8, 5), Conv1D(3, 12)
    )


def units(tensor, entry):
    """The weights of each unit, one after the other."""
    return tensor.movedim(entry.filter_axis, 0).reshape(-1)


@pytest.mark.parametrize("text", ["1:2", "2:4", "1:4", "3:4", "2:3"])
def test_in_each_group_the_best_stay(text):
    pattern = Pattern.parse(text)
    index = ParameterIndex.from_model(network())
    odd = [e.name for e in index if (e.size // e.num_units) % pattern.of]
    rng = np.random.default_rng(0)
    # Many ties, in both keys.
    scores = Scores(rng.integers(0, 4, index.total) / 2, rng.integers(0, 3, index.total).astype(float))
    before = Mask(index, torch.from_numpy(rng.random(index.total) < 0.8))
    found = select_pattern(scores, before, pattern, frozen=odd)
    assert len(odd) < len(index)
    order = torch.arange(index.total)
    for entry in index:
        part = slice(entry.offset, entry.stop)
        positions = units(order[part].view(entry.shape), entry)
        keep, kept = found.mask.keep[positions].view(-1, 1), before.keep[positions]
        if entry.name in odd:
            assert torch.equal(found.mask.keep[part], before.keep[part])
            continue
        for group, stays in zip(positions.view(-1, pattern.of), keep.view(-1, pattern.of), strict=True):
            able = [int(p) for p in group if before.keep[p]]
            chosen = {int(p) for p, s in zip(group, stays, strict=True) if s}
            rank = {p: (scores.primary[p], scores.secondary[p], p) for p in able}
            best = max(
                combinations(able, min(pattern.kept, len(able))), key=lambda some: sorted(rank[p] for p in some)[::-1]
            )
            assert chosen == set(best)
        assert kept.any()
    assert found.newly_pruned == before.num_kept - found.mask.num_kept


def test_the_sparsity_is_that_of_the_pattern():
    model = nn.Sequential(nn.Linear(8, 6), nn.LSTM(12, 4), nn.MultiheadAttention(4, 2))
    mask = cp.prune(model, pattern="1:4", criterion="magnitude")
    assert mask.sparsity == 0.75
    for layer in mask.per_layer():
        assert layer.sparsity == 0.75
    assert (model[2].in_proj_weight.detach().view(-1, 4).count_nonzero(1) == 1).all()
    magnitudes = model[1].weight_hh_l0.detach().abs().view(-1, 4)
    assert (magnitudes.count_nonzero(1) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pytorch_takes_the_weights_as_semi_structured(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Conv2d(16, 32, 2), Conv1D(32, 64), nn.MultiheadAttention(64, 1))
    cp.prune(model, pattern="2:4", criterion="magnitude")
    weights = [model[0].weight, model[1].weight.flatten(1), model[2].weight.T, model[3].in_proj_weight]
    for weight in weights:
        half = weight.detach().to(dtype).contiguous()
        assert (half.view(-1, 4).count_nonzero(1) == 2).all()
        packed, meta = sparse_semi_structured_from_dense_cutlass(half)
        assert packed.shape == (half.shape[0], half.shape[1] // 2)
        assert torch.equal(sparse_semi_structured_to_dense_cutlass(packed, meta), half)


@pytest.mark.parametrize("criterion", ["wanda", "surgeon", "rank-sum", "lamp", "random"])
def test_every_criterion_chooses_within_the_groups(criterion):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    dense, inputs = copy.deepcopy(model), torch.randn(40, 8)
    mask = cp.prune(model, pattern="2:4", criterion=criterion, inputs=inputs)
    assert mask.sparsity == 0.5
    if criterion == "wanda":
        norms = inputs.square().mean(0).sqrt()
        scores = (dense[0].weight.detach().abs() * norms).view(-1, 4)
        best = scores.topk(2, dim=1).indices.sort(1).values
        kept = mask.tensors()["0.weight"].view(-1, 4).nonzero()[:, 1].view(-1, 2)
        assert torch.equal(kept, best)


def test_a_recording_is_pruned_by_a_pattern_and_layers_are_kept(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(30, 6), torch.randint(0, 3, (30,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cp.Recorder(model, optimizer, tmp_path / "t.zarr") as recorder:
        for _ in range(15):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda: nn.functional.cross_entropy(model(x), y))
    with pytest.raises(UsageError, match=r"`pattern=2:4`: expected a multiple of 4 .*found 6 in 0\.weight; name such"):
        cp.prune(model, tmp_path / "t.zarr", pattern="2:4")
    for criterion in ("effect", "obd", "chita"):
        pruned = copy.deepcopy(model)
        mask = cp.prune(pruned, tmp_path / "t.zarr", pattern="2:4", keep="0", criterion=criterion)
        assert mask.tensors()["0.weight"].all()
        assert (mask.tensors()["2.weight"].view(-1, 4).sum(1) == 2).all()
        # Once more, from what is left: a quarter.
        again = cp.prune(pruned, pattern="1:4", keep="0", criterion="magnitude", mask=mask)
        assert (again.tensors()["2.weight"].view(-1, 4).sum(1) == 1).all()
        assert not (again.keep & ~mask.keep).any()


def test_what_cannot_be_measured_is_left_alone_whatever_its_shape():
    """An embedding of 6 columns doesn't divide into groups of 4, and no criterion of layers would prune it."""
    torch.manual_seed(0)
    model, ids = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(12, 4)), torch.randint(10, (50, 2))
    mask = cp.prune(model, pattern="2:4", criterion="wanda", inputs=ids, prune="0.weight")
    assert mask.tensors()["0.weight"].all()
    assert mask.tensors()["2.weight"].float().mean() == 0.5
    with pytest.raises(UsageError, match=r"`pattern=2:4`: expected a multiple of 4 .*found 6 in 0\.weight"):
        cp.prune(model, pattern="2:4", criterion="magnitude", prune="0.weight")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.5}, r"`sparsity`: expected none beside `pattern=2:4`.*found 0\.5"),
        ({"scope": "erk"}, "`scope`: expected none"),
        ({"granularity": "neuron"}, "`granularity`: expected none"),
        ({"layer_sparsity": {"0": 0.5}}, "`layer_sparsity`: expected none"),
        ({"pattern": "4:2"}, "`pattern`: expected N:M with 0 < N < M, such as 2:4, found '?4:2"),
        ({"pattern": "2:4:8"}, "`pattern`: expected N:M"),
        ({"pattern": "0:4"}, "`pattern`: expected N:M"),
    ],
)
def test_what_contradicts_a_pattern_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        cp.prune(nn.Linear(4, 4), criterion="magnitude", **{"pattern": "2:4"} | options)


def test_scores_that_are_not_finite_matter_where_something_is_kept():
    index = ParameterIndex.from_model(nn.Linear(4, 1))
    mask, scores = Mask(index, torch.tensor([True, False, True, True])), np.array([1.0, np.nan, 3.0, 2.0])
    assert select_pattern(Scores(scores), mask, Pattern(2, 4)).mask.keep.tolist() == [False, False, True, True]
    with pytest.raises(DataError, match="score of weight"):
        select_pattern(Scores(scores), Mask.all(index), Pattern(2, 4))


def test_on_the_way_groups_keep_more():
    pattern = Pattern(2, 4)
    steps = [pattern.at(target_sparsity("cubic", i, 3, pattern.sparsity)) for i in (1, 2, 3)]
    assert [step.kept for step in steps] == [3, 2, 2]
    assert Pattern(1, 16).at(0.0) == Pattern(16, 16)
