import json
import subprocess
import sys

import numpy as np
import pytest
import zarr
from causalprune_cli.main import main

from causalprune.base.errors import CorruptError
from causalprune.base.progress import Reporter
from causalprune.commands.store import store_verify
from causalprune.config.store import StoreVerifyConfig
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, Store

ROWS, COLUMNS = 20, 30


def make(path, seed=0, finish=True):
    rng = np.random.default_rng(seed)
    entries = [{"name": f"layer{i}.weight", "shape": [3, 5], "filter_axis": 0} for i in range(2)]
    store = Store.create(path, index=ParameterIndex.from_json(entries), model={}, start_sha256="")
    info = RecordingInfo(lr=0.1, batch_size=8, seed=seed)
    with store.create_recording(info, np.ones(COLUMNS, bool), max_rows=ROWS, codec="exact", block_rows=8) as writer:
        for row in range(ROWS):
            delta = rng.standard_normal(COLUMNS).astype(np.float32)
            writer.append(
                delta, loss_before=1 - row / 50, loss_after=0.99 - row / 50, lr=0.1, epoch=0, batch=row, grad_norm=2.0
            )
        if finish:
            writer.finish()
    return store


def ask(capsys, *arguments):
    code = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def refuse(capsys, code, *arguments):
    """The one line on stderr."""
    assert main([*map(str, arguments), "--quiet"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.fixture
def store(tmp_path):
    return make(tmp_path / "t.zarr")


def test_info_says_what_the_log_says(store, capsys):
    details = ask(capsys, "info", store.path)["details"]
    (recording,) = details["recordings"]
    change = store.recording().loss_change
    assert (recording["rows"], recording["columns"], recording["epochs"]) == (ROWS, COLUMNS, 1)
    assert recording["loss_change"] == {
        "mean": pytest.approx(change.mean()),
        "std": pytest.approx(change.std()),
        "min": change.min(),
        "max": change.max(),
        "falling": 1.0,
    }
    assert recording["raw_bytes"] == 4 * ROWS * COLUMNS
    assert details["writer"] is None
    assert main(["info", str(store.path)]) == 0
    out = capsys.readouterr().out
    assert "20 × 30 of 30 prunable weights" in out
    assert "healthy" in out


def test_info_looks_inside(store, capsys, tmp_path):
    picture = tmp_path / "p.png"
    options = ("--rows", "7:10", "--param", "layer1.weight", "--plot", picture)
    details = ask(capsys, "info", store.path, *options)["details"]
    deltas = store.recording().read_rows(0, ROWS)
    assert [line["row"] for line in details["rows"]] == [7, 8, 9]
    for line in details["rows"]:
        assert line["step_norm"] == pytest.approx(np.linalg.norm(deltas[line["row"]]), rel=1e-6)
        assert line["loss_change"] == pytest.approx(-0.01)
    part = deltas[:, 15:].astype(np.float64)
    parameter = details["parameter"]
    assert parameter["columns"] == 15
    assert parameter["rms"] == pytest.approx(np.sqrt((part**2).mean()), rel=1e-6)
    assert parameter["largest"] == np.abs(part).max()
    lengths = np.linalg.norm(part.sum(0)) / np.sqrt(ROWS * (part**2).sum())
    assert parameter["straightness"] == pytest.approx(lengths, rel=1e-6)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["info", str(store.path), *map(str, options)]) == 0
    assert "straightness" in capsys.readouterr().out


def test_info_of_a_store_that_is_being_recorded(tmp_path, capsys):
    store = make(tmp_path / "t.zarr", finish=False)
    result = ask(capsys, "info", store.path)
    assert not result["healthy"]
    assert "not finished" in result["problems"][0]
    with store.resume_recording("000", rows=ROWS):
        result = ask(capsys, "info", store.path)
        assert result["healthy"]
        assert "process" in result["details"]["writer"]
        assert main(["info", str(store.path)]) == 0
        assert "being recorded by process" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "match"),
    [
        (["--rows", "5"], 2, "a range such as 0:10"),
        (["--rows", "20:30"], 3, "rows 0:20"),
        (["--param", "layer3.weight"], 2, "layer"),
    ],
)
def test_info_of_what_is_not_there(store, capsys, options, code, match):
    assert match in refuse(capsys, code, "info", store.path, *options)


def test_looking_into_something_else(tmp_path, capsys):
    assert "a trajectory store to look into" in refuse(capsys, 2, "info", tmp_path, "--rows", "0:1")


def test_verify_names_every_damaged_file(store, capsys):
    metrics = ask(capsys, "store", "verify", store.path)["metrics"]
    assert (metrics["recordings"], metrics["rows"]) == (1, ROWS)
    for number in (0, 2):
        shard = store.path / f"recordings/000/delta/c.{number}.0"
        shard.write_bytes(shard.read_bytes()[:-9] + b"123456789")
    line = refuse(capsys, 4, "store", "verify", store.path)
    assert "2 problems" in line
    assert "c.0.0" in line
    warnings = []

    class Collecting(Reporter):
        def warn(self, message):
            warnings.append(message)

    with pytest.raises(CorruptError):
        store_verify(StoreVerifyConfig(store=store.path), Collecting())
    assert [f"c.{number}.0" in warning for number, warning in zip((0, 2), warnings, strict=True)] == [True, True]


def test_info_verify_fails_on_damage_and_shows_all_the_same(store, capsys):
    assert main(["info", str(store.path), "--verify"]) == 0
    shard = store.path / "recordings/000/delta/c.1.0"
    shard.write_bytes(shard.read_bytes()[:-9] + b"123456789")
    assert main(["info", str(store.path)]) == 0
    capsys.readouterr()
    assert main(["info", str(store.path), "--verify", "--json"]) == 4
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "c.1.0" in problem
    assert main(["info", str(store.path), "--verify"]) == 4
    assert "problem:" in capsys.readouterr().out


def test_export(store, capsys, tmp_path):
    path = tmp_path / "slice.npz"
    arguments = ("store", "export", store.path, "--rows", ":3", "--param", "layer1.weight", "--output", path)
    assert ask(capsys, *arguments)["metrics"]["columns"] == 15
    with np.load(path) as loaded:
        assert np.array_equal(loaded["delta"], store.recording().read_rows(0, 3)[:, 15:])
    assert "nothing there yet" in refuse(capsys, 2, *arguments)
    ask(capsys, *arguments, "--overwrite")
    assert "a file to write" in refuse(capsys, 2, "store", "export", store.path)
    assert "0:20" in refuse(capsys, 3, "store", "export", store.path, "--rows", "1:21", "--output", tmp_path / "x.npz")


def test_export_to_zarr(store, capsys, tmp_path):
    """With the same values as the other formats; only an earlier export is replaced."""
    npz, path = tmp_path / "slice.npz", tmp_path / "slice of zarr"
    slice_of = ("store", "export", store.path, "--rows", "2:13", "--param", "layer1.weight", "--output")
    arguments = (*slice_of, path, "--format", "zarr")
    ask(capsys, *slice_of, npz)
    size = ask(capsys, *arguments)["metrics"]["file_bytes"]
    assert size == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    group = zarr.open_group(path, mode="r")
    with np.load(npz) as loaded:
        assert sorted(group.array_keys()) == sorted(loaded)
        for name in loaded:
            assert group[name].dtype == loaded[name].dtype
            assert np.array_equal(group[name][...], loaded[name])
    assert "pass --overwrite" in refuse(capsys, 2, *arguments)
    ask(capsys, *arguments, "--overwrite")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    for place, options in ((mine, ("--format", "zarr")), (npz, ("--format", "zarr")), (path, ("--format", "npz"))):
        line = refuse(capsys, 2, *slice_of, place, *options, "--overwrite")
        assert "choose another --output" in line
    assert (mine / "thesis.tex").read_text() == "years of work"
    assert "did you mean 'zarr'" in refuse(capsys, 2, *slice_of, path, "--format", "zar")


def test_compact(store, capsys):
    store.create_recording(RecordingInfo(lr=1, batch_size=1, seed=0), np.ones(COLUMNS, bool), max_rows=1).abort()
    assert "--codec or --drop" in refuse(capsys, 2, "store", "compact", store.path)
    assert "finished" in refuse(capsys, 3, "store", "compact", store.path, "--codec", "small")
    metrics = ask(capsys, "store", "compact", store.path, "--codec", "small", "--drop", "001")["metrics"]
    assert (metrics["recoded"], metrics["dropped"]) == ([], ["001"])
    assert "'001'" in refuse(capsys, 3, "store", "compact", store.path, "--drop", "001")
    assert store.recording().codec == "small"
    assert store.verify() == []
    assert "7 mantissa bits" in refuse(capsys, 2, "store", "compact", store.path, "--codec", "exact")


def test_info_loads_neither_torch_nor_zarr(store):
    """Either takes longer to import than the whole answer may take."""
    code = f"""
import sys
from causalprune_cli.main import main
assert main(["info", {str(store.path)!r}, "--rows", "0:2", "--json"]) == 0
heavy = [m for m in ("torch", "zarr", "scipy", "sklearn", "matplotlib", "pandas") if m in sys.modules]
sys.exit(f"loaded {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_merge_then_fit(tmp_path, capsys):
    paths = [make(tmp_path / f"{seed}.zarr", seed).path for seed in range(3)]
    merged = tmp_path / "new" / "merged.zarr"
    metrics = ask(capsys, "store", "merge", *paths, "--output", merged)["metrics"]
    assert (metrics["rows"], len(metrics["parts"])) == (3 * ROWS, 3)
    assert Store.open(merged).recording().num_rows == 3 * ROWS
    assert "at least two stores" in refuse(capsys, 2, "store", "merge", paths[0], "--output", tmp_path / "x")
    assert "a store to write" in refuse(capsys, 2, "store", "merge", *paths)
    again = ask(capsys, "store", "merge", *paths, "--output", merged)
    assert (again["already_done"], again["metrics"]) == (True, metrics)
    assert "nothing there yet" in refuse(capsys, 2, "store", "merge", *paths[:2], "--output", merged)
    assert "nothing there yet" in refuse(capsys, 2, "store", "merge", *paths, "--output", merged, "--codec", "small")
    assert "another path" in refuse(capsys, 2, "store", "merge", *paths, "--output", paths[1], "--overwrite")
    fewer = ask(capsys, "store", "merge", *paths[:2], "--output", merged, "--overwrite")["metrics"]
    assert fewer["rows"] == Store.open(merged).recording().num_rows == 2 * ROWS
