"""A random share of the columns: drawn by a hash that anybody can compute, kept by whatever rewrites the store."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from store_builders import INFO, append_rows, make_index, make_rows, make_store, tree

from causalprune.base.errors import MismatchError, UsageError
from causalprune.trajectory import Store
from causalprune.trajectory.columns.sample import ColumnSample
from causalprune.trajectory.maintenance import Merge, recode

SIZES = (40, 1, 300, 3)
ALL = np.ones(sum(SIZES), bool)


def splitmix64(state):
    """The generator as its authors print it, with Python's integers."""
    mask = 2**64 - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def test_the_reference_is_the_published_generator():
    outputs = splitmix64(1234567)
    assert [next(outputs) for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.5, 7), (0.004, 0)])
def test_the_columns_of_a_layer_are_those_with_the_lowest_hashes(share, seed):
    candidates = np.random.default_rng(3).random(sum(SIZES)) < 0.8
    start = int.from_bytes(hashlib.sha256(f"causalprune columns {seed}".encode()).digest()[:8], "little")
    outputs = splitmix64(start)
    hashes = [next(outputs) for _ in range(sum(SIZES))]
    expected, offset = [], 0
    for size in SIZES:
        own = [position for position in range(offset, offset + size) if candidates[position]]
        count = max(1, round(share * len(own))) if own else 0
        expected += sorted(sorted(own, key=hashes.__getitem__)[:count])
        offset += size
    drawn = ColumnSample(share, seed).draw(make_index(*SIZES), candidates)
    assert np.flatnonzero(drawn).tolist() == expected


def test_a_smaller_share_is_part_of_a_larger_one_and_another_seed_draws_others():
    index = make_index(*SIZES)
    small, large, other = (ColumnSample(*a).draw(index, ALL) for a in ((0.1, 0), (0.3, 0), (0.3, 1)))
    assert not (small & ~large).any()
    assert (large != other).any()
    # About share² of the weights are in both.
    assert (large & other).sum() < 0.2 * sum(SIZES)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_shares_out_of_range(share):
    with pytest.raises(UsageError, match="a share above 0 and below 1"):
        ColumnSample(share)


def sampled(path, sample, values, candidates=ALL, info=INFO):
    """A recording of the columns that are drawn of ``values`` (T, P)."""
    store = make_store(path, *SIZES)
    active = candidates if sample is None else sample.draw(store.index, candidates)
    with store.create_recording(replace(info, sample=sample), candidates, codec="exact", max_rows=9) as writer:
        append_rows(writer, values[:, active])
        writer.finish()
    return store


def test_a_reader_knows_what_the_columns_are_and_what_was_pruned(tmp_path):
    values, sample = make_rows(9, sum(SIZES)), ColumnSample(0.1, 5)
    candidates = np.arange(sum(SIZES)) % 3 != 0
    reader = sampled(tmp_path / "t.zarr", sample, values, candidates).recording()
    assert np.array_equal(reader.read_rows(0, 9), values[:, reader.column_index])
    assert (reader.info.sample, reader.schema.format_version, reader.verify()) == (sample, 5, [])
    assert np.array_equal(reader.kept, candidates)
    assert reader.has_columns_of(candidates)
    assert not reader.has_columns_of(ALL)
    assert (
        reader.coverage == f"{reader.num_columns} of {candidates.sum()} weights, 10% of each layer, drawn with seed 5"
    )
    folder = reader.path.path
    expected = sum(p.stat().st_size for name in ("active", "candidates") for p in (folder / name).iterdir())
    assert reader.mask_bytes == expected


def test_without_a_share_nothing_in_the_store_has_changed(tmp_path):
    values = make_rows(9, sum(SIZES))
    folder = sampled(tmp_path / "t.zarr", None, values).recording().path.path
    assert not (folder / "candidates").exists()
    text = (folder / "zarr.json").read_text()
    assert '"format_version": 2' in text
    assert "sample" not in text


def test_columns_that_are_not_those_drawn_are_found(tmp_path, monkeypatch):
    store = sampled(tmp_path / "t.zarr", ColumnSample(0.1), make_rows(9, sum(SIZES)))
    with monkeypatch.context() as patch:
        patch.setattr(ColumnSample, "draw", lambda self, index, candidates: ~candidates)
        assert "a share of 0.1 drawn with seed 0, found other columns" in "\n".join(store.verify())
    file = store.recording().path.path / "candidates" / "c.0"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert "candidates" in "\n".join(store.verify())


def test_compacting_and_merging_keep_the_sample(tmp_path):
    values, sample = make_rows(9, sum(SIZES)), ColumnSample(0.2, 1)
    parts = [sampled(tmp_path / name, sample, values + seed) for seed, name in enumerate("ab")]
    one = parts[0].recording()
    Merge.of(parts).write(tmp_path / "merged")
    merged = Store.open(tmp_path / "merged").recording()
    assert (merged.info.sample, merged.num_rows, merged.verify()) == (sample, 18, [])
    assert np.array_equal(merged.column_index, one.column_index)
    assert np.array_equal(merged.read_rows(0, 9), one.read_rows(0, 9))
    before = tree(tmp_path / "a/recordings/000/candidates")
    recode(parts[0], "000", "small")
    again = Store.open(tmp_path / "a").recording()
    assert (again.info.sample, again.codec, again.verify()) == (sample, "small", [])
    assert tree(tmp_path / "a/recordings/000/candidates") == before


def test_recordings_of_other_columns_can_not_be_merged(tmp_path):
    values = make_rows(9, sum(SIZES))
    first = sampled(tmp_path / "a", ColumnSample(0.2, 1), values)
    for name, sample in {"seed": ColumnSample(0.2, 2), "share": ColumnSample(0.1, 1), "whole": None}.items():
        with pytest.raises(MismatchError, match="the sample of columns of"):
            Merge.of([first, sampled(tmp_path / name, sample, values)])
