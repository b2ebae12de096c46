"""A criterion of another package by the command line: that of the documents, installed, and one that fails."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import call, call_json

from causalprune.models.checkpoint import load_checkpoint

DOCUMENT = Path(__file__).parents[2] / "docs" / "criteria.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("added") / "run"
    tiny = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "6", "--epochs", "1"]
    assert call("pretrain", *tiny, "--run", path, "--quiet") == 0
    assert call("record", "--steps", "5", "--run", path, "--quiet") == 0
    return path


def install(folder, monkeypatch, pyproject, module):
    """Install a package of one module, with the Python that runs the tests, where only this test sees it."""
    (folder / "source").mkdir()
    (folder / "source" / "pyproject.toml").write_text(pyproject)
    (folder / "source" / "my_criteria.py").write_text(module)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(folder / "site"), str(folder / "source")], check=True)
    monkeypatch.syspath_prepend(str(folder / "site"))
    monkeypatch.delitem(sys.modules, "my_criteria", raising=False)


def documented(language):
    section = DOCUMENT.read_text().partition("\n## A criterion of your own")[2]
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
    return block


def test_the_example_of_the_documents_prunes_as_obd_does(run, tmp_path, monkeypatch, capsys):
    install(tmp_path, monkeypatch, documented("toml"), documented("python"))
    masks = []
    for criterion in ("sensitivity", "obd"):
        output = tmp_path / f"{criterion}.safetensors"
        options = ["--criterion", criterion, "--sparsity", "0.9", "--output", output, "--run", run]
        assert call_json(capsys, "apply-mask", *options)["metrics"]["sparsity"] == pytest.approx(0.9, abs=0.01)
        masks.append(load_checkpoint(output).mask.keep)
    assert torch.equal(*masks)


def test_what_its_code_raises_is_a_line_that_names_it(run, tmp_path, monkeypatch, capsys):
    broken = documented("python").replace("np.abs(inputs.theta)", "(1 // 0)")
    install(tmp_path, monkeypatch, documented("toml"), broken)
    output = tmp_path / "pruned.safetensors"
    options = ["--criterion", "sensitivity", "--sparsity", "0.9", "--output", output, "--run", run, "--quiet"]
    assert call("apply-mask", *options) == 3
    error = capsys.readouterr().err
    assert "criterion sensitivity (my_criteria:SENSITIVITY): expected scores, found that its own code raised" in error
    assert "ZeroDivisionError" in error
    assert error.count("\n") == 1
    assert not output.exists()
