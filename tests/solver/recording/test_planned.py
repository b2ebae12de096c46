"""A fit is refused before its recording is made exactly where it would be refused afterwards, and in the same words."""

import numpy as np
import pytest

from causalprune.base.errors import CausalpruneError
from causalprune.models.parameters import ParameterIndex
from causalprune.solver.recording.options import FitOptions
from causalprune.solver.recording.planned import require_solvable
from causalprune.solver.recording.regression import Regression
from causalprune.trajectory import RecordingInfo, Store
from causalprune.trajectory.columns.planned import PlannedRecording

INDEX = ParameterIndex.from_json(
    [
        {"name": "conv.weight", "shape": [30, 2, 8, 8], "filter_axis": 0},
        {"name": "fc.weight", "shape": [40, 50], "filter_axis": 0},
    ]
)
ACTIVE = np.arange(INDEX.total) % 3 > 0
ROWS = 30


@pytest.fixture(scope="module", params=[0.0, 0.9], ids=["plain", "momentum"])
def reader(request, tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("planned") / "t.zarr"
    writer = Store.create(path, index=INDEX, model={}, start_sha256="").create_recording(
        RecordingInfo(lr=0.1, batch_size=4, seed=0, momentum=request.param), ACTIVE, max_rows=ROWS, codec="exact"
    )
    for row in range(ROWS):
        delta = rng.normal(size=ACTIVE.sum()).astype(np.float32) * 1e-3
        change = 1e-3 * rng.normal()
        writer.append(delta, loss_before=1.0, loss_after=1.0 + change, lr=0.1, epoch=0, batch=row, grad_norm=1.0)
    writer.finish()
    writer.close()
    return Store.open(path).recording()


def said(work):
    try:
        work()
    except CausalpruneError as error:
        return type(error), str(error)
    return None


@pytest.mark.parametrize("granularity", ["parameter", "filter", "layer"])
@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({}, False),
        ({"memory": "1kB"}, True),
        ({"memory": "300MB", "alphas": 5, "cv": 3, "bootstrap": 2}, False),
        ({"memory": "87MB"}, None),
        ({"memory": "1B", "solver": "sklearn"}, True),
        ({"solver": "sklearn", "scope": "layer", "memory": "100kB"}, None),
        ({"solver": "sgd", "alphas": 3}, True),
        ({"solver": "sgd", "positive": True}, True),
        ({"alphas": 5, "cv": 16}, True),
        ({"target_nonzero": 31}, None),
        ({"target_nonzero": 31, "l1_ratio": 0.5}, None),
        ({"target_sparsity": 0.5, "scope": "layer"}, None),
    ],
    ids=str,
)
def test_it_is_refused_in_the_same_words(reader, granularity, options, refused):
    options = FitOptions(granularity=granularity, **options)
    planned = PlannedRecording.of(INDEX, ACTIVE, ROWS, momentum=reader.info.momentum)
    before = said(lambda: require_solvable(options, planned))
    assert before == said(lambda: require_solvable(options, PlannedRecording.of_reader(reader)))
    assert before == said(lambda: Regression(reader, options).solve())
    assert refused in (None, before is not None)


def test_the_size_is_that_of_the_columns(reader):
    planned = PlannedRecording.of(INDEX, ACTIVE, ROWS)
    assert (planned.num_columns, planned.block_width) == (reader.num_columns, reader.block_width)


def test_row_weights_are_looked_at(reader):
    del reader
    planned = PlannedRecording.of(INDEX, ACTIVE, ROWS)
    with pytest.raises(CausalpruneError, match="row weights: expected finite numbers of at least 0"):
        require_solvable(FitOptions(), planned, -np.ones(ROWS))
    tail = np.arange(ROWS) >= 24
    with pytest.raises(CausalpruneError, match="row weights: expected rows with weight in every part"):
        require_solvable(FitOptions(held_out=0.2), planned, tail.astype(float))
