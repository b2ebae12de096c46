"""The text that Python ships, against the text itself."""

import sys
from pydoc_data.topics import topics as pages

import pytest
import torch

from causalprune.base.compute.shapes import Tokens
from causalprune.base.errors import DataError
from causalprune.base.specs import DataSpec
from causalprune.data.batches import Batches
from causalprune.data.datasets import load_data
from causalprune.data.sources.texts import windows


def test_every_page_is_in_one_split_and_its_bytes_are_targets_once():
    data = load_data(DataSpec(name="topics"))
    assert data.input_shape == Tokens((64,), 256)
    parts = [(split, split.targets.numel()) for split in (data.train, data.validation, data.test)]
    whole = {name: text.encode() for name, text in pages.items()}
    assert sum(count for _, count in parts) == sum((len(text) - 1) // 64 * 64 for text in whole.values())
    assert all(count > 0.02 * sum(map(len, whole.values())) for _, count in parts)
    rows = [{bytes(row) for row in split.inputs.to(torch.uint8).numpy()} for split in (data.train, data.test)]
    rows.append({bytes(row) for row in data.validation.inputs.to(torch.uint8).numpy()})
    # With the count above, a page that is whole in one split has no part in another.
    assert all(any(of_split.issuperset(_rows(text)) for of_split in rows) for text in whole.values())


def _rows(text):
    return [text[start : start + 64] for start in range(0, len(text) - 64, 64)]


def test_a_target_is_the_next_byte():
    split = windows([bytes(range(20)), b"ab"], length=6)
    assert split.inputs.tolist() == [[*range(6)], [*range(6, 12)], [*range(12, 18)]]
    assert split.targets.equal(split.inputs + 1)


def test_tokens_are_not_standardized():
    data = load_data(DataSpec(name="topics"))
    inputs, targets = next(Batches(data, "test", batch_size=5, device="cpu", seed=0, shuffle=False).epoch(0))
    assert (inputs.dtype, targets.dtype) == (torch.int64, torch.int64)
    assert inputs.equal(data.test.inputs[:5])
    assert targets.equal(data.test.targets[:5])


def test_a_python_without_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="pydoc_data, which comes with Python"):
        load_data(DataSpec(name="topics"))
