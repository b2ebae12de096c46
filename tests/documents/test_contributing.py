"""Each recipe of CONTRIBUTING.md, followed to the letter: one file and one line in a copy of the package, then its
command."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import cache_from_source
from pathlib import Path

import numpy as np
import pytest

from causalprune.base.registry import Registry
from causalprune.models.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "CONTRIBUTING.md").read_text()

RECIPE = re.compile(
    r"New file `(?P<path>[^`]+)`:\n\n```python\n(?P<content>.*?)```\n\n"
    r"New line in `(?P<registry>\w+)` of `(?P<names>[^`]+)`:\n\n```python\n(?P<line>[^\n]+\n)```\n\n"
    r"```sh\n(?P<command>[^\n]+)\n```",
    re.DOTALL,
)


@dataclass(frozen=True)
class Recipe:
    path: str
    content: str
    registry: str
    names: str
    line: str
    command: str

    @property
    def name(self):
        """What the line adds."""
        return re.match(r' +"([^"]+)"', self.line)[1]


SECTIONS = dict(re.findall(r"\n### (An? [^\n]+)\n(.*?)(?=\n### |\Z)", DOCUMENT, flags=re.DOTALL))
RECIPES = {title: Recipe(**RECIPE.search(section).groupdict()) for title, section in SECTIONS.items()}


@dataclass(frozen=True)
class Done:
    code: int
    output: str
    error: str


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a command line of the document with a copy of the package, in a process of its own."""
    output = tmp_path_factory.mktemp("printed") / "output"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("CAUSALPRUNE_", "PYTHONPATH"))}
    python = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm_python.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip

    def run(command, folder, package):
        program, *arguments = command.split()
        assert program == "causalprune"
        request = {"folder": str(folder), "package": str(package), "arguments": arguments, "output": str(output)}
        print(json.dumps(request), file=python.stdin, flush=True)
        code = int(python.stdout.readline())
        return Done(code, output.read_text(), output.with_name("output.err").read_text())

    with python:
        try:
            yield run
        finally:
            python.kill()


def copy_of_the_package(folder):
    shutil.copytree(ROOT / "causalprune", folder / "causalprune")
    shutil.copytree(ROOT / "cli", folder / "causalprune_cli")
    return folder


def add_line(file, registry, line):
    """Put a line in front of the closing bracket of a registry."""
    text = file.read_text()
    start = re.search(rf"^{registry} = ", text, flags=re.MULTILINE).end()
    closing = re.compile(rf"^ {{{len(line) - len(line.lstrip()) - 4}}}}}", flags=re.MULTILINE).search(text, start)
    file.write_text(text[: closing.start()] + line + text[closing.start() :])


@pytest.fixture(scope="module")
def start(run, tmp_path_factory):
    """The files that the commands start from."""
    folder = tmp_path_factory.mktemp("start")
    block = re.search(r"start from the files of\n\n```sh\n(.*?)```", DOCUMENT, flags=re.DOTALL)[1]
    for command in block.splitlines():
        done = run(command, folder, ROOT)
        assert done.code == 0, done.error
    return folder


def checkpoint(folder):
    return load_checkpoint(folder / "added/pretrained.safetensors").info


def result(folder, stage):
    return json.loads((folder / f"run/results/{stage}.json").read_text())["metrics"]


def root_budgets(layers):
    """Whether two layers keep weights as the roots of their sizes."""
    first, second = layers
    return first["kept"] / second["kept"] == pytest.approx((first["total"] / second["total"]) ** 0.5, rel=0.05)


# What shows that the thing did its work; arguments are the folder and what the command printed.
PROOFS = {
    "A criterion": lambda folder, _: result(folder, "apply-mask")["sparsity"] == pytest.approx(0.9, abs=0.01),
    "A model": lambda folder, _: checkpoint(folder).model.name == "residual-mlp",
    "A data set": lambda folder, _: checkpoint(folder).data.name == "wine",
    "A task": lambda folder, _: checkpoint(folder).model.task == "focal",
    "An optimizer": lambda folder, _: checkpoint(folder).config["optimizer"] == "sign-sgd",
    "A learning-rate schedule": lambda folder, _: checkpoint(folder).config["lr_schedule"] == "linear",
    "A sparsity schedule": lambda folder, _: result(folder, "apply-mask")["sparsity"] == pytest.approx(0.4, abs=0.01),
    "A scope": lambda folder, _: root_budgets(result(folder, "apply-mask")["layers"]),
    "A solver": lambda folder, _: result(folder, "fit-gamma")["evidence"]["certified"],
    "A codec": lambda folder, _: "tiny" in (folder / "tiny.zarr/recordings/000/zarr.json").read_text(),
    "A format for networks": lambda folder, _: len(np.load(folder / "run/exported.npz").files) == 4,
    "A format for recordings": lambda folder, _: len((folder / "delta.csv").read_text().splitlines()) == 1 + 4,
    "A log": lambda folder, _: len((folder / "added/logs/pretrained/log.jsonl").read_text().splitlines()) > 2,
    "A command": lambda _, printed: len(json.loads(printed)["metrics"]["kept"]) == 2,
}


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_needs_its_file_and_its_line_and_nothing_else(title, run, start, tmp_path):
    recipe = RECIPES[title]
    package = copy_of_the_package(tmp_path / "package")
    folder = shutil.copytree(start, tmp_path / "work")
    (package / recipe.path).write_text(recipe.content)

    unknown = run(recipe.command, folder, package)
    assert not Path(cache_from_source(package / recipe.path)).exists()
    assert unknown.code == 2, unknown.error
    # Such as "expected one of sgd, adam, adamw, found 'sign-sgd'".
    assert re.search(
        rf"expected (one of|a name ending in) .+{recipe.name}'|no such command '{recipe.name}'", unknown.error
    )

    add_line(package / recipe.names, recipe.registry, recipe.line)
    done = run(recipe.command, folder, package)
    assert done.code == 0, done.error[-2000:]
    # Python keeps what it compiled of a file that it imports.
    assert Path(cache_from_source(package / recipe.path)).exists()
    assert PROOFS[title](folder, done.output)


def test_every_registry_has_a_recipe():
    left_out = {"DATASET_FORMS", "SGD_PRESETS"}  # added like data sets and solvers, and rarely
    found = set()
    for path in sorted((ROOT / "causalprune").rglob("names.py")):
        module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        found |= {name for name, value in vars(module).items() if isinstance(value, Registry)} - left_out
    # CONFIGS and FUNCTIONS are two columns of one table.
    assert found - {"CONFIGS", "FUNCTIONS"} | {"_COMMANDS"} == {recipe.registry for recipe in RECIPES.values()}


def test_the_files_pass_the_lint(tmp_path):
    package = copy_of_the_package(tmp_path)
    paths = [package / recipe.path for recipe in RECIPES.values()]
    for path, recipe in zip(paths, RECIPES.values(), strict=True):
        path.write_text(recipe.content)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(["ruff", *command, *paths], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
