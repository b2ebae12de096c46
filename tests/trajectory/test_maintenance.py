"""Compacting and merging: the rows are those of the sources, and a crash at any moment loses nothing."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from faulty_disk import FREEING, FaultyDisk
from hypothesis import given, settings
from hypothesis import strategies as st
from store_builders import INFO, append_rows, make_recording, make_rows, make_store, tree

from causalprune.base import files
from causalprune.base.errors import DataError, LockedError, MismatchError, StorageError, UsageError
from causalprune.solver.features import FeatureSource
from causalprune.trajectory import Store
from causalprune.trajectory.codec import find_codec
from causalprune.trajectory.maintenance import Merge, recode
from causalprune.trajectory.names import CODECS


def rounded(values, codec):
    out = np.empty_like(values)
    find_codec(codec).round(values, out)
    return out


def record(store, values, active=None, info=INFO, **options):
    active = np.ones(store.index.total, bool) if active is None else active
    options = {"codec": "exact", "block_rows": 4, "max_rows": len(values), **options}
    with store.create_recording(info, active, **options) as writer:
        append_rows(writer, values)
        writer.finish()


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_recoding_is_recording_with_that_codec(tmp_path, codec):
    """Byte for byte, the fits and the layers' statistics beside it; only the metadata says what it was."""
    arrays = {"gamma": np.linspace(-1, 1, 50), "mask": np.arange(50) % 3 == 0}
    for name, own in (("expected", codec), ("recoded", "exact")):
        store, _ = make_recording(tmp_path / name, codec=own, statistics=True)
        store.fits().write("default", arrays, {"alpha": 0.5})
    before = store.recording("000").digest
    recode(store, "000", codec)
    found, expected = tree(tmp_path / "recoded"), tree(tmp_path / "expected")
    assert found.keys() == expected.keys()
    # The log's checksums begin with that of the metadata.
    noting = {name for name in found if found[name] != expected[name]}
    assert {name.rpartition("/")[2] for name in noting} == ({"zarr.json", "commits.log"} if codec != "exact" else set())
    assert store.recording("000").info.earlier_digests == ((before,) if codec != "exact" else ())


def test_recoding_neither_invents_bits_nor_touches_an_unfinished_recording(tmp_path):
    store, values = make_recording(tmp_path / "t.zarr", codec="small")
    before = tree(store.path)
    for codec in ("balanced", "exact"):
        with pytest.raises(UsageError, match="keeps at most the 7 mantissa bits"):
            recode(store, "000", codec)
    with pytest.raises(DataError, match="'007'"):
        recode(store, "007", "small")
    with store.create_recording(INFO, np.ones(50, bool), max_rows=30) as writer:
        with pytest.raises(LockedError):
            recode(store, "000", "small")
        append_rows(writer, values)
    with pytest.raises(DataError, match="finished"):
        recode(store, "001", "small")
    store.delete_recording("001")
    assert tree(store.path) == before


def test_no_space_at_any_change_of_a_recoding(tmp_path):
    """Afterwards the recording is the old or the new one, as a reader sees it, and doing it again succeeds."""
    original, values = make_recording(tmp_path / "original", rows=10, columns=20, block_rows=4, codec="exact")
    original.fits().write("f", {"gamma": np.ones(20)}, {})
    shutil.copytree(tmp_path / "original", tmp_path / "expected")
    recode(Store.open(tmp_path / "expected"), "000", "small")
    number = 0
    while True:
        number += 1
        path = tmp_path / f"{number}"
        shutil.copytree(tmp_path / "original", path)
        store = Store.open(path)
        disk = FaultyDisk("ENOSPC", number)
        with files.use(disk):
            try:
                recode(store, "000", "small")
                failed = False
            except StorageError:
                failed = True
        if number > len(disk.changes):
            break
        if disk.changes[number - 1] in FREEING:
            continue
        store = Store.open(path)
        assert store.verify() == []
        reader = store.recording("000")
        assert np.array_equal(reader.read_rows(0, 10), values if reader.codec == "exact" else rounded(values, "small"))
        assert reader.fits == ("f",)
        recode(store, "000", "small")
        assert tree(path) == tree(tmp_path / "expected"), number
        assert failed
        shutil.rmtree(path)
    assert number > 20


def test_a_crash_between_the_two_renames(tmp_path):
    store, values = make_recording(tmp_path / "t.zarr", codec="exact")
    root = store.path / "recordings"
    (root / "000").rename(root / ".000.replaced")
    store = Store.open(store.path)
    assert store.recordings == ("000",)
    assert store.verify() == []
    assert np.array_equal(store.recording().read_rows(0, len(values)), values)
    record(store, values)
    assert store.recordings == ("000", "001")
    assert not (root / ".000.replaced").exists()
    # And the crash just before the old one was deleted.
    shutil.copytree(root / "000", root / ".000.replaced")
    store.delete_recording("001")
    assert sorted(p.name for p in root.iterdir()) == ["000", "zarr.json"]


def merge(sources, path, codec=None):
    """The recording of the store that a merge makes."""
    Merge.of([Store.open(source) for source in sources], codec).write(path)
    return Store.open(path).recording()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(1, 20), min_size=2, max_size=4),
    blocks=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    codecs=st.lists(st.sampled_from(sorted(CODECS)), min_size=4, max_size=4),
    seed=st.integers(0, 2**16),
)
def test_a_merged_store_is_its_parts_stacked(tmp_path_factory, rows, blocks, codecs, seed):
    path = tmp_path_factory.mktemp("merge")
    active = np.random.default_rng(seed).random(30) < 0.6
    active[seed % 30] = True
    parts = []
    for number, count in enumerate(rows):
        values = make_rows(count, int(active.sum()), seed + number)
        store = make_store(path / f"{number}", 13, 17)
        info = replace(INFO, seed=number)
        record(store, values, active, info, codec=codecs[number], block_rows=blocks[number])
        parts.append(rounded(values, codecs[number]))
    sources = [path / f"{number}" for number in range(len(rows))]
    merged = merge(sources, path / "merged")
    readers = [Store.open(source).recording() for source in sources]
    assert merged.verify() == []
    assert merged.finished
    assert merged.read_rows(0, merged.num_rows).tobytes() == np.concatenate(parts).tobytes()
    assert np.array_equal(merged.active, active)
    assert np.array_equal(merged.steps.to_matrix(), np.hstack([reader.steps.to_matrix() for reader in readers]))
    assert [part["seed"] for part in merged.info.extra["merged"]] == list(range(len(rows)))
    assert [part["digest"] for part in merged.info.extra["merged"]] == [reader.digest for reader in readers]
    stacked = np.concatenate([FeatureSource(reader).read(0, reader.num_columns) for reader in readers])
    source = FeatureSource(merged)
    assert np.array_equal(source.read(0, merged.num_columns), stacked)
    assert np.array_equal(source.target, np.concatenate([reader.loss_change for reader in readers]))


def test_what_was_not_trained_is_known_after_recoding_and_merging(tmp_path):
    for name, untrained in (("a", ("layer0.weight", "layer1.weight")), ("b", ("layer1.weight", "layer2.weight"))):
        store = make_store(tmp_path / name, 4, 3, 3)
        with store.create_recording(INFO, np.ones(10, bool), codec="exact", max_rows=6) as writer:
            writer.untrained = untrained
            append_rows(writer, make_rows(6, 10))
            writer.finish()
    recode(store, "000", "small")
    assert store.recording().untrained == ("layer1.weight", "layer2.weight")
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c").untrained == ("layer1.weight",)


def test_what_can_not_be_merged(tmp_path):
    values = make_rows(6, 10)
    for name, info in {
        "a": INFO,
        "next": replace(INFO, loss_change="next-batch"),
        "stride": replace(INFO, stride=2),
        "momentum": replace(INFO, momentum=0.9),
    }.items():
        record(make_store(tmp_path / name, 10), values, info=info)
    pruned = np.arange(10) != 3
    record(make_store(tmp_path / "mask", 10), values[:, pruned], pruned)
    record(make_store(tmp_path / "shape", 4, 6), values)
    make_store(tmp_path / "empty", 10)
    with make_store(tmp_path / "begun", 10).create_recording(INFO, np.ones(10, bool), max_rows=9) as writer:
        append_rows(writer, values)
    for name, error, match in (
        ("next", MismatchError, "loss_change"),
        ("stride", MismatchError, "stride"),
        ("momentum", MismatchError, "momentum"),
        ("mask", MismatchError, "unpruned parameters"),
        ("shape", MismatchError, "prunable parameters"),
        ("empty", DataError, "expected a recording"),
        ("begun", DataError, "finished"),
        ("absent", DataError, "nothing"),
    ):
        with pytest.raises(error, match=match):
            merge([tmp_path / "a", tmp_path / name], tmp_path / "merged")
        assert not (tmp_path / "merged").exists()


def test_a_merge_that_was_killed_is_done_anew(tmp_path):
    for name in ("a", "b"):
        make_recording(tmp_path / name, codec="exact")
    leftover = tmp_path / ".merged.partial-77-0"
    shutil.copytree(tmp_path / "a", leftover)
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged", codec="small").codec == "small"
    assert not leftover.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "merged"]


def test_a_compacted_recording_is_known_by_what_it_was(tmp_path):
    store, _ = make_recording(tmp_path / "a", codec="exact")
    digests = [store.recording("000").digest]
    for codec in ("balanced", "small"):
        recode(store, "000", codec)
        digests.append(store.recording("000").digest)
    reader = store.recording("000")
    assert len(set(digests)) == 3
    assert reader.digests == set(digests)
    assert reader.first_digest == digests[0]
    assert reader.verify() == []


def test_a_merge_of_parts_that_were_compacted_since_is_the_same(tmp_path):
    for name in ("a", "b"):
        make_recording(tmp_path / name, codec="exact")
    parts = [tmp_path / "a", tmp_path / "b"]
    merged = merge(parts, tmp_path / "merged")
    recode(Store.open(tmp_path / "a"), "000", "small")
    stores = [Store.open(part) for part in parts]
    assert Merge.of(stores).made(merged)
    # And if it was itself.
    recode(Store.open(tmp_path / "merged"), "000", "small")
    assert Merge.of(stores).made(Store.open(tmp_path / "merged").recording("000"))
    assert "compacted" not in Merge.of(stores).info.extra
    record_other = make_recording(tmp_path / "c", codec="exact", rows=7)[0]
    assert not Merge.of([stores[0], record_other]).made(merged)
