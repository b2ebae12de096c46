import json
import os
import subprocess
import sys

import pytest
from causalprune_cli.main import main

from causalprune.commands.names import CONFIGS


@pytest.mark.parametrize("stage", sorted(CONFIGS))
def test_help_ends_with_an_example_of_the_command(stage, capsys):
    assert main([*stage.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"causalprune {stage}" in text.rstrip().splitlines()[-1]


def test_help_and_info_load_neither_torch_nor_zarr(tmp_path):
    (tmp_path / "run").mkdir()
    for args in (["--help"], ["record", "--help"], ["info", str(tmp_path / "run")]):
        code = f"""
import sys
from causalprune_cli.main import main
main({args!r})
heavy = [m for m in ("torch", "zarr", "sklearn", "torchvision", "matplotlib") if m in sys.modules]
sys.exit(f"loaded {{heavy}}" if heavy else 0)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_nobody_reads_what_is_printed():
    """As with ``| head -1``: no traceback, and not the exit code of an internal error."""
    command = [sys.executable, "-m", "causalprune", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 6


def test_an_output_that_knows_no_greek(tmp_path):
    """Signs that it lacks are replaced in tables and escaped in JSON."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    make = ["pretrain", "--epochs", "0", "--run", "γ", "--quiet"]
    for arguments in (make, ["sweep", "--help"], ["info", "γ", "--json"]):
        command = [sys.executable, "-m", "causalprune", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.isascii()
    assert json.loads(done.stdout)["path"] == "γ"


def test_help_shows_defaults_that_are_paths(capsys):
    assert main(["diagnose", "--help"]) == 0
    text = capsys.readouterr().out
    assert "[run/trajectory.zarr]" in text
    assert "\\" not in text


def test_version(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"causalprune {version('causalprune')}\n"


def test_json_is_alone_on_stdout(tmp_path, capsys):
    assert main(["pretrain", "--epochs", "1", "--run", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema_version"] == 2
    assert {"stage", "inputs", "outputs", "metrics", "timings", "versions"} <= set(result)


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert main(["pretrain", "--epochs", "0", "--run", str(tmp_path), "--quiet"]) == 0
    before = sorted(p.name for p in tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(["record", "--epochs", "2", "--dry-run", "--run", str(tmp_path), "--json"]) == 0
    prediction = json.loads(capsys.readouterr().out)["metrics"]
    assert (prediction["rows"], prediction["columns"]) == (42, 130_500)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert main(["record", "--epochs", "2", "--run", str(tmp_path), "--json"]) == 0
    stored = json.loads(capsys.readouterr().out)["metrics"]["stored_bytes"]
    assert prediction["stored_bytes"] == pytest.approx(stored, rel=0.2)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path, capsys, monkeypatch):
    import shutil

    assert main(["pretrain", "--epochs", "0", "--run", str(tmp_path), "--quiet"]) == 0
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert main(["record", "--epochs", "1", "--run", str(tmp_path), "--quiet"]) == 6
    assert "1 kB free" in capsys.readouterr().err
    assert not (tmp_path / "trajectory.zarr").exists()
    assert main(["record", "--epochs", "1", "--force", "--run", str(tmp_path), "--quiet"]) == 0


def test_options_come_from_environment_and_file_too(tmp_path, capsys, monkeypatch):
    (tmp_path / "settings.toml").write_text("seed = 5\n[pretrain]\nepochs = 1\nbatch-size = 32\n")
    monkeypatch.setenv("CAUSALPRUNE_RUN", str(tmp_path / "from environment"))
    monkeypatch.setenv("CAUSALPRUNE_BATCH_SIZE", "48")
    assert main(["pretrain", "--config", str(tmp_path / "settings.toml"), "--lr", "0.01", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "from environment/pretrained.safetensors"), "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["details"]["config"]
    assert (config["seed"], config["epochs"], config["batch_size"], config["lr"]) == (5, 1, 48, 0.01)
