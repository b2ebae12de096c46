"""Scalars that a recording declares beside the usual ones, and the bytes of a recording that declares none."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_builders import INFO, append_rows, make_recording, make_rows, make_store, scalars, tree

from causalprune.base.errors import MismatchError, NewerFormatError, UsageError
from causalprune.trajectory import Store, zarr_files
from causalprune.trajectory.export import export_recording
from causalprune.trajectory.maintenance import Merge, recode
from causalprune.trajectory.steps.learning_rates import ParameterGroup

VERSION_2 = Path(__file__).parents[1] / "compatibility/files/version-2.zarr"
DECLARED = replace(INFO, step_scalars=("wind", "lr.1"))


def declared(row):
    return {"wind": 1 / (row + 7), "lr.1": 0.1 * 3**-row}


def make_declaring(path, rows=11, *, seed=0):
    store, values = make_store(path, 20), make_rows(rows, 20, seed)
    writer = store.create_recording(DECLARED, np.ones(20, bool), max_rows=rows, block_rows=4, codec="exact")
    for row in range(rows):
        writer.append(values[row], **scalars(row), **declared(row))
    writer.finish()
    return store, values


def test_without_declared_scalars_every_byte_is_that_of_version_2(tmp_path):
    make_recording(tmp_path / "t.zarr", rows=6, columns=40, block_rows=4, codec="exact")
    made, stored = tree(tmp_path / "t.zarr"), tree(VERSION_2)
    if any(made[name] != stored[name] for name in stored if "/c." in name):
        pytest.skip("this Blosc compresses otherwise than the one that wrote the files")
    assert made == stored


def test_declared_scalars_are_read_exported_and_verified(tmp_path):
    store, _ = make_declaring(tmp_path / "t.zarr")
    reader = store.recording()
    for name in ("wind", "lr.1"):
        assert reader.steps[name].tolist() == [declared(row)[name] for row in range(11)]
    assert reader.steps.lr.tolist() == [scalars(row)["lr"] for row in range(11)]
    assert reader.steps.row(3) == scalars(3) | declared(3)
    assert store.verify() == []
    export_recording(reader, tmp_path / "t.npz")
    assert np.load(tmp_path / "t.npz")["wind"].tolist() == reader.steps["wind"].tolist()
    assert np.array_equal(store.zarr()["recordings/000/steps"][...], reader.steps.to_matrix())
    with pytest.raises(KeyError):
        reader.steps["rain"]


def test_a_reader_of_version_2_refuses_a_recording_with_declared_scalars(tmp_path, monkeypatch):
    make_declaring(tmp_path / "t.zarr")
    document = json.loads((tmp_path / "t.zarr/recordings/000/zarr.json").read_text())
    assert document["attributes"]["causalprune"]["format_version"] == 3
    monkeypatch.setitem(zarr_files.FORMAT_VERSIONS, "recording", 2)
    with pytest.raises(NewerFormatError, match="expected format version 2 or older, found 3; update causalprune"):
        Store.open(tmp_path / "t.zarr").recording()


def test_declared_scalars_survive_a_resume_in_the_middle_of_a_shard(tmp_path):
    _, values = make_declaring(tmp_path / "t.zarr")
    expected = tree(tmp_path / "t.zarr")
    with Store.open(tmp_path / "t.zarr").resume_recording("000", rows=6) as writer:
        for row in range(6, 11):
            writer.append(values[row], **scalars(row), **declared(row))
        writer.finish()
    assert tree(tmp_path / "t.zarr") == expected


def test_declared_scalars_survive_another_codec_and_a_merge(tmp_path):
    stores = [make_declaring(tmp_path / f"{seed}.zarr", seed=seed)[0] for seed in (0, 1)]
    recode(stores[0], "000", "small")
    Merge.of(stores).write(tmp_path / "merged.zarr")
    steps = Store.open(tmp_path / "merged.zarr").recording().steps
    assert steps["wind"].tolist() == 2 * [declared(row)["wind"] for row in range(11)]
    other, _ = make_recording(tmp_path / "other.zarr", rows=4, columns=20, codec="exact")
    with pytest.raises(MismatchError, match="expected the scalars of"):
        Merge.of([stores[0], other])


def test_rows_have_all_declared_scalars_and_no_others(tmp_path):
    values = make_rows(1, 20)
    with make_store(tmp_path / "t.zarr", 20).create_recording(DECLARED, np.ones(20, bool)) as writer:
        with pytest.raises(ValueError, match=r"scalars \[\], not \['lr.1', 'wind'\]"):
            append_rows(writer, values)
        assert writer.rows_appended == 0


def test_groups_without_their_rates_are_refused():
    with pytest.raises(UsageError, match="those of each parameter group"):
        replace(INFO, groups=(ParameterGroup(("a",), 0.1), ParameterGroup(("b",), 0.2)), step_scalars=("lr.0", "lr.1"))


@pytest.mark.parametrize("names", [("lr",), ("wind", "wind")])
def test_a_name_has_one_meaning(names):
    with pytest.raises(UsageError, match="distinct new names"):
        replace(INFO, step_scalars=names)
