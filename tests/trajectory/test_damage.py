"""Damage to any file of a store is an error that names the file, or changes nothing that is read."""

import json
import re

import google_crc32c
import numpy as np
import pytest
from store_builders import make_recording, tree

from causalprune.base.errors import CausalpruneError, CorruptError, DataError
from causalprune.trajectory import Store
from causalprune.trajectory.zarr_files import attributes_checksum


def everything(path):
    """All that a reader gets out of a store."""
    store = Store.open(path)
    reader = store.recording("000")
    fit = reader.read_fit("default")
    return [
        store.index,
        store.model,
        store.start_sha256,
        reader.info,
        reader.finished,
        reader.active.tobytes(),
        reader.read_columns(0, reader.num_columns).tobytes(),
        reader.steps.to_matrix().tobytes(),
        {name: values.tobytes() for name, values in fit.arrays.items()},
        fit.attributes,
        {name: values.tobytes() for name, values in reader.read_layer_statistics().arrays.items()},
        reader.read_layer_statistics().attributes,
    ]


@pytest.fixture
def path(tmp_path):
    store, _ = make_recording(tmp_path / "t.zarr", rows=11, columns=40, block_rows=4, statistics=True)
    store.fits().write("default", {"gamma": np.linspace(-1, 1, 40), "mask": np.arange(40) % 3 == 0}, {"alpha": 0.5})
    return store.path


FILES = [
    "zarr.json",
    "recordings/zarr.json",
    "recordings/000/zarr.json",
    "recordings/000/active/c.0",
    "recordings/000/active/zarr.json",
    "recordings/000/delta/c.0.0",
    "recordings/000/delta/c.1.0",
    "recordings/000/delta/c.2.0",
    "recordings/000/delta/commits.log",
    "recordings/000/delta/zarr.json",
    "recordings/000/fits/zarr.json",
    "recordings/000/fits/default/zarr.json",
    "recordings/000/fits/default/gamma/c.0",
    "recordings/000/fits/default/gamma/zarr.json",
    "recordings/000/fits/default/mask/c.0",
    "recordings/000/fits/default/mask/zarr.json",
    "recordings/000/layer_statistics/zarr.json",
    "recordings/000/layer_statistics/inputs/c.0",
    "recordings/000/layer_statistics/inputs/zarr.json",
    "recordings/000/layer_statistics/means/c.0",
    "recordings/000/layer_statistics/means/zarr.json",
    "recordings/000/steps/c.0.0",
    "recordings/000/steps/zarr.json",
]
ONLY_FOR_OTHERS = ("recordings/000/fits/zarr.json", "recordings/000/steps/c.0.0", "recordings/000/steps/zarr.json")
"""What only other readers use, so that verify alone looks at it."""


def problems(path):
    try:
        return Store.open(path).verify()
    except CausalpruneError as error:
        return [f"{error}"]


def test_the_list_of_files_is_complete(path):
    assert sorted(tree(path)) == sorted(FILES)
    assert problems(path) == []


def outcome(path):
    """What a reader gets, or the error."""
    try:
        return everything(path)
    except CausalpruneError as error:
        return f"{error}"


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit(path, name):
    """Every bit of small files, every seventh byte of others: an error that names the file, or the same content."""
    before = everything(path)
    file = path / name
    good = file.read_bytes()
    silent = 0
    for position in range(0, len(good), 1 if len(good) < 300 else 7):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        file.write_bytes(bad)
        found, after = problems(path), outcome(path)
        if isinstance(after, str):
            assert found, f"verify misses byte {position}: {after}"
            assert name.rpartition("/")[0].split("/")[-1] in after
        else:
            assert after == before
            assert found == [] or name in ONLY_FOR_OTHERS
            silent += not found
    if not name.endswith("json"):
        assert silent == 0


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(path, name):
    (path / name).unlink()
    found = problems(path)
    assert len(found) == 1
    assert name.rpartition("/")[2] in found[0]
    if name not in ONLY_FOR_OTHERS:
        with pytest.raises(CorruptError, match=re.escape(name.rpartition("/")[2])):
            everything(path)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(path, name):
    good = (path / name).read_bytes()
    last_line = good.rstrip(b"\n").rfind(b"\n")
    for length in {0, 1, len(good) // 2, len(good) - 2}:
        if name.endswith("commits.log") and length > last_line:
            continue  # test_a_finished_recording_without_the_end_of_its_log_is_noticed
        (path / name).write_bytes(good[:length])
        assert problems(path), length
        if name not in ONLY_FOR_OTHERS:
            with pytest.raises(CausalpruneError):
                everything(path)


def test_a_missing_chunk_is_never_zeros(path):
    """An index entry that says 'no such chunk' is what Zarr reads as the fill value."""
    file = path / "recordings/000/delta/c.1.0"
    data = bytearray(file.read_bytes())
    data[-20:-4] = b"\xff" * 16
    data[-4:] = google_crc32c.value(bytes(data[-20:-4])).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(CorruptError, match=r"c\.1\.0 index"):
        everything(path)


def test_a_shard_of_another_row_is_not_accepted(path):
    shards = [path / f"recordings/000/delta/c.{i}.0" for i in (0, 1)]
    first, second = (shard.read_bytes() for shard in shards)
    shards[0].write_bytes(second)
    shards[1].write_bytes(first)
    with pytest.raises(CorruptError, match=r"c\.0\.0"):
        everything(path)


def test_lines_of_the_log_cannot_be_removed_moved_or_borrowed(path, tmp_path):
    log = path / "recordings/000/delta/commits.log"
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    make_recording(tmp_path / "other", rows=11, columns=40, block_rows=4, codec="small")
    other = (tmp_path / "other/recordings/000/delta/commits.log").read_bytes()
    for bad in (lines[1:], lines[:1] + lines[2:], [lines[1], lines[0], *lines[2:]], [*lines, lines[-1]], [other]):
        log.write_bytes(b"".join(bad))
        with pytest.raises(CorruptError, match=r"commits\.log line"):
            everything(path)


def test_a_finished_recording_without_the_end_of_its_log_is_noticed(path):
    log = path / "recordings/000/delta/commits.log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]))
    with pytest.raises(CorruptError, match=r"commits\.log"):
        everything(path)
    assert len(problems(path)) == 1
    # Without the line that says so alone, it is what a crash at that moment leaves.
    log.write_bytes(b"".join(lines[:3]))
    assert Store.open(path).recording().finished is False
    assert problems(path) == []


def edit(path, change, *, seal=True):
    document = json.loads(path.read_text())
    change(document)
    if seal:
        ours = document["attributes"]["causalprune"]
        ours["checksum"] = f"{attributes_checksum(ours):08x}"
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 6, "update causalprune"),
        ("codec", "pickle", "codec"),
        ("columns", 10**18, "columns"),
        ("columns", 0, "columns"),
        ("columns", -1, "columns"),
        ("columns", "40", "columns"),
        ("block_rows", 10**9, "block rows"),
        ("chunk_width", 10**12, "chunk"),
        ("max_rows", 10**18, "rows"),
        ("max_rows", 1.5, "rows"),
        ("active_crc32c", None, "checksum"),
        ("info", {}, "how the recording was made"),
        ("info", None, "how the recording was made"),
    ],
)
def test_absurd_metadata_of_a_recording_with_a_valid_checksum(path, key, value, message):
    edit(path / "recordings/000/zarr.json", lambda d: d["attributes"]["causalprune"].__setitem__(key, value))
    with pytest.raises(CorruptError, match=message):
        Store.open(path).recording()


def test_more_columns_than_parameters(path):
    edit(
        path / "zarr.json",
        lambda d: d["attributes"]["causalprune"]["index"].__setitem__(
            0, {"name": "w", "shape": [39], "filter_axis": 0}
        ),
    )
    with pytest.raises(CorruptError, match="at most 39 columns"):
        Store.open(path).recording()


@pytest.mark.parametrize("shape", [[10**18, 40], [12, 40], [11, 41], [11], None, [10, 40]])
def test_a_shape_that_contradicts_the_log(path, shape):
    edit(path / "recordings/000/delta/zarr.json", lambda d: d.__setitem__("shape", shape), seal=False)
    with pytest.raises(CorruptError, match="delta"):
        Store.open(path).recording()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\x80\x04pickle", b'{"zarr_format": 2}', b'{"a": 1e999}'])
def test_metadata_that_is_something_else(path, data):
    for name in ("zarr.json", "recordings/000/zarr.json", "recordings/000/delta/zarr.json"):
        good = (path / name).read_bytes()
        (path / name).write_bytes(data)
        with pytest.raises(CorruptError, match=re.escape(name)):
            everything(path)
        (path / name).write_bytes(good)


def test_paths_that_are_no_store(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, error in (("missing", DataError), ("file", DataError), ("empty", CorruptError)):
        with pytest.raises(error):
            Store.open(tmp_path / name)


def test_a_store_of_other_codec_parameters(tmp_path):
    """As an earlier version wrote: said where it differs, and what to do."""
    store, _ = make_recording(tmp_path / "t")
    path = tmp_path / "t/recordings/000/delta/zarr.json"
    text = path.read_text()
    path.write_text(text.replace('"blocksize": 0', '"blocksize": 1234'))
    assert path.read_text() != text
    with pytest.raises(CorruptError, match=r"blocksize 0, found 1234; .* must be recorded again"):
        store.recording()
