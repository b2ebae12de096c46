"""Files and modules that the documents name are there."""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The changelog names what is gone.
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def without_recipes(text):
    """A document but for the files and names that somebody is to add."""
    return re.sub(r"^New file .+?^```sh$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_files_exist(path):
    named = re.findall(
        r"\b(?:tests|causalprune|cli|benchmarks|examples)/[\w/.-]*[\w]", without_recipes(path.read_text())
    )
    assert [name for name in named if not (ROOT / name).exists() and "ROOM" not in name] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_modules_and_their_names_exist(path):
    named = re.findall(r"\bcausalprune(?:\.\w+)+", without_recipes(path.read_text()))
    # causalprune.criteria is a group of entry points.
    assert [name for name in named if name != "causalprune.criteria" and not is_there(name)] == []


def is_there(name):
    """Whether a dotted name is a module, or something in one."""
    module, _, last = name.rpartition(".")
    return find_spec(module) is not None and (hasattr(import_module(module), last) or find_spec(name) is not None)
