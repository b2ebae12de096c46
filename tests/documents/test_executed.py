"""Pages whose commands work one after the other, as they stand, in the folder of somebody who follows the page.

Only what the page doesn't say is smaller here: defaults, by the environment, and the images that it has from elsewhere.
"""

import shutil
from dataclasses import dataclass, field
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
A_MASK = f"{A_FIT}\ncausalprune apply-mask --sparsity 0.5\ncausalprune posttrain"


@dataclass(frozen=True)
class Page:
    """How a page is followed.

    Attributes:
        environment: What makes its commands small.
        before: What somebody has done who comes to the page.
        anew: Whether a block that begins with a dense network has a folder of its own; others go on in the first.
        left_out: Blocks with one of these are only read, by ``test_typed.py``, for the reason beside each.
    """

    environment: dict[str, str]
    before: str = ""
    anew: bool = False
    left_out: dict[str, str] = field(default_factory=dict)


BY_OTHERS = {"sensitivity": "tests/pipeline/test_added_criterion.py", "DIR --model": "minutes"}

PAGES = {
    "README.md": Page(MLP, left_out={"npz:FILE.npz": "the test below"}),
    "docs/how-to/faster.md": Page(SMALL),
    "docs/how-to/choose.md": Page(MLP),
    "docs/how-to/resume.md": Page(MLP, "causalprune pretrain", left_out={"/scratch": "a cluster"}),
    "docs/curvature.md": Page(MLP, A_FIT),
    "docs/diagnose.md": Page(MLP, A_FIT),
    "docs/flatness.md": Page(MLP, A_MASK),
    "docs/training.md": Page(SMALL, anew=True),
    "docs/pruning.md": Page(SMALL, A_FIT, anew=True),
    "docs/criteria.md": Page(MLP, A_FIT, anew=True, left_out=BY_OTHERS),
    "docs/sweep.md": Page(MLP, left_out={"--recorded": "it refuses what the environment sets"}),
    "docs/export.md": Page(SMALL, A_MASK, anew=True),
    "docs/recording.md": Page(SMALL, "causalprune pretrain --model mlp --hidden 16", anew=True),
    "docs/real-data.md": Page(SMALL, anew=True),
}
"""Those of the other pages are of the same kind, have tests of their own, or need a cluster, a bucket or minutes."""

DENSE = ("pretrain", "run", "sweep")
"""What begins with a dense network."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """What pages have from elsewhere, in fewer samples: MNIST and two folders of images."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 1000), ("t10k", 100)):
        header = b"".join(number.to_bytes(4, "big") for number in (2051, count, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + rng.bytes(count * 28 * 28))
        header = b"".join(number.to_bytes(4, "big") for number in (2049, count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(i % 10 for i in range(count)))
    (folder / "DIR").symlink_to(folder / "data")
    image_folder(folder / "cifar10-jpeg", rng, size=32, classes="0123456789", splits={"train": 1000, "test": 50})
    (folder / "cifar10-part").symlink_to(folder / "cifar10-jpeg")
    return folder


def image_folder(root, rng, size, classes, splits):
    for split, count in splits.items():
        for number in range(count):
            name = root / split / classes[number % len(classes)] / f"{number}.jpg"
            name.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (size, size), dtype=np.uint8)).save(name)


def things_of_mine(folder):
    """What the README has placeholders for."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 2
    np.savez(folder / "FILE.npz", x=x, y=y)
    rows = [",".join(map(str, [*row, label])) for row, label in zip(x, y, strict=True)]
    (folder / "FILE.csv").write_text("\n".join(["a,b,c,COLUMN", *rows]))
    image_folder(folder / "DIR", rng, size=8, classes="ab", splits={"train": 40})
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
        elif program == "causalprune":
            assert main(words) == 0, words


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_work_in_their_order(name, tmp_path, monkeypatch, images):
    def enter(folder):
        folder.mkdir(exist_ok=True)
        for path in images.iterdir():
            (folder / path.name).symlink_to(path)
        monkeypatch.chdir(folder)

    page = PAGES[name]
    scripts = [block.text for block in blocks(ROOT / name) if block.language == "sh"]
    assert all(any(words in script for script in scripts) for words in page.left_out)
    for variable, value in page.environment.items():
        monkeypatch.setenv(variable, value)
    enter(tmp_path)
    execute(page.before, monkeypatch)
    for number, script in enumerate(scripts):
        if any(words in script for words in page.left_out):
            continue
        if page.anew:
            monkeypatch.chdir(tmp_path)
            if typed(script)[0][1] in DENSE:
                enter(tmp_path / f"{number}")
        if "store merge" in script:
            shutil.copytree("run/trajectory.zarr", "a.zarr")
            shutil.copytree("run/trajectory.zarr", "b.zarr")
        execute(script, monkeypatch)


def test_each_kind_of_data_of_the_readme_is_read(tmp_path, monkeypatch):
    (block,) = (block for block in blocks(ROOT / "README.md") if "npz:FILE.npz" in block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    things_of_mine(tmp_path)
    monkeypatch.setenv("CAUSALPRUNE_EPOCHS", "0")
    for number, line in enumerate(block.text.splitlines()):
        monkeypatch.setenv("CAUSALPRUNE_RUN", f"run-{number}")
        execute(line, monkeypatch)
        assert Path(f"run-{number}/pretrained.safetensors").exists()
