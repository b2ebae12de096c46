"""The codec ``small`` of a recording from before it was changed, and of a new one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import blosc
from store_builders import INFO, append_rows, make_recording, make_rows, make_store, scalars, tree

from causalprune.base.errors import NewerFormatError
from causalprune.trajectory import Store, zarr_files
from causalprune.trajectory.codec import find_codec
from causalprune.trajectory.maintenance import Merge, recode

VERSION_3 = Path(__file__).parents[1] / "compatibility/files/version-3.zarr"
"""11 rows of 1,500 columns, in shards of 8 rows, with the scalar ``wind``."""
ROWS, COLUMNS = 11, 1500


@pytest.fixture
def earlier(tmp_path):
    shutil.copytree(VERSION_3, tmp_path / "earlier")
    return Store.open(tmp_path / "earlier")


def repeating(rows):
    """Deltas of which the levels of a compressor make different bytes."""
    return np.repeat(make_rows(rows, COLUMNS // 5), 5, axis=1)


def attributes(store):
    return json.loads((store.path / "recordings/000/zarr.json").read_text())["attributes"]["causalprune"]


def level(store):
    """As another reader sees it."""
    delta = json.loads((store.path / "recordings/000/delta/zarr.json").read_text())
    return delta["codecs"][0]["configuration"]["codecs"][1]["configuration"]["clevel"]


def rounded(values):
    out = np.empty_like(values)
    find_codec("small").round(values, out)
    return out


def first_chunk(store):
    shard = (store.path / "recordings/000/delta/c.0.0").read_bytes()
    index = np.frombuffer(shard[-20:-4], "<u8")
    return shard[int(index[0]) : int(index.sum()) - 4]


def compressed(values, level):
    """By the library alone."""
    return blosc.compress(np.ascontiguousarray(values), b"zstd", level, blosc.SHUFFLE, 2**20)


def test_an_earlier_recording_is_read(earlier):
    values = rounded(repeating(ROWS))
    reader = earlier.recording()
    assert reader.codec == "small"
    assert earlier.verify() == []
    assert np.array_equal(reader.read_rows(0, ROWS), values)
    assert np.array_equal(reader.read_columns(700, 900), values[:, 700:900])


def test_an_earlier_recording_is_continued_with_its_own_level(earlier):
    values, expected = repeating(ROWS), tree(VERSION_3)
    with earlier.resume_recording("000", rows=6) as writer:
        for row in range(6, ROWS):
            writer.append(values[row], **scalars(row), wind=1 / (row + 7))
        writer.finish()
    assert (attributes(earlier)["format_version"], level(earlier)) == (3, 3)
    if compressed(rounded(values[:8]), 3) != first_chunk(Store.open(VERSION_3)):
        pytest.skip("this Blosc compresses otherwise than the one that wrote the files")
    assert tree(earlier.path) == expected


def test_a_new_recording_has_the_other_level_and_the_fourth_version(tmp_path):
    store, values = make_store(tmp_path / "t", COLUMNS), repeating(ROWS)
    with store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=ROWS, block_rows=8, codec="small") as writer:
        append_rows(writer, values)
        writer.finish()
    assert (attributes(store)["format_version"], level(store)) == (4, 1)
    assert first_chunk(store) == compressed(rounded(values[:8]), 1) != compressed(rounded(values[:8]), 3)
    assert np.array_equal(zarr.open_array(tmp_path / "t/recordings/000/delta", mode="r")[:], rounded(values))
    before = tree(store.path)
    with store.resume_recording("000", rows=6) as writer:
        append_rows(writer, values, 6)
        writer.finish()
    assert tree(store.path) == before


def test_a_reader_of_version_3_says_that_it_is_too_old(tmp_path, monkeypatch):
    store, _ = make_recording(tmp_path / "t", ROWS, COLUMNS, codec="small")
    monkeypatch.setitem(zarr_files.FORMAT_VERSIONS, "recording", 3)
    with pytest.raises(NewerFormatError, match="found 4; update causalprune"):
        store.recording()


@pytest.mark.parametrize("codec", ["exact", "balanced"])
def test_other_codecs_keep_their_version(tmp_path, codec):
    store, _ = make_recording(tmp_path / "t", ROWS, COLUMNS, codec=codec)
    values = store.recording().read_rows(0, ROWS)
    assert attributes(store)["format_version"] == 2
    recode(store, "000", "small")
    assert attributes(store)["format_version"] == 4
    assert np.array_equal(store.recording().read_rows(0, ROWS), rounded(values))


def test_an_earlier_recording_that_is_compacted_is_a_new_one(earlier):
    values = earlier.recording().read_rows(0, ROWS)
    recode(earlier, "000", "small")
    assert (attributes(earlier)["format_version"], level(earlier)) == (4, 1)
    assert np.array_equal(earlier.recording().read_rows(0, ROWS), values)


def test_a_merge_made_before_is_the_one_that_is_asked_for(tmp_path):
    """The merged recording of an earlier version has the other level; nothing about it is wrong."""
    parts = []
    for seed in (0, 1):
        store = make_store(tmp_path / f"{seed}", COLUMNS)
        info = replace(INFO, seed=seed)
        with store.create_recording(info, np.ones(COLUMNS, bool), max_rows=4, codec="small") as writer:
            append_rows(writer, make_rows(4, COLUMNS, seed))
            writer.finish()
        parts.append(store)
    merge = Merge.of(parts)
    merge.write(tmp_path / "merged")
    merged = Store.open(tmp_path / "merged")
    old = replace(merged.recording().schema, codec=find_codec("small", 3))
    assert old.codec.level == 3
    reader = merged.recording()
    reader.schema = old
    assert merge.made(reader)
