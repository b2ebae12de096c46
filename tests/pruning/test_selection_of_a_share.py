"""Where only some weights have a score the others stay, and every scope meets its target among the rest or says why."""

import numpy as np
import pytest

from causalprune.base.errors import UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criterion import Scores
from causalprune.pruning.selection import select, select_zero

INDEX = ParameterIndex.from_json(
    [
        {"name": f"layer{number}.weight", "shape": shape, "filter_axis": 0}
        for number, shape in enumerate(([10, 20], [5, 6], [40, 10]))
    ]
)
RNG = np.random.default_rng(11)
COVERED = RNG.random(INDEX.total) < 0.5
SCORES = np.where(COVERED, RNG.random(INDEX.total), np.nan)
THETA = RNG.standard_normal(INDEX.total)
DENSE = Mask.all(INDEX)


def pruned(selection):
    return ~selection.mask.numpy()


def test_the_lowest_of_those_with_a_score_go():
    found = select(Scores(SCORES), DENSE, sparsity=0.3, covered=COVERED)
    count = round(0.3 * INDEX.total)
    # NaN, without a score, comes last.
    assert set(np.flatnonzero(pruned(found))) == set(np.argsort(SCORES)[:count])
    assert (found.target, found.num_pruned, found.candidates) == (count, count, INDEX.total)


@pytest.mark.parametrize("scope", ["global", "layer", "uniform", "erk", "lamp"])
@pytest.mark.parametrize("sparsity", [0.1, 0.25, 0.4])
def test_every_scope_meets_its_target_among_them(scope, sparsity):
    found = select(Scores(SCORES), DENSE, sparsity=sparsity, scope=scope, covered=COVERED, theta=THETA)
    assert not (pruned(found) & ~COVERED).any()
    if scope == "layer":
        assert [layer.total - layer.kept for layer in found.mask.per_layer()] == [
            round(sparsity * entry.size) for entry in INDEX
        ]
    else:
        assert found.num_pruned == round(sparsity * INDEX.total)


def test_with_all_scores_nothing_changes():
    whole = Scores(np.abs(THETA))
    for scope in ("global", "layer", "erk", "lamp"):
        options = {"sparsity": 0.7, "scope": scope, "theta": THETA}
        one = select(whole, DENSE, **options)
        two = select(whole, DENSE, covered=np.ones(INDEX.total, bool), **options)
        assert np.array_equal(pruned(one), pruned(two))
        assert one.guarded == two.guarded


def test_the_largest_sparsity_is_named_and_possible():
    with pytest.raises(UsageError, match=r"at most (\d+\.\d+)%, because only (\d+) of the 630 weights") as caught:
        select(Scores(SCORES), DENSE, sparsity=0.9, covered=COVERED)
    most = float(str(caught.value).partition("at most ")[2].partition("%")[0]) / 100
    assert most == pytest.approx(COVERED.mean(), abs=1e-4)
    found = select(Scores(SCORES), DENSE, sparsity=most, covered=COVERED)
    assert found.num_pruned == round(most * INDEX.total)
    few = COVERED & ~((np.arange(INDEX.total) >= 200) & (np.arange(INDEX.total) < 225))
    with pytest.raises(UsageError, match=r"at most \d+\.\d+% in layer1.weight, because only \d of the 30 weights"):
        select(Scores(SCORES), DENSE, sparsity=0.3, scope="layer", covered=few)


LENET = ParameterIndex.from_json(
    [
        {"name": f"layer{number}.weight", "shape": shape, "filter_axis": 0}
        for number, shape in enumerate(([20, 1, 5, 5], [20, 20, 5, 5], [100, 320], [10, 100]))
    ]
)


@pytest.mark.parametrize("scope", ["uniform", "erk", "lamp"])
def test_too_small_a_share_is_what_is_said(scope):
    rng = np.random.default_rng(0)
    covered = rng.random(LENET.total) < 0.1
    options = {"covered": covered, "theta": rng.normal(size=LENET.total), "scope": scope}
    scores = np.where(covered, rng.random(LENET.total), np.nan)
    words = rf"`sparsity`: expected at most [\d.]+%, because only {covered.sum():,} of the {LENET.total:,} weights are"
    # Of these the bounds of "uniform" would allow the first.
    for sparsity in (0.5, 0.999):
        with pytest.raises(UsageError, match=words):
            select(Scores(scores), Mask.all(LENET), sparsity=sparsity, **options)


@pytest.mark.parametrize("scope", ["erk", "lamp"])
def test_fewer_weights_than_layers_are_left_by_a_share_as_without_one(scope):
    covered = np.arange(INDEX.total) != 5
    scores = np.where(covered, RNG.random(INDEX.total), np.nan)
    # One stays; one of each other layer would have to be kept besides.
    found = select(Scores(scores), DENSE, sparsity=1 - 1 / INDEX.total, scope=scope, covered=covered, theta=THETA)
    assert [layer.kept for layer in found.mask.per_layer()] == [1, 1, 1]
    assert found.mask.numpy()[5]
    assert found.guarded == ("layer1.weight", "layer2.weight")


def test_the_bounds_of_uniform_and_a_share_are_named_together():
    # What isn't recorded lies in the second layer, the first one would have to stay besides.
    covered = np.arange(LENET.total) >= 8500
    covered[:500] = True
    scores = np.where(covered, RNG.random(LENET.total), np.nan)
    words = r"`scope=uniform`: expected at most ([\d.]+)% .*first convolution stays dense .*, and 8,000 weights aren't"
    with pytest.raises(UsageError, match=words) as caught:
        select(Scores(scores), Mask.all(LENET), sparsity=1 - 8100 / LENET.total, scope="uniform", covered=covered)
    most = float(str(caught.value).partition("at most ")[2].partition("%")[0]) / 100
    found = select(Scores(scores), Mask.all(LENET), sparsity=most, scope="uniform", covered=covered)
    assert [layer.kept for layer in found.mask.per_layer()][::3] == [500, 200]


def test_what_is_pruned_already_counts():
    before = Mask.from_numpy(INDEX, ~((np.arange(INDEX.total) % 2 == 0) & ~COVERED))
    found = select(Scores(SCORES), before, sparsity=0.6, covered=COVERED)
    assert found.num_pruned == round(0.6 * INDEX.total)
    assert not (before.numpy() & pruned(found) & ~COVERED).any()


def test_a_layer_of_which_a_weight_stays_can_lose_all_others():
    covered = np.ones(INDEX.total, bool)
    covered[3] = False
    scores = np.where(np.arange(INDEX.total) < 200, 0.0, 1.0)
    found = select(Scores(scores), DENSE, sparsity=199 / INDEX.total, covered=covered)
    assert (found.mask.per_layer()[0].kept, found.guarded) == (1, ())
    assert found.mask.numpy()[3]
    zero = select_zero(Scores(scores), DENSE, covered=covered)
    assert np.array_equal(pruned(zero), pruned(found))
