import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (".py", ".j2", ".css", ".js")
FOLDERS = {"causalprune": "causalprune", "cli": "causalprune_cli"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the files that are in the repository, without what builds left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for path in (path for name in FOLDERS for path in (ROOT / name).rglob("*")):
        if path.suffix in SOURCES or path.name == "py.typed":
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_claims_no_top_level_name_but_its_own(wheel):
    assert {name.partition("/")[0] for name in wheel if ".dist-info" not in name} == set(FOLDERS.values())


def test_every_file_of_the_source_is_in_it(wheel):
    for folder, package in FOLDERS.items():
        for path in (path for path in (ROOT / folder).rglob("*") if path.suffix in SOURCES):
            assert f"{package}/{path.relative_to(ROOT / folder)}" in wheel


def test_it_has_the_license_and_says_whose_it_is(wheel):
    (license_name,) = (name for name in wheel if name.endswith(".dist-info/licenses/LICENSE"))
    assert wheel[license_name] == (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in wheel[license_name]
    (metadata_name,) = (name for name in wheel if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(wheel[metadata_name])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "causalprune developers"


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    for key in ("version", "license"):
        assert re.search(rf"^{key}: (.+)$", citation, flags=re.MULTILINE)[1] == project[key]
