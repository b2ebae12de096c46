"""Pages whose commands work one after the other, as they stand, in the folder of somebody who follows the page.

Only what the page doesn't say is smaller here: defaults, by the environment.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from causalprune_cli.main import main
from PIL import Image
from typed import ROOT, blocks, typed

SMALL = {
    "CAUSALPRUNE_EPOCHS": "1",
    "CAUSALPRUNE_PRETRAIN_EPOCHS": "1",
    "CAUSALPRUNE_TRAIN_EPOCHS": "1",
    "CAUSALPRUNE_RECORD_EPOCHS": "1",
    "CAUSALPRUNE_POSTTRAIN_EPOCHS": "1",
    "CAUSALPRUNE_SEEDS": "1",
}
MLP = SMALL | {"CAUSALPRUNE_MODEL": "mlp", "CAUSALPRUNE_HIDDEN": "16"}
A_FIT = "causalprune pretrain\ncausalprune record --lr 0.01 --epochs 1\ncausalprune fit-gamma"

PAGES = {
    "README.md": (MLP, ""),
    "docs/how-to/faster.md": (SMALL, ""),
    "docs/curvature.md": (MLP, A_FIT),
    "docs/diagnose.md": (MLP, A_FIT),
    "docs/flatness.md": (MLP, f"{A_FIT}\ncausalprune apply-mask --sparsity 0.5\ncausalprune posttrain"),
    "docs/training.md": (MLP, ""),
}
"""The environment, and what somebody has done who comes to the page. ``test_typed.py`` reads the commands of the other
pages: they are of the same kind, or take minutes, or data that don't come with causalprune."""

ELSEWHERE = "--dataset mnist"
DATA_OF_MINE = "npz:FILE.npz"


def things_of_mine(folder):
    """What the README has placeholders for."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 2
    np.savez(folder / "FILE.npz", x=x, y=y)
    rows = [",".join(map(str, [*row, label])) for row, label in zip(x, y, strict=True)]
    (folder / "FILE.csv").write_text("\n".join(["a,b,c,COLUMN", *rows]))
    for number in range(40):
        name = folder / "DIR" / "train" / "ab"[number % 2] / f"{number}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(name)
    (folder / "package").mkdir()
    (folder / "package" / "module.py").write_text(
        "import numpy\n\n\ndef factory():\n    return dict(numpy.load('FILE.npz'))\n"
    )


def execute(script, monkeypatch):
    """Follow a script in this process."""
    for program, *words in typed(script):
        if program == "mkdir":
            Path(words[0]).mkdir()
        elif program == "cd":
            monkeypatch.chdir(words[0])
        elif program == "causalprune" and ELSEWHERE not in " ".join(words):
            assert main(words) == 0, words


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work_in_their_order(page, tmp_path, monkeypatch):
    environment, before = PAGES[page]
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    execute(before, monkeypatch)
    for block in blocks(ROOT / page):
        if "store merge" in block.text:
            shutil.copytree("run/trajectory.zarr", "a.zarr")
            shutil.copytree("run/trajectory.zarr", "b.zarr")
        if block.language == "sh" and DATA_OF_MINE not in block.text:
            execute(block.text, monkeypatch)


def test_each_kind_of_data_of_the_readme_is_read(tmp_path, monkeypatch):
    (block,) = (block for block in blocks(ROOT / "README.md") if DATA_OF_MINE in block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    things_of_mine(tmp_path)
    monkeypatch.setenv("CAUSALPRUNE_EPOCHS", "0")
    for number, line in enumerate(block.text.splitlines()):
        monkeypatch.setenv("CAUSALPRUNE_RUN", f"run-{number}")
        execute(line, monkeypatch)
        assert Path(f"run-{number}/pretrained.safetensors").exists()
