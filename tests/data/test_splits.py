"""The cut is disjoint, complete, and stratified to the sample."""

from math import floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from causalprune.base.errors import DataError
from causalprune.data.splits import holdout


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 40), min_size=2, max_size=6), fraction=st.floats(0.15, 0.5), seed=st.integers(0, 99)
)
def test_each_class_gives_its_share(sizes, fraction, seed):
    targets = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    kept, held = holdout(targets, fraction, seed, stratify=True, part="validation")
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(targets)))
    counts = torch.bincount(targets[held], minlength=len(sizes)).tolist()
    assert all(abs(count - n * fraction) < 1 + 1e-9 and count < n for count, n in zip(counts, sizes, strict=True))
    if min(sizes) * fraction < min(sizes) - 1:
        assert len(held) == floor(len(targets) * fraction + 0.5)


def test_exact_counts():
    targets = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    _, held = holdout(targets, 0.1, 3, stratify=True, part="validation")
    assert torch.bincount(targets[held]).tolist() == [5, 3, 2]


def test_same_seed_same_cut_whatever_the_global_generator():
    targets = torch.arange(100.0)
    torch.manual_seed(1)
    first = holdout(targets, 0.3, 7, stratify=False, part="test")
    torch.manual_seed(2)
    again = holdout(targets, 0.3, 7, stratify=False, part="test")
    other = holdout(targets, 0.3, 8, stratify=False, part="test")
    assert first[1].equal(again[1])
    assert not first[1].equal(other[1])
    assert len(first[1]) == 30


@pytest.mark.parametrize(("count", "fraction"), [(3, 0.1), (1, 0.5), (4, 0.99)])
def test_an_empty_part_is_refused(count, fraction):
    with pytest.raises(DataError, match="validation split"):
        holdout(torch.zeros(count), fraction, 0, stratify=False, part="validation")
