"""Every block of docs/own-model.md and every cell of the notebook runs, in order, and does what the text says."""

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from causalprune_cli.main import main

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "own-model.md").read_text()
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
BLOCK = re.compile(r"(?:File `(?P<file>[^`]+)`:\n\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_network", None)


def test_the_page_runs_from_its_first_block_to_its_last(folder, capsys):
    namespace, said, shown = {}, "", 0
    for block in BLOCK.finditer(DOCUMENT):
        if block["language"] == "text":
            # What the block before has printed; … stands for what another machine or version may print otherwise.
            pattern = re.escape(block["code"]).replace("…", r"[^\n]*")
            assert re.fullmatch(pattern, said[shown:]), said[shown:]
            continue
        shown = len(said)
        if block["file"]:
            (folder / block["file"]).write_text(block["code"])
        elif block["language"] == "sh":
            for line in block["code"].splitlines():
                program, *arguments = line.split()
                assert program == "causalprune"
                assert main([*arguments, "--quiet"]) == 0, line
        else:
            exec(compile(block["code"], "own-model.md", "exec"), namespace)
            if "def accuracy" in block["code"]:
                assert namespace["accuracy"]() > 0.8
            if "mask.hold" in block["code"]:
                assert_held(namespace["model"], namespace["mask"], 0.9)
        said += capsys.readouterr().out
    figures = {name: float(value) for name, value in re.findall(r"^(dense|trained on|repaired) ([\d.]+)$", said, re.M)}
    assert len(figures) == 3
    assert min(figures.values()) > figures["dense"] - 0.15
    # The last mask is that of the files that the command line wrote.
    assert_held(namespace["model"], namespace["mask"], 0.9)
    assert all(name in said for name in ("self_attn.out_proj.weight", "linear1.weight", "linear2.weight"))
    # What plain PyTorch read has the zeros of the saved mask.
    assert (namespace["other"][4].weight == 0).float().mean() > 0.9


def assert_held(model, mask, sparsity):
    assert mask.sparsity == pytest.approx(sparsity, abs=0.01)
    pruned = [model.get_parameter(name).detach()[~keep] for name, keep in mask.tensors().items()]
    assert not torch.cat(pruned).any()


def test_the_notebook_runs_and_holds_no_results(folder, capsys):
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4
    namespace = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), namespace)
    assert len(cells) >= 5
    assert_held(namespace["model"], namespace["mask"], 0.9)
    assert "repaired" in capsys.readouterr().out
    # A cell can be run again.
    exec("".join(next(cell["source"] for cell in cells if "Recorder" in "".join(cell["source"]))), namespace)


def test_what_the_page_prints_is_shown():
    """Each block of Python that prints is followed by what it prints."""
    blocks = [(block["language"], block["code"]) for block in BLOCK.finditer(DOCUMENT)] + [("", "")]
    for (language, code), (following, _) in pairwise(blocks):
        if language == "python":
            assert ("print(" in code) == (following == "text"), code


def test_the_notebook_is_the_beginning_of_the_page():
    blocks = [block["code"].strip() for block in BLOCK.finditer(DOCUMENT) if block["language"] == "python"]
    cells = ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells == blocks[: len(cells)]


def test_what_the_page_says_of_errors_is_what_errors_say():
    """Each message of the table, up to its gaps, is in the code."""
    table = re.findall(r"^\| `(expected [^`]+)` \|", DOCUMENT, flags=re.MULTILINE)
    code = "".join(path.read_text() for path in (ROOT / "causalprune").rglob("*.py"))
    assert len(table) >= 8
    for message in table:
        wanted, _, found = message.removeprefix("expected ").partition(", found ")
        for part in (p.strip() for half in (wanted, found) for p in re.split("…", half)):
            assert part in code, message
