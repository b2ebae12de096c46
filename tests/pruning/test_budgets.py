"""Budgets: against the formulas of the papers written down literally, a ranking by brute force, and the promises."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from causalprune.base.errors import UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.pruning.criterion import Scores
from causalprune.pruning.names import MASK_SCOPES
from causalprune.pruning.selection import select, target_sparsity

SHARED = [scope for scope in MASK_SCOPES if scope not in ("global", "layer")]
"""The scopes that give each layer a number of its own and meet the target together."""


def index_of(*shapes: tuple[int, ...]) -> ParameterIndex:
    entries: list[ParameterEntry] = []
    for number, shape in enumerate(shapes):
        entries.append(ParameterEntry(f"layer{number}.weight", shape, entries[-1].stop if entries else 0))
    return ParameterIndex(tuple(entries))


LENET = index_of((20, 1, 5, 5), (20, 20, 5, 5), (100, 320), (10, 100))


def weights(index: ParameterIndex, seed: int = 0) -> np.ndarray:
    """Normally distributed, each layer on a scale of its own."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=e.size) * rng.uniform(0.1, 3) for e in index]).astype(np.float32)


def prune(index: ParameterIndex, mask: Mask | None = None, *, seed: int = 0, scores=None, **options):
    """Prune by a random order; ``theta`` are weights that have nothing to do with it."""
    order = np.random.default_rng(100 + seed).random(index.total) if scores is None else scores
    return select(Scores(order), mask or Mask.all(index), theta=weights(index, seed), **options)


def kept(selection) -> list[int]:
    return [layer.kept for layer in selection.mask.per_layer()]


# Against the papers ---------------------------------------------------------------------------------------------------


def evci(shapes: list[tuple[int, ...]], sparsity: float) -> list[float]:
    """Densities by Evci et al., appendix: ε·(sum of dims)/(product of dims); layers above 1 are dense, and ε anew."""
    raw = [sum(shape) / np.prod(shape) for shape in shapes]
    sizes = [int(np.prod(shape)) for shape in shapes]
    dense: set[int] = set()
    while True:
        wanted = (1 - sparsity) * sum(sizes) - sum(sizes[n] for n in dense)
        epsilon = wanted / sum(raw[n] * sizes[n] for n in range(len(shapes)) if n not in dense)
        above = {n for n in range(len(shapes)) if n not in dense and epsilon * raw[n] > 1}
        if not above:
            return [1.0 if n in dense else epsilon * raw[n] for n in range(len(shapes))]
        dense |= {max(above, key=raw.__getitem__)}


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8, 0.9, 0.95, 0.99])
def test_erk_has_the_densities_of_the_paper(sparsity: float) -> None:
    shapes = [(16, 3, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3), (64, 32, 1, 1), (200, 64), (10, 200)]
    index = index_of(*shapes)
    selection = prune(index, sparsity=sparsity, scope="erk")
    for found, entry, density in zip(kept(selection), index, evci(shapes, sparsity), strict=True):
        assert abs(found - density * entry.size) < 1
    assert selection.mask.num_pruned == round(sparsity * index.total)


def test_erk_of_a_network_computed_by_hand() -> None:
    """Kept weights go as 4 + 2 : 8 + 4 : 2 + 8 = 6 : 12 : 10; of 56 weights 28 stay, which is twice 14 of 28 parts."""
    selection = prune(index_of((4, 2), (8, 4), (2, 8)), sparsity=0.5, scope="erk")
    # ε = 1: none is above its size of 8, 32 and 16.
    assert kept(selection) == [6, 12, 10]
    # 42 stay: ε = 1.5 would keep 9 of the first, which has 8; of the rest 34·12/22 and 34·10/22, 15.45 at most of 16.
    assert kept(prune(index_of((4, 2), (8, 4), (2, 8)), sparsity=0.25, scope="erk")) == [8, 19, 15]


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.98])
def test_uniform_leaves_the_first_convolution_and_a_fifth_of_the_last_layer(sparsity: float) -> None:
    selection = prune(LENET, sparsity=sparsity, scope="uniform")
    first, second, third, last = kept(selection)
    assert first == 500
    assert selection.mask.num_pruned == round(sparsity * LENET.total)
    left = LENET.total - selection.target - 500
    if sparsity == 0.5:
        assert last / 1000 == pytest.approx(left / 43_000, abs=1e-3)
    else:
        assert last == 200
    assert second / 10_000 == pytest.approx(third / 32_000, abs=1e-4)


def test_uniform_without_a_convolution_or_without_a_last_linear_layer() -> None:
    assert kept(prune(index_of((300, 10), (10, 100)), sparsity=0.9, scope="uniform")) == [200, 200]
    # The first convolution isn't the first layer; the last layer isn't Linear.
    assert kept(prune(index_of((10, 40), (4, 10, 1), (400, 1, 1)), sparsity=0.5, scope="uniform")) == [190, 40, 190]


def lamp_by_definition(theta: np.ndarray, index: ParameterIndex, alive: np.ndarray) -> np.ndarray:
    """score(u) = w_u² / Σ over v of the layer with |w_v| ≥ |w_u| of w_v², one weight after the other."""
    scores = np.zeros(index.total)
    for entry in index:
        inside = [p for p in range(entry.offset, entry.stop) if alive[p]]
        for u in inside:
            scores[u] = theta[u] ** 2 / sum(theta[v] ** 2 for v in inside if abs(theta[v]) >= abs(theta[u]))
    return scores


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("pruned_before", [0.0, 0.15])
def test_lamp_leaves_as_many_as_a_global_ranking_by_lamp_does(sparsity: float, pruned_before: float) -> None:
    index = index_of((4, 3, 3, 3), (30, 8), (5, 30))
    alive = np.random.default_rng(5).random(index.total) >= pruned_before
    theta = weights(index).astype(np.float64)
    scores = lamp_by_definition(theta, index, alive)
    stay = sorted(np.flatnonzero(alive), key=scores.__getitem__)[round(sparsity * index.total) - int((~alive).sum()) :]
    expected = [sum(e.offset <= p < e.stop for p in stay) for e in index]
    selection = prune(index, Mask.from_numpy(index, alive), sparsity=sparsity, scope="lamp")
    assert kept(selection) == expected
    assert not selection.guarded


def test_lamp_by_magnitude_is_the_lamp_mask_itself() -> None:
    index = index_of((4, 3, 3, 3), (30, 8), (5, 30))
    theta = weights(index)
    selection = prune(index, sparsity=0.7, scope="lamp", scores=np.abs(theta).astype(np.float64))
    everything = np.ones(index.total, dtype=bool)
    ranked = np.argsort(lamp_by_definition(theta.astype(np.float64), index, everything))
    assert set(np.flatnonzero(~selection.mask.numpy())) == set(ranked[: round(0.7 * index.total)])


def test_lamp_without_weights() -> None:
    with pytest.raises(UsageError, match="`scope=lamp`: expected `theta`"):
        select(Scores(np.zeros(6)), Mask.all(index_of((2, 3))), sparsity=0.5, scope="lamp")


# What is promised of all ----------------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn, least: int = 1):
    shape = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(
        st.integers(1, 4), st.integers(1, 4), st.just(3)
    )
    index = index_of(*draw(st.lists(shape, min_size=least, max_size=5)))
    keep = np.random.default_rng(draw(st.integers(0, 99))).random(index.total) >= draw(st.sampled_from([0, 0.3, 0.8]))
    assume(keep.any())
    return index, Mask.from_numpy(index, keep)


@settings(deadline=None, max_examples=200)
@given(networks(), st.sampled_from(SHARED), st.floats(0, 0.999), st.integers(0, 9))
def test_the_target_is_met_exactly_nothing_returns_and_no_layer_is_emptied(network, scope, sparsity, seed) -> None:
    index, mask = network
    try:
        selection = prune(index, mask, seed=seed, sparsity=sparsity, scope=scope)
    except UsageError:
        if scope == "uniform":
            return
        raise
    before, after = mask.numpy(), selection.mask.numpy()
    assert not (after & ~before).any()
    alive = sum(bool(before[e.offset : e.stop].any()) for e in index)
    assert selection.target == round(sparsity * index.total)
    assert selection.mask.num_pruned == min(max(selection.target, mask.num_pruned), index.total - alive)
    for entry in index:
        assert after[entry.offset : entry.stop].any() == before[entry.offset : entry.stop].any()


@settings(deadline=None, max_examples=100)
@given(
    networks(least=2),
    st.sampled_from(list(MASK_SCOPES)),
    st.lists(st.sampled_from([None, 0.0, 0.25, 0.5, 0.9]), min_size=5, max_size=5),
    st.floats(0, 1),
)
def test_a_layer_has_the_sparsity_that_it_was_given_and_the_total_holds(network, scope, values, share) -> None:
    """The total is drawn from what the others can make up for."""
    index, _ = network
    own = {e.name: value for e, value in zip(index, values, strict=False) if value is not None}
    others = [e for e in index if e.name not in own]
    assume(own and others)
    asked = {name: round(value * index[name].size) for name, value in own.items()}
    assume(all(asked[name] < index[name].size for name in own))
    pruned = sum(asked.values()) + round(share * sum(e.size - 1 for e in others))
    try:
        selection = prune(index, sparsity=pruned / index.total, scope=scope, layer_sparsity=own)
    except UsageError:
        if scope == "uniform":
            return
        raise
    found = {layer.name: layer.total - layer.kept for layer in selection.mask.per_layer()}
    assert {name: found[name] for name in own} == asked
    if scope != "layer":
        assert selection.mask.num_pruned == selection.target == pruned
    else:
        density = (pruned - sum(asked.values())) / sum(e.size for e in others)
        assert all(abs(found[e.name] - min(density * e.size, e.size - 1)) <= 0.5 + 1e-9 for e in others)


@pytest.mark.parametrize("scope", MASK_SCOPES)
@pytest.mark.parametrize("schedule", ["cubic", "geometric"])
def test_masks_of_a_schedule_are_nested_and_meet_each_target(scope: str, schedule: str) -> None:
    mask, layers = Mask.all(LENET), []
    for number in range(1, 5):
        sparsity = target_sparsity(schedule, number, 4, 0.85)
        own = {"layer1.weight": 0.5 * (sparsity / 0.85)}
        selection = prune(LENET, mask, seed=number, sparsity=sparsity, scope=scope, layer_sparsity=own)
        assert not (selection.mask.numpy() & ~mask.numpy()).any()
        assert selection.mask.num_pruned == pytest.approx(
            round(sparsity * LENET.total), abs=2 if scope == "layer" else 0
        )
        mask = selection.mask
        layers.append(mask.per_layer()[1].kept)
    assert layers == sorted(layers, reverse=True)
    assert layers[-1] == 5_000


@pytest.mark.parametrize("scope", SHARED)
def test_a_layer_that_is_sparser_stays_and_the_others_keep_more(scope: str) -> None:
    keep = np.ones(LENET.total, dtype=bool)
    keep[LENET.entries[2].offset : LENET.entries[2].stop - 40] = False
    dense = prune(LENET, sparsity=0.95, scope=scope)
    selection = prune(LENET, Mask.from_numpy(LENET, keep), sparsity=0.95, scope=scope)
    # LAMP ranks what is left of it once more.
    assert 0 < kept(selection)[2] <= 40 < kept(dense)[2]
    assert scope == "lamp" or kept(selection)[2] == 40
    assert selection.mask.num_pruned == round(0.95 * LENET.total)
    assert all(now >= then for now, then in zip(kept(selection)[1::2], kept(dense)[1::2], strict=True))


def test_fewer_weights_than_layers_is_for_the_guard() -> None:
    index = index_of((2, 2), (2, 2), (2, 2))
    for scope in ("erk", "lamp"):
        selection = prune(index, sparsity=0.9, scope=scope)
        assert (kept(selection), selection.target) == ([1, 1, 1], 11)
        assert selection.guarded == tuple(e.name for e in index)


@pytest.mark.parametrize("scope", SHARED)
@pytest.mark.parametrize("granularity", ["neuron", "channel"])
def test_groups_come_as_near_to_their_budgets_as_whole_ones_can(scope: str, granularity: str) -> None:
    index = index_of((16, 3, 3, 3), (32, 16, 3, 3), (32, 16, 1, 1), (10, 32))
    producers = [(0,), (1, 2)] if granularity == "channel" else [(0,), (1,), (2,)]
    selection = prune(index, sparsity=0.7, scope=scope, granularity=granularity, producers=producers)
    assert kept(selection)[3] == 320
    # Half a group of each of the layers.
    assert abs(selection.mask.num_pruned - round(0.7 * index.total)) <= 14 + 72 + 8
    if granularity == "channel":
        widths = [keep.flatten(1).any(1) for keep in selection.mask.tensors().values()]
        assert torch.equal(widths[1], widths[2])
    if scope == "uniform":
        assert kept(selection)[0] == 432


# Bad input ------------------------------------------------------------------------------------------------------------


def test_uniform_says_how_much_can_be_pruned_at_most() -> None:
    index = index_of((10, 1, 10), (30, 30), (10, 10))
    most = 1 - (100 + 1 + 20) / 1100
    assert kept(prune(index, sparsity=most - 1e-3, scope="uniform"))[::2] == [100, 20]
    with pytest.raises(UsageError, match=r"`scope=uniform`: expected at most 89% .* found 90\.00%; .*`sparsity`"):
        prune(index, sparsity=0.9, scope="uniform")


@pytest.mark.parametrize("sparsity", [0.2, 0.9])
def test_layers_that_the_others_cant_make_up_for(sparsity: float) -> None:
    index = index_of((10, 10), (10, 10), (10, 10))
    with pytest.raises(
        UsageError, match=r"`layer_sparsity`: expected a `sparsity` of 0\.3 to 0\.6333, which the other"
    ):
        prune(index, sparsity=sparsity, layer_sparsity={"layer0.weight": 0.4, "layer2.weight": 0.5})


def test_when_each_layer_has_its_own_they_say_the_total() -> None:
    index = index_of((3, 5), (7, 3))
    own = {"layer0.weight": 0.5, "layer1.weight": 0.5}
    selection = prune(index, sparsity=0.5, layer_sparsity=own)
    # 7.5 and 10.5 round to even; 18 of both.
    assert (kept(selection), selection.target) == ([7, 11], 18)
    with pytest.raises(UsageError, match=r"expected a `sparsity` of 0\.5, because each has its own, found 0\.7"):
        prune(index, sparsity=0.7, layer_sparsity=own)


@pytest.mark.parametrize(
    "options", [{"scope": scope} for scope in [*SHARED, "layer"]] + [{"layer_sparsity": {"layer0.weight": 0.5}}]
)
def test_whole_layers_have_no_budgets(options) -> None:
    with pytest.raises(UsageError, match="`granularity=layer`: expected `scope=global`, which ranks the layers"):
        prune(LENET, sparsity=0.5, granularity="layer", **options)


@pytest.mark.parametrize("value", [-0.1, 1.0, np.nan])
def test_a_sparsity_of_a_layer_that_cant_be(value: float) -> None:
    with pytest.raises(UsageError, match=r"`layer_sparsity`: expected a number in \[0, 1\)"):
        prune(LENET, sparsity=0.5, layer_sparsity={"layer0.weight": value})


def test_groups_that_are_pruned_together_or_not_at_all() -> None:
    index = index_of((8, 3), (8, 3), (8, 8))
    options = {"sparsity": 0.2, "granularity": "channel", "producers": [(0, 1)]}
    with pytest.raises(
        UsageError, match=r"one for all of layer0.weight, layer1.weight, which .* found (0.5|none), (0.5|none)"
    ):
        prune(index, layer_sparsity={"layer0.weight": 0.5}, **options)
    with pytest.raises(UsageError, match=r"expected layers with groups that can be pruned, found layer2.weight"):
        prune(index, layer_sparsity={"layer2.weight": 0.5}, **options)
    own = {"layer0.weight": 0.25, "layer1.weight": 0.25, "layer2.weight": 0}
    assert kept(prune(index, layer_sparsity=own, **options | {"sparsity": 12 / 112})) == [18, 18, 64]


def test_every_scope_keeps_all_at_sparsity_zero() -> None:
    for scope, own in itertools.product(MASK_SCOPES, [None, {"layer0.weight": 0.0}]):
        assert prune(LENET, sparsity=0.0, scope=scope, layer_sparsity=own).mask.num_pruned == 0
