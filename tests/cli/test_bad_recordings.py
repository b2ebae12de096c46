"""Recordings that no fit can be made of, stores that contradict themselves: one line and the documented exit code."""

import json

import google_crc32c
import numpy as np
import pytest
from causalprune_cli.main import main
from numcodecs import blosc

from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, Store
from causalprune.trajectory.zarr_files import attributes_checksum

ROWS, COLUMNS = 6, 10


def make(path, *, change=None, delta=None, rows=ROWS, finish=True, momentum=0.0):
    """A recording with the loss change and the deltas of each row."""
    index = ParameterIndex.from_json([{"name": "fc.weight", "shape": [2, 5], "filter_axis": 0}])
    store = Store.create(path, index=index, model={}, start_sha256="ab")
    info = RecordingInfo(lr=0.1, momentum=momentum, batch_size=1, seed=0, start_sha256="ab", identity="")
    rng = np.random.default_rng(0)
    change = rng.standard_normal(rows) if change is None else change
    delta = rng.standard_normal((rows, COLUMNS)) if delta is None else delta
    writer = store.create_recording(info, np.ones(COLUMNS, bool), max_rows=max(rows, 1), codec="exact", block_rows=2)
    for row in range(rows):
        loss = {"loss_before": 1.0, "loss_after": 1.0 + change[row], "lr": 0.1, "epoch": 0, "batch": row}
        writer.append(delta[row].astype(np.float32), **loss, grad_norm=1.0)
    writer.finish() if finish else writer.close()
    return path


def refused(capsys, code, *args, says):
    capsys.readouterr()
    assert main([*map(str, args), "--quiet"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    assert says in captured.err


@pytest.mark.parametrize(
    ("recording", "options", "code", "says"),
    [
        ({"rows": 0, "finish": False}, [], 3, "rows"),
        ({"rows": 1}, [], 3, "at least 2"),
        ({"rows": 2, "momentum": 0.9}, [], 3, "at least 2"),
        ({"change": np.full(ROWS, -0.25)}, [], 3, "loss"),
        ({"change": np.array([1.0, -1] * 3)}, ["--solver", "sgd", "--preset", "oct-2025"], 3, "mean"),
        ({}, ["--alpha", "0"], 2, "--alpha"),
        ({}, ["--alpha", "nan"], 2, "--alpha"),
        ({}, ["--l1-ratio", "0"], 2, "--l1-ratio"),
        ({}, ["--memory", "0"], 2, "--memory"),
        ({}, ["--name", "../escape"], 2, "name of a fit"),
        ({}, ["--recording", "007"], 3, "007"),
        ({}, ["--recording", "../../etc"], 3, "etc"),
    ],
    ids=str,
)
def test_no_fit_can_be_made(capsys, tmp_path, recording, options, code, says):
    store = make(tmp_path / "t.zarr", **recording)
    refused(capsys, code, "fit-gamma", "--store", store, *options, says=says)
    assert Store.open(store).recording().fits == ()


def test_all_columns_zero(capsys, tmp_path):
    store = make(tmp_path / "t.zarr", delta=np.zeros((ROWS, COLUMNS)))
    refused(capsys, 3, "fit-gamma", "--store", store, says="zero")


def edit(path, change):
    """Change our attributes and seal them again, as somebody would who wants to be believed."""
    document = json.loads(path.read_text())
    ours = document["attributes"]["causalprune"]
    change(ours)
    ours["checksum"] = f"{attributes_checksum(ours):08x}"
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format_version", 99, "update causalprune"),
        ("codec", "bzip2", "codec"),
        ("codec", "pickle", "codec"),
        ("columns", 10**18, "columns"),
        ("block_rows", 2**40, "rows"),
        ("chunk_width", 10**18, "chunk"),
        ("max_rows", 10**18, "rows"),
    ],
)
def test_metadata_that_cannot_be(capsys, tmp_path, key, value, says):
    store = make(tmp_path / "t.zarr")
    edit(store / "recordings/000/zarr.json", lambda ours: ours.__setitem__(key, value))
    refused(capsys, 4, "fit-gamma", "--store", store, says=says)


def test_a_shape_of_1e18(capsys, tmp_path):
    store = make(tmp_path / "t.zarr")
    edit(store / "zarr.json", lambda ours: ours["index"][0].__setitem__("shape", [10**18]))
    refused(capsys, 4, "fit-gamma", "--store", store, says="zarr.json")


def test_metadata_that_contradict_the_commit_log(capsys, tmp_path):
    store = make(tmp_path / "t.zarr")
    path = store / "recordings/000/delta/zarr.json"
    document = json.loads(path.read_text())
    document["shape"][0] = ROWS + 1
    path.write_text(json.dumps(document))
    refused(capsys, 4, "fit-gamma", "--store", store, says="commit log")


def test_a_codec_that_the_metadata_of_the_array_smuggle_in(capsys, tmp_path):
    store = make(tmp_path / "t.zarr")
    path = store / "recordings/000/delta/zarr.json"
    text = path.read_text()
    assert text.count('"blosc"') == 1
    path.write_text(text.replace('"blosc"', '"pickle"'))
    refused(capsys, 4, "fit-gamma", "--store", store, says="codecs")


def test_a_chunk_that_decompresses_beyond_its_declared_size(capsys, tmp_path):
    """All checksums are right; only Blosc's header tells, before anything is allocated."""
    store = make(tmp_path / "t.zarr")
    log = store / "recordings/000/delta/commits.log"
    blosc.use_threads = False
    bomb = blosc.compress(np.zeros(2**24, np.float32), b"lz4", 5, blosc.BITSHUFFLE)
    table = google_crc32c.value(bomb).to_bytes(4, "little")
    bomb += table
    index = (0).to_bytes(8, "little") + len(bomb).to_bytes(8, "little")
    checksum = google_crc32c.value(index)
    shard = bomb + table + index + checksum.to_bytes(4, "little")
    (store / "recordings/000/delta/c.0.0").write_bytes(shard)
    chain = int(
        json.loads((store / "recordings/000/zarr.json").read_text())["attributes"]["causalprune"]["checksum"], 16
    )
    lines = []
    for line in log.read_text().splitlines():
        record = json.loads(line[9:])
        if record.get("shard") == 0:
            sums = {"crc32c": shard, "chunks_crc32c": table, "index_crc32c": index}
            record |= {"bytes": len(shard)} | {k: f"{google_crc32c.value(v):08x}" for k, v in sums.items()}
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        chain = google_crc32c.extend(chain, text.encode())
        lines.append(f"{chain:08x} {text}\n")
    log.write_text("".join(lines))
    assert Store.open(store).verify() == []
    refused(capsys, 4, "fit-gamma", "--store", store, says="bytes compressed to")
