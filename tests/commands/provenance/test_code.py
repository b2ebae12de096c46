"""The source behind a factory: its module and what the user's own modules import, found without running them."""

import sys

import pytest

from causalprune.commands.provenance.code import code_digest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sys.path_importer_cache.clear()


def test_an_edit_changes_it_and_undoing_the_edit_restores_it(here):
    write(here / "mine.py", "x = 1\n")
    before = code_digest("mine:net")
    write(here / "mine.py", "x = 2\n")
    assert code_digest("mine:net") not in ("", before)
    write(here / "mine.py", "x = 1\n")
    assert code_digest("mine:net") == before


def test_the_place_does_not_count(here, monkeypatch):
    write(here / "a" / "mine.py", "x = 1\n")
    write(here / "b" / "mine.py", "x = 1\n")
    found = set()
    for folder in "ab":
        monkeypatch.chdir(here / folder)
        found.add(code_digest("mine:net"))
    assert len(found) == 1


@pytest.mark.parametrize(
    "text", ["import layers", "from layers import Block", "from package import inner", "import package.inner as p"]
)
def test_what_it_imports_counts_and_what_it_does_not_import_does_not(here, text):
    write(here / "mine.py", text)
    for name in ("layers.py", "other.py", "package/__init__.py", "package/inner.py"):
        write(here / name, "x = 1\n")
    before = code_digest("mine:net")
    write(here / "other.py", "x = 2\n")
    assert code_digest("mine:net") == before
    for name in ("layers.py", "package/inner.py"):
        write(here / name, "x = 2\n")
    assert code_digest("mine:net") != before


def test_relative_imports_of_a_package_that_only_passes_on(here):
    write(here / "nets" / "__init__.py", "from .resnet import net\n")
    write(here / "nets" / "resnet.py", "from . import blocks\nfrom ..outside import x\n")
    write(here / "nets" / "blocks.py", "import nets\nx = 1\n")
    before = code_digest("nets:net")
    write(here / "nets" / "blocks.py", "import nets\nx = 2\n")
    assert code_digest("nets:net") not in ("", before)


def test_nothing_is_run_and_nothing_missing_fails(here):
    write(here / "mine.py", "raise SystemExit\nimport torch, absent.thing\n")
    assert code_digest("mine:net")
    assert "mine" not in sys.modules
    write(here / "broken.py", "def (:\n")
    assert code_digest("broken:net")
    assert code_digest("absent.module:net") == ""
    assert code_digest("math:net") == ""
