import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_builders import make_recording, scalars

from causalprune.base.errors import DataError
from causalprune.solver.features import FeatureSource

ROWS, COLUMNS = 21, 50


def expected_features(values, lags, groups, lr):
    """The definition, in float64, a column at a time."""
    deltas = values.astype(np.float64)
    if lr is not None:
        deltas = deltas / np.asarray(lr)[:, None]
    columns = []
    for k in range(deltas.shape[1]):
        now = deltas[:, k]
        columns.append([now**2] if lags == 0 else [now[1:] ** 2, now[:-1] ** 2, now[1:] * now[:-1]])
    if groups is not None:
        columns = [
            [sum(columns[k][i] for k in range(len(groups)) if groups[k] == g) for i in range(len(columns[0]))]
            for g in range(max(groups) + 1)
        ]
    return np.stack([feature for features in columns for feature in features], axis=1)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    store, values = make_recording(tmp_path_factory.mktemp("features") / "t.zarr", ROWS, COLUMNS, 8, "exact")
    return store.recording(), values


def contiguous(count, seed):
    return np.sort(np.append(np.random.default_rng(seed).integers(0, count, COLUMNS - count), np.arange(count)))


def scattered(count, seed):
    return np.random.default_rng(seed).permutation(contiguous(count, seed))


@settings(max_examples=60, deadline=None)
@given(
    lags=st.sampled_from([0, 1]),
    lr_scale=st.booleans(),
    grouping=st.sampled_from([None, contiguous, scattered]),
    count=st.integers(1, 20),
    width=st.one_of(st.none(), st.integers(1, 60)),
    height=st.integers(1, 30),
    prefetch=st.integers(0, 2),
)
def test_features_are_those_of_the_definition(recorded, lags, lr_scale, grouping, count, width, height, prefetch):
    reader, values = recorded
    groups = None if grouping is None else grouping(count, count)
    lr = [scalars(row)["lr"] for row in range(ROWS)] if lr_scale else None
    expected = expected_features(values, lags, groups, lr)
    source = FeatureSource(reader, lags=lags, groups=groups, lr_scale=lr_scale, prefetch=prefetch)
    assert (source.num_rows, source.num_columns) == expected.shape
    # A product and a division in float32, and one rounding of a sum in float64.
    tolerance = 4 * np.finfo(np.float32).eps

    blocks = list(source.blocks(width))
    used = width or source.block_width
    assert [start for start, _ in blocks] == list(range(0, source.num_columns, used))
    whole = np.concatenate([block for _, block in blocks], axis=1)
    # Products of both signs may cancel in a group: the error is relative to the sum of their sizes.
    size = expected_features(np.abs(values), lags, groups, lr)
    assert (np.abs(whole - expected) <= tolerance * size + 1e-44).all()
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for _, block in blocks)

    start, stop = sorted((count % source.num_columns, source.num_columns // 2))
    assert np.array_equal(source.read(start, stop), whole[:, start:stop])

    rows = list(source.row_blocks(height))
    assert [start for start, _ in rows] == list(range(0, source.num_rows, height))
    assert all(len(block) == min(height, source.num_rows - start) for start, block in rows)
    assert np.array_equal(np.concatenate([block for _, block in rows]), whole)


@pytest.mark.parametrize("lags", [0, 1])
def test_target_is_the_loss_change_of_the_same_rows(recorded, lags):
    source = FeatureSource(recorded[0], lags=lags)
    expected = [scalars(row)["loss_after"] - scalars(row)["loss_before"] for row in range(lags, ROWS)]
    assert source.target.tolist() == expected


def test_blocks_in_a_given_order(recorded):
    source = FeatureSource(recorded[0], lags=1)
    order = [(4, "a"), (0, "b"), (7, "c")]
    found = list(source.map_blocks(lambda first, block, name: (first, block.shape[1], name), order, 20, 2))
    assert found == [(80, 20, "a"), (0, 20, "b"), (140, 10, "c")]


def test_bytes_read_grow_by_the_store_with_each_pass(recorded):
    source = FeatureSource(recorded[0])
    before = source.bytes_read
    list(source.blocks())
    first = source.bytes_read - before
    list(source.blocks())
    assert source.bytes_read - before == 2 * first > 0


@pytest.mark.parametrize("groups", [np.zeros(COLUMNS - 1, int), np.zeros(COLUMNS), np.full(COLUMNS, -1)])
def test_groups_that_are_none(recorded, groups):
    with pytest.raises(ValueError, match="groups are"):
        FeatureSource(recorded[0], groups=groups)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [{}, {"lags": 1}, {"lr_scale": True}, {"groups": np.arange(30) // 2}])
def test_a_square_that_overflows_is_infinite_without_a_warning(tmp_path, monkeypatch, options):
    import store_builders

    values = store_builders.make_rows(9, 30)
    values[5, 21] = 1e25
    monkeypatch.setattr(store_builders, "make_rows", lambda *_: values)
    store, _ = make_recording(tmp_path / "t.zarr", 9, 30, 4)
    source = FeatureSource(store.recording(), **options)
    assert np.isinf(source.read(0, source.num_columns)).any()
    assert any(np.isinf(block).any() for _, block in source.row_blocks(4))


def test_a_stored_value_that_is_not_finite_is_named(tmp_path, monkeypatch):
    """Nothing of ours writes one; a store from elsewhere may hold it."""
    import causalprune.trajectory.shard as shard

    monkeypatch.setattr(shard, "_require_finite", lambda *_: None)
    import store_builders

    values = store_builders.make_rows(9, 30)
    values[5, 21] = np.inf
    monkeypatch.setattr(store_builders, "make_rows", lambda *_: values)
    store, _ = make_recording(tmp_path / "t.zarr", 9, 30, 4)
    source = FeatureSource(store.recording())
    for read in (lambda: source.read(0, 30), lambda: list(source.blocks()), lambda: list(source.row_blocks(4))):
        with pytest.raises(DataError, match=r"row 5, layer0\.weight\[21\].*found inf"):
            read()
