"""Inputs in every form that a loop has them: the first samples, in order, and as many as are asked for."""

import pytest
import torch
from torch import nn

from causalprune.base.compute.inputs import network_outputs
from causalprune.base.errors import DataError, UsageError
from causalprune.pruning.network.samples import BATCH, batches_of


class Two(nn.Module):
    """A network of two arguments."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, first, second):
        return self.layer(first * second)


def test_a_tensor_is_divided_and_cut():
    inputs = torch.randn(3 * BATCH, 3)
    batches = batches_of(inputs, 2 * BATCH + 7, nn.Linear(3, 2))
    assert [len(batch) for batch in batches] == [BATCH, BATCH, 7]
    assert torch.equal(torch.cat(batches), inputs[: 2 * BATCH + 7])


def test_a_loader_is_read_no_further_than_needed():
    def loader():
        for number in range(3):
            yield torch.full((4, 3), float(number)), "a target"
        raise AssertionError("read too far")

    first, second, third = batches_of(loader(), 9, nn.Linear(3, 2))
    assert (len(first), len(second), len(third)) == (4, 4, 1)
    assert third.unique().tolist() == [2.0]


def test_arguments_are_cut_alike_but_what_is_no_sample_stays_whole():
    scale = torch.randn(3)
    for batch in [((torch.randn(5, 3), scale), torch.zeros(5))], [{"first": torch.randn(5, 3), "second": scale}]:
        (found,) = batches_of(batch, 2, Two())
        first, second = found.values() if isinstance(found, dict) else found
        assert first.shape == (2, 3)
        assert torch.equal(second, scale)


class Judged(Two):
    """One that puts out its loss first where it gets the targets, as those of Hugging Face do."""

    def forward(self, first, second, labels=None):
        logits = super().forward(first, second)
        return logits if labels is None else (logits.square().mean(), logits)


class Passing(Judged):
    """The same behind a wrapper that takes anything."""

    def forward(self, **batch):
        return super().forward(**batch)


class Conditional(Two):
    """One of which what is called a label is an input."""

    def forward(self, first, second, *, label):
        return super().forward(first, second) + label[:, None]


A, B, Y = torch.randn(5, 3), torch.randn(5, 3), torch.zeros(5)


@pytest.mark.parametrize(
    "batch",
    [
        ((A, B), Y),
        [[A, B], Y],
        (A, B, Y),
        [A, B],
        {"second": B, "first": A, "labels": Y},
        ({"first": A, "second": B}, Y),
    ],
)
def test_targets_are_left_out_of_any_batch(batch):
    (found,) = batches_of([batch], 9, Two())
    first, second = (found["first"], found["second"]) if isinstance(found, dict) else found
    assert (len(found), first.equal(A), second.equal(B)) == (2, True, True)


@pytest.mark.parametrize("model", [Judged(), Passing()])
def test_targets_that_a_network_takes_only_optionally_are_left_out(model):
    """With them, its loss would be taken for its outputs."""
    batches = batches_of([{"first": A, "second": B, "labels": Y}], 9, model)
    assert set(batches[0]) == {"first", "second"}
    assert network_outputs(model, batches[0]).shape == (5, 2)


def test_targets_that_a_network_requires_stay():
    (found,) = batches_of([{"first": A, "second": B, "label": Y, "y": Y}], 9, Conditional())
    assert set(found) == {"first", "second", "label"}


def test_a_number_for_all_samples_stays_one():
    scale = torch.tensor(2.0)
    (found,) = batches_of([((A, scale), Y)], 3, Two())
    assert (len(found[0]), found[1]) == (3, scale)


@pytest.mark.parametrize(
    ("batch", "kind", "words"),
    [
        ("abc", UsageError, r"a tuple or dictionary of tensors \(.*\), found a batch of str"),
        ({"first": A, "second": "word"}, UsageError, "found a batch of dict with second, str"),
        ({"first": torch.tensor(1.0), "second": B}, UsageError, "a batch whose first tensor has no axis of samples"),
        ({"first": A}, DataError, "expected what Two takes, found that it raises TypeError: .*'second'"),
        ({"first": A, "second": B, "weights": Y}, DataError, "unexpected keyword argument 'weights'"),
        ((A[:0], B[:0]), DataError, "at least one sample"),
    ],
)
def test_batches_that_cannot_be_read_are_said_in_one_line(batch, kind, words):
    with pytest.raises(kind, match=words) as caught:
        batches_of([batch], 9, Two())
    assert "\n" not in str(caught.value)
