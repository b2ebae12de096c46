"""The learning rate of each column, also where some columns are pruned and a parameter is in no group."""

import json
from dataclasses import replace

import numpy as np
import pytest
from store_builders import INFO, make_rows, make_store, scalars

from causalprune.base.errors import CorruptError
from causalprune.trajectory import Store
from causalprune.trajectory.steps.learning_rates import LearningRates, ParameterGroup, group_scalars
from causalprune.trajectory.zarr_files import attributes_checksum

GROUPS = (
    ParameterGroup(("layer2.weight",), 0.1, 0.5, {"weight_decay": 0.1}),
    ParameterGroup((), 0.7),
    ParameterGroup(("layer0.weight",), 0.2),
)
DECLARING = tuple(name for number in range(3) for name in group_scalars(number))


def make_groups(path, groups=GROUPS):
    """Four rows of layers of 4, 3 and 2 weights, of which each third is pruned; layer1 is in no group."""
    store = make_store(path, 4, 3, 2)
    active = np.arange(9) % 3 != 1
    info = replace(INFO, groups=groups, step_scalars=DECLARING)
    with store.create_recording(info, active, codec="exact") as writer:
        for row, delta in enumerate(make_rows(4, 6)):
            own = {name: (number + 1) * 0.1 / (row + 1) for number, name in enumerate(DECLARING)}
            writer.append(delta, **scalars(row), **own)
        writer.finish()
    return store.recording()


def test_each_column_has_the_rate_of_its_group_at_its_row(tmp_path):
    reader = make_groups(tmp_path / "t.zarr")
    first, last = reader.steps["lr.0"], reader.steps["lr.2"]
    # The columns are the weights 0, 2, 3 of layer0, 5 and 6 of layer1, and 8 of layer2.
    assert reader.column_index.tolist() == [0, 2, 3, 5, 6, 8]
    rates = reader.learning_rates
    assert rates.numbers == (0, 2)
    expected = np.stack([last, last, last, first, first, first], axis=1)
    assert np.array_equal(rates.block(slice(None), slice(None)), expected)
    assert np.array_equal(rates.block(slice(1, 3), np.array([2, 5])), expected[1:3][:, [2, 5]])
    assert np.array_equal(rates.of_columns(), expected[0])
    assert rates.extremes == ((first.min(), last.min()), (first.max(), last.max()))
    assert Store.open(tmp_path / "t.zarr").recording().info.groups == GROUPS


def test_one_group_with_columns_has_one_rate_for_all(tmp_path):
    groups = (ParameterGroup((), 0.1), ParameterGroup((), 0.2), ParameterGroup(("layer0.weight", "layer2.weight"), 0.3))
    reader = make_groups(tmp_path / "t.zarr", groups)
    rates = reader.learning_rates
    assert (rates.group, rates.numbers) == (None, (2,))
    assert np.array_equal(rates.block(slice(None), slice(2, 4)), reader.steps["lr.2"][:, None])
    assert rates.of_columns() == reader.steps["lr.2"][0]


def test_rates_of_no_rows_have_no_extremes():
    assert LearningRates.same([]).extremes == ()
    assert len(LearningRates.same([])) == 0


@pytest.mark.parametrize(
    "groups", [[7], [{"parameters": [1], "lr": 1, "momentum": 0, "extra": {}}], [{"lr": 0.1}], {"a": 1}]
)
def test_damaged_groups_are_noticed(tmp_path, groups):
    make_groups(tmp_path / "t.zarr")
    path = tmp_path / "t.zarr/recordings/000/zarr.json"
    document = json.loads(path.read_text())
    ours = document["attributes"]["causalprune"]
    ours["info"]["groups"] = groups
    ours["checksum"] = f"{attributes_checksum(ours):08x}"
    path.write_text(json.dumps(document))
    with pytest.raises(CorruptError, match="how the recording was made"):
        Store.open(tmp_path / "t.zarr").recording()
