"""Selection: against torch's own pruning, and against a slow, literal reference on small problems full of ties."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.pruning.criterion import Scores
from causalprune.pruning.names import SPARSITY_SCHEDULES
from causalprune.pruning.selection import Selection, select, select_zero, target_sparsity
from causalprune.trajectory.column_groups import group_ids


def index_of(*shapes: tuple[int, ...]) -> ParameterIndex:
    entries, offset = [], 0
    for number, shape in enumerate(shapes):
        # Every second tensor has its filters along axis 1, like a transposed convolution.
        entries.append(ParameterEntry(f"layer{number}.weight", shape, offset, number % 2))
        offset = entries[-1].stop
    return ParameterIndex(tuple(entries))


def magnitudes(model: nn.Module, index: ParameterIndex) -> Scores:
    return Scores(index.flatten(model.state_dict()).abs().double().numpy())


def lenet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Linear(256, 40), nn.Linear(40, 10))


# Against torch.nn.utils.prune -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 1 / 3, 0.5, 0.9])
def test_global_magnitude_is_torchs_global_unstructured(sparsity: float) -> None:
    model = lenet()
    index = ParameterIndex.from_model(model)
    selection = select(magnitudes(model, index), Mask.all(index), sparsity=sparsity)
    assert not selection.guarded, "torch has no layer-collapse guard"
    prune.global_unstructured([(m, "weight") for m in model], prune.L1Unstructured, amount=sparsity)
    for module, keep in zip(model, selection.mask.tensors().values(), strict=True):
        assert torch.equal(keep, module.weight_mask.bool())


@pytest.mark.parametrize("sparsity", [0.1, 0.25, 0.5, 0.97])
def test_layer_magnitude_is_torchs_l1_unstructured(sparsity: float) -> None:
    model = lenet()
    index = ParameterIndex.from_model(model)
    selection = select(magnitudes(model, index), Mask.all(index), sparsity=sparsity, scope="layer")
    for module, keep in zip(model, selection.mask.tensors().values(), strict=True):
        prune.l1_unstructured(module, "weight", amount=sparsity)
        assert torch.equal(keep, module.weight_mask.bool())


def test_filter_magnitude_is_torchs_ln_structured() -> None:
    model = lenet()
    index = ParameterIndex.from_model(model)
    selection = select(magnitudes(model, index), Mask.all(index), sparsity=0.5, scope="layer", granularity="filter")
    for module, keep in zip(model, selection.mask.tensors().values(), strict=True):
        prune.ln_structured(module, "weight", amount=0.5, n=1, dim=0)
        assert torch.equal(keep, module.weight_mask.bool())


def test_going_on_from_a_mask_is_torchs_too() -> None:
    """Torch counts the second amount over what the first left."""
    model = lenet()
    index = ParameterIndex.from_model(model)
    scores = magnitudes(model, index)
    half = select(scores, Mask.all(index), sparsity=0.5)
    again = select(scores, half.mask, sparsity=0.9)
    parameters = [(m, "weight") for m in model]
    prune.global_unstructured(parameters, prune.L1Unstructured, amount=0.5)
    prune.global_unstructured(parameters, prune.L1Unstructured, amount=round(0.9 * index.total) - half.target)
    assert torch.equal(
        again.mask.keep, index.flatten({f"{i}.weight": m.weight_mask for i, m in enumerate(model)}).bool()
    )


# Against a literal reference ------------------------------------------------------------------------------------------


def before(keys: list[tuple[float, ...]], a: int, b: int) -> bool:
    return (*keys[a], a) < (*keys[b], b)


def ranked(keys: list[tuple[float, ...]], members: set[int]) -> list[int]:
    """By counting who comes before whom."""
    places = {a: sum(before(keys, b, a) for b in members if b != a) for a in members}
    return sorted(members, key=places.__getitem__)


def reference_parameters(keys, kept: set[int], layers: list[set[int]], count: int) -> tuple[set[int], set[int]]:
    """Prune the lowest; whenever a layer runs empty, give it back its best weight and start again."""
    guarded: dict[int, int] = {}
    while True:
        chosen = set(ranked(keys, kept - set(guarded.values()))[: max(count, 0)])
        emptied = [n for n, layer in enumerate(layers) if layer & kept and layer & kept <= chosen]
        if not emptied:
            return chosen, set(guarded)
        guarded |= {n: ranked(keys, layers[n] & kept)[-1] for n in emptied}


def reference_groups(means, sizes, tensors: list[set[int]], count: int) -> tuple[set[int], set[int]]:
    guarded: dict[int, int] = {}
    alive = {g for g in sizes if sizes[g]}
    while True:
        line = ranked(means, alive - set(guarded.values()))
        totals = [sum(sizes[g] for g in line[:n]) for n in range(len(line) + 1)]
        nearest = min(range(len(totals)), key=lambda n: (abs(totals[n] - count), n))
        chosen = set(line[:nearest]) if count > 0 else set()
        emptied = [n for n, tensor in enumerate(tensors) if tensor & alive and tensor & alive <= chosen]
        if not emptied:
            return chosen, set(guarded)
        guarded |= {n: ranked(means, tensors[n] & alive)[-1] for n in emptied}


@st.composite
def problems(draw: st.DrawFn):
    """Up to four small layers; scores from so few values that ties are the rule."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4))
    index = index_of(*shapes)
    values = st.lists(st.integers(0, 3).map(float), min_size=index.total, max_size=index.total).map(np.array)
    scores = Scores(draw(values), draw(st.none() | values))
    keep = draw(st.lists(st.sampled_from([True, True, False]), min_size=index.total, max_size=index.total))
    assume(any(keep))
    sparsity = draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9, 0.999]) | st.floats(0, 0.9999))
    return scores, Mask(index, torch.tensor(keep)), sparsity


def spans(index: ParameterIndex, scope: str) -> list[list[int]]:
    numbers = list(range(len(index)))
    return [numbers] if scope == "global" else [[n] for n in numbers]


def check_against(selection: Selection, mask: Mask, expected: set[int], guarded: set[int], target: int) -> None:
    kept = set(np.flatnonzero(mask.numpy()))
    assert kept - set(np.flatnonzero(selection.mask.numpy())) == expected
    assert set(np.flatnonzero(selection.mask.numpy())) <= kept, "un-pruned"
    assert selection.guarded == tuple(mask.index.entries[n].name for n in sorted(guarded))
    assert selection.newly_pruned == len(expected)
    assert selection.target == target


@settings(deadline=None)
@given(problems(), st.sampled_from(["global", "layer"]))
def test_parameters_against_the_reference(problem, scope: str) -> None:
    scores, mask, sparsity = problem
    keys = list(zip(*(key.tolist() for key in scores.keys), strict=True))
    kept = set(np.flatnonzero(mask.numpy()))
    layers = [set(range(e.offset, e.stop)) for e in mask.index]
    expected, guarded, target = set(), set(), 0
    for span in spans(mask.index, scope):
        here = set.union(*(layers[n] for n in span))
        wanted = round(sparsity * len(here))
        target += wanted
        chosen, emptied = reference_parameters(keys, kept & here, [layers[n] for n in span], wanted - len(here - kept))
        expected |= chosen
        guarded |= {span[n] for n in emptied}
    check_against(select(scores, mask, sparsity=sparsity, scope=scope), mask, expected, guarded, target)


@settings(deadline=None)
@given(problems(), st.sampled_from(["global", "layer"]))
def test_filters_against_the_reference(problem, scope: str) -> None:
    scores, mask, sparsity = problem
    ids, labels = group_ids(mask.index, "neuron")
    kept = set(np.flatnonzero(mask.numpy()))
    members = {g: [p for p in kept if ids[p] == g] for g in range(len(labels))}
    means = [
        tuple(Fraction(int(sum(key[p] for p in members[g])), max(len(members[g]), 1)) for key in scores.keys)
        for g in members
    ]
    sizes = {g: len(members[g]) for g in members}
    tensors = [set(ids[e.offset : e.stop].tolist()) for e in mask.index]
    expected, guarded, target = set(), set(), 0
    for span in spans(mask.index, scope):
        total = sum(mask.index.entries[n].size for n in span)
        wanted = round(sparsity * total)
        target += wanted
        here = set.union(*(tensors[n] for n in span))
        count = wanted - (total - sum(sizes[g] for g in here))
        chosen, emptied = reference_groups(means, {g: sizes[g] for g in here}, [tensors[n] for n in span], count)
        expected |= {p for g in chosen for p in members[g]}
        guarded |= {span[n] for n in emptied}
    selection = select(scores, mask, sparsity=sparsity, scope=scope, granularity="neuron")
    check_against(selection, mask, expected, guarded, target)
    neuron = select(scores, mask, sparsity=sparsity, scope=scope, granularity="neuron")
    assert torch.equal(neuron.mask.keep, selection.mask.keep)


@settings(deadline=None)
@given(problems(), st.lists(st.integers(0, 2), min_size=4, max_size=4), st.sampled_from(["global", "layer"]))
def test_channels_against_the_reference(problem, labels: list[int], scope: str) -> None:
    """Tensors of one label and width produce the same channels; those of label 0 can't be pruned."""
    scores, mask, sparsity = problem
    families: dict[tuple[int, int], list[int]] = {}
    for number, entry in enumerate(mask.index):
        if labels[number]:
            families.setdefault((labels[number], entry.shape[entry.filter_axis]), []).append(number)
    producers = list(families.values())
    units, _ = group_ids(mask.index, "neuron")
    first = {entry.name: min(units[entry.offset : entry.stop]) for entry in mask.index}
    kept = set(np.flatnonzero(mask.numpy()))
    members: dict[int, list[int]] = {}
    homes: list[set[int]] = []
    for numbers in producers:
        width = mask.index.entries[numbers[0]].shape[mask.index.entries[numbers[0]].filter_axis]
        homes.append(set(range(len(members), len(members) + width)))
        for unit in range(width):
            wanted = {first[mask.index.entries[n].name] + unit for n in numbers}
            members[len(members)] = [p for p in kept if units[p] in wanted]
    means = [
        tuple(Fraction(int(sum(key[p] for p in m)), max(len(m), 1)) for key in scores.keys) for m in members.values()
    ]
    sizes = {g: len(m) for g, m in members.items()}
    expected, guarded, target = set(), set(), 0
    everything = list(range(len(mask.index)))
    for span in [everything] if scope == "global" else producers:
        here = [n for n, numbers in enumerate(producers) if set(numbers) <= set(span)]
        inside = {p for n in span for p in range(mask.index.entries[n].offset, mask.index.entries[n].stop)}
        wanted = round(sparsity * len(inside))
        target += wanted
        alive = set().union(*(homes[n] for n in here))
        count = wanted - len(inside - kept)
        chosen, emptied = reference_groups(means, {g: sizes[g] for g in alive}, [homes[n] for n in here], count)
        expected |= {p for g in chosen for p in members[g]}
        guarded |= {producers[here[n]][0] for n in emptied}
    selection = select(scores, mask, sparsity=sparsity, scope=scope, granularity="channel", producers=producers)
    check_against(selection, mask, expected, guarded, target)


@settings(deadline=None)
@given(problems())
def test_layers_keep_their_best_weight(problem) -> None:
    scores, mask, sparsity = problem
    keys = list(zip(*(key.tolist() for key in scores.keys), strict=True))
    kept = set(np.flatnonzero(mask.numpy()))
    members = [kept & set(range(e.offset, e.stop)) for e in mask.index]
    means = [tuple(Fraction(int(sum(k[p] for p in m)), max(len(m), 1)) for k in scores.keys) for m in members]
    sizes = {n: max(len(m) - 1, 0) for n, m in enumerate(members)}
    target = round(sparsity * mask.index.total)
    chosen, _ = reference_groups(means, sizes, [], target - mask.num_pruned)
    expected = {p for n in chosen for p in ranked(keys, members[n])[:-1]}
    selection = select(scores, mask, sparsity=sparsity, granularity="layer")
    check_against(selection, mask, expected, chosen, target)


@settings(deadline=None)
@given(problems(), st.sampled_from(["parameter", "neuron", "layer"]))
def test_zeros_against_the_reference(problem, granularity: str) -> None:
    scores, mask, _ = problem
    ids, _ = group_ids(mask.index, granularity)
    keys = list(zip(*(key.tolist() for key in scores.keys), strict=True))
    kept = set(np.flatnonzero(mask.numpy()))
    zero = {p for p in kept if not any(scores.primary[q] for q in kept if ids[q] == ids[p])}
    expected, guarded = set(zero), set()
    for number, entry in enumerate(mask.index):
        layer = kept & set(range(entry.offset, entry.stop))
        if layer and layer <= zero:
            if granularity == "neuron":
                means = {
                    int(g): tuple(np.mean([keys[p] for p in layer if ids[p] == g], axis=0))
                    for g in {ids[p] for p in layer}
                }
                best = max(means, key=lambda g: (means[g], g))
                saved = {p for p in layer if ids[p] == best}
            else:
                saved = {ranked(keys, layer)[-1]}
            expected -= saved
            # A layer of one weight has nothing to prune, so as a group it isn't ranked at all.
            if granularity != "layer" or len(layer) > 1:
                guarded.add(number)
            else:
                zero -= layer
    target = mask.num_pruned + len(zero)
    selection = select_zero(scores, mask, granularity=granularity)
    check_against(selection, mask, expected, guarded, target)


# What a user is promised ----------------------------------------------------------------------------------------------


def test_among_equals_the_lower_index_goes_first() -> None:
    index = index_of((2, 3), (2, 2))
    selection = select(Scores(np.zeros(10)), Mask.all(index), sparsity=0.4)
    assert selection.mask.keep.tolist() == [False] * 4 + [True] * 6


def test_halves_round_to_even_like_torchs() -> None:
    index = index_of((10, 1))
    kept = [select(Scores(np.arange(10.0)), Mask.all(index), sparsity=s).mask.num_kept for s in (0.05, 0.15, 0.25)]
    assert kept == [10, 8, 8]


def test_an_emptied_layer_keeps_its_best_weight_and_another_goes() -> None:
    index = index_of((2, 2), (3, 2))
    scores = Scores(np.array([0.1, 0.3, 0.2, 0.1, 5, 4, 6, 9, 8, 7]))
    selection = select(scores, Mask.all(index), sparsity=0.5)
    assert selection.mask.keep.tolist() == [False, True, False, False, False, False, True, True, True, True]
    assert selection.guarded == ("layer0.weight",)
    assert selection.mask.num_pruned == selection.target == 5


def test_when_only_the_best_are_left_the_target_is_missed_and_all_are_named() -> None:
    index = index_of((2, 2), (2, 3))
    selection = select(Scores(np.arange(10.0)), Mask.all(index), sparsity=0.95)
    assert np.flatnonzero(selection.mask.numpy()).tolist() == [3, 9]
    assert selection.guarded == ("layer0.weight", "layer1.weight")
    assert selection.mask.num_pruned == 8 < selection.target == 10


def test_every_layer_has_the_same_sparsity_in_scope_layer() -> None:
    index = index_of((20, 5), (10, 20))
    scores = Scores(np.random.default_rng(0).random(300) + np.repeat([0, 10], [100, 200]))
    selection = select(scores, Mask.all(index), sparsity=0.8, scope="layer")
    assert [layer.kept for layer in selection.mask.per_layer()] == [20, 40]


@pytest.mark.parametrize("granularity", ["parameter", "neuron", "layer"])
def test_sparsity_zero_and_a_sparsity_already_passed_do_nothing(granularity: str) -> None:
    index = index_of((4, 4), (4, 4))
    mask = Mask(index, torch.arange(32) % 2 == 0)
    for sparsity in (0.0, 0.3, 0.5):
        selection = select(Scores(np.arange(32.0)), mask, sparsity=sparsity, granularity=granularity)
        assert selection.mask is mask
        assert (selection.newly_pruned, selection.target, selection.guarded) == (0, round(32 * sparsity), ())


def test_scores_of_pruned_weights_dont_matter() -> None:
    index = index_of((4, 4))
    mask = Mask(index, torch.arange(16) >= 8)
    values = np.arange(16.0)
    values[:8] = np.nan
    selection = select(Scores(values, values), mask, sparsity=0.75)
    assert np.flatnonzero(selection.mask.numpy()).tolist() == [12, 13, 14, 15]


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [1.0, 1.5, -0.1, np.nan, np.inf])
def test_a_sparsity_that_cant_be(sparsity: float) -> None:
    index = index_of((4, 4))
    with pytest.raises(UsageError, match=r"`sparsity`: expected a number in \[0, 1\)"):
        select(Scores(np.zeros(16)), Mask.all(index), sparsity=sparsity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "locally"}, "`scope`: expected one of global, layer"),
        ({"granularity": "kernel"}, "`granularity`: expected one of parameter"),
        ({"granularity": "layer", "scope": "layer"}, "`granularity=layer`: expected `scope=global`"),
    ],
)
def test_options_that_cant_be(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select(Scores(np.zeros(16)), Mask.all(index_of((4, 4))), sparsity=0.5, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_arent_finite_are_located(value: float) -> None:
    index = index_of((2, 2), (3, 2))
    bad, good = np.zeros(10), np.zeros(10)
    bad[7] = value
    for scores in (Scores(bad), Scores(good, bad)):
        for attempt in (lambda s: select(s, Mask.all(index), sparsity=0.5), lambda s: select_zero(s, Mask.all(index))):
            with pytest.raises(DataError, match=r"score of layer1.weight\[1, 1\]: expected a finite number"):
                attempt(scores)


def test_nothing_left_to_prune() -> None:
    index = index_of((4, 4))
    with pytest.raises(DataError, match="every one pruned already"):
        select(Scores(np.zeros(16)), Mask(index, torch.zeros(16, dtype=torch.bool)), sparsity=0.5)


def test_scores_of_another_model() -> None:
    with pytest.raises(MismatchError, match="scores: expected 16, one per prunable parameter, found 15"):
        select(Scores(np.zeros(15)), Mask.all(index_of((4, 4))), sparsity=0.5)


def test_the_authors_cubic_sequence() -> None:
    # Printed by them with four digits, cut off; here from exact integers.
    published = [0.0947, 0.1832]
    sequence = [target_sparsity("cubic", i, 30, 0.98) for i in range(1, 31)]
    assert [math.floor(s * 1e4) / 1e4 for s in sequence[:2]] == published
    for i, value in enumerate(sequence, start=1):
        assert value == pytest.approx(98 * (30**3 - (30 - i) ** 3) / (100 * 30**3), rel=1e-14)


def test_geometric_removes_the_same_share_each_time() -> None:
    kept = [1.0] + [1 - target_sparsity("geometric", i, 7, 0.95) for i in range(1, 8)]
    shares = [after / before for before, after in itertools.pairwise(kept)]
    assert shares == pytest.approx([0.05 ** (1 / 7)] * 7)


@pytest.mark.parametrize("schedule", SPARSITY_SCHEDULES)
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.9, 0.98, 0.995])
def test_every_schedule_rises_and_ends_exactly_at_the_target(schedule: str, sparsity: float) -> None:
    for n in (1, 2, 3, 10, 30):
        sequence = [target_sparsity(schedule, i, n, sparsity) for i in range(1, n + 1)]
        assert sequence == sorted(sequence)
        assert sequence[-1] == sparsity
        assert all(0 <= value <= sparsity for value in sequence)


def test_one_shot_is_there_at_once() -> None:
    assert target_sparsity("one-shot", 1, 5, 0.9) == 0.9


@pytest.mark.parametrize(
    ("schedule", "i", "n", "sparsity"),
    [
        ("linear", 1, 1, 0.5),
        ("cubic", 0, 1, 0.5),
        ("cubic", 3, 2, 0.5),
        ("cubic", 1, 0, 0.5),
        ("cubic", 1, 1, 1.0),
        ("cubic", 1, 1, -0.1),
        ("cubic", 1, 1, math.nan),
    ],
)
def test_schedules_refuse_values_outside_their_ranges(schedule: str, i: int, n: int, sparsity: float) -> None:
    with pytest.raises(UsageError):
        target_sparsity(schedule, i, n, sparsity)


# Frozen tensors -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    problems(),
    st.sets(st.integers(0, 3)),
    st.sampled_from(["global", "layer"]),
    st.sampled_from(["parameter", "neuron", "layer"]),
)
def test_a_frozen_tensor_is_as_good_as_absent(problem, frozen: set[int], scope: str, granularity: str) -> None:
    """The others are pruned as in a network that consists of them alone."""
    scores, mask, sparsity = problem
    entries = mask.index.entries
    free = [n for n in range(len(entries)) if n not in frozen]
    assume(free and not scope == granularity == "layer")
    places = np.concatenate([np.arange(entries[n].offset, entries[n].stop) for n in free])
    offsets = np.cumsum([0, *(entries[n].size for n in free)])
    small = ParameterIndex(tuple(replace(entries[n], offset=int(o)) for n, o in zip(free, offsets, strict=False)))
    assume(mask.numpy()[places].any())
    alone = Mask.from_numpy(small, mask.numpy()[places].copy())
    keys = [key[places] for key in scores.keys]
    names = [entries[n].name for n in frozen if n < len(entries)]
    for choose in (
        partial(select, sparsity=sparsity, scope=scope, granularity=granularity),
        partial(select_zero, granularity=granularity),
    ):
        expected, found = choose(Scores(*keys), alone), choose(scores, mask, frozen=names)
        assert np.array_equal(found.mask.numpy()[places], expected.mask.numpy())
        assert (found.guarded, found.target, found.sparsity) == (
            expected.guarded,
            expected.target,
            expected.mask.sparsity,
        )
        others = np.setdiff1d(np.arange(mask.index.total), places)
        assert np.array_equal(found.mask.numpy()[others], mask.numpy()[others])


def test_channels_that_a_frozen_layer_produces_stay_in_all_layers() -> None:
    index = index_of((2, 3), (3, 2), (2, 3))
    options = {"granularity": "channel", "producers": [(0, 1), (2,)], "sparsity": 0.5}
    mask = select(Scores(np.arange(18.0)), Mask.all(index), frozen=["layer1.weight"], **options).mask
    assert [layer.kept for layer in mask.per_layer()] == [6, 6, 3]


def test_nothing_but_frozen_tensors() -> None:
    index = index_of((2, 3), (2, 2))
    names = [entry.name for entry in index]
    with pytest.raises(DataError, match=r"every prunable weight frozen; .*`prune_frozen`"):
        select(Scores(np.zeros(10)), Mask.all(index), sparsity=0.5, frozen=names)
    with pytest.raises(DataError, match="that aren't frozen, found none"):
        select(
            Scores(np.zeros(10)),
            Mask.all(index),
            sparsity=0.5,
            producers=[(0,)],
            granularity="neuron",
            frozen=names[:1],
        )
