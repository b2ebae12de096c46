"""What ``rooms.py`` counts, on packages that are made for it."""

import subprocess
import sys

import pytest
import rooms


@pytest.fixture
def checkout(tmp_path):
    """Make a checkout of some files, given by path and source."""

    def make(**sources):
        for name in ("causalprune", "cli"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").touch()
        for path, source in sources.items():
            file = tmp_path / f"{path.replace('__', '/')}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(source)
        return tmp_path

    return make


@pytest.mark.parametrize(
    "source",
    [
        "import causalprune.b.x",
        "from causalprune.b.x import y",
        "from causalprune.b import x",
        "from causalprune import b",
        "def f():\n    from causalprune.b import x",
        "names = {'x': 'causalprune.b.x:X'}",
    ],
)
def test_every_way_to_import_is_an_arrow(checkout, source):
    assert rooms.survey(checkout(causalprune__a__one=source)).arrows == {("a", "b")}


@pytest.mark.parametrize(
    "source",
    [
        "import torch.b",
        "from causalprune.a import two",
        "names = 'causalprune.b.x'",
        "text = 'see causalprune.b.x:X'",
        "from .b import x",
        "import causalprune",
    ],
)
def test_what_imports_nothing_of_another_room_is_none(checkout, source):
    assert rooms.survey(checkout(causalprune__a__one=source)).arrows == set()


def test_the_command_line_is_a_room_and_a_module_at_the_top_is_one_and_the_package_is_none(checkout):
    house = rooms.survey(
        checkout(cli__main="import causalprune.a", causalprune__api="import causalprune.a, causalprune.b.x")
    )
    assert house.arrows == {("cli", "a"), ("api", "a"), ("api", "b")}
    assert house.loose == ("api",)


def test_a_circle_over_three_rooms_is_found_and_what_leads_to_it_is_not_in_it(checkout):
    house = rooms.survey(
        checkout(
            causalprune__a__one="import causalprune.b",
            causalprune__b__one="import causalprune.c",
            causalprune__c__one="import causalprune.a",
            causalprune__d__one="import causalprune.a",
        )
    )
    assert house.circles == ("a", "b", "c")
    assert not house.is_tidy()


def test_the_script_prints_a_line_and_the_arrows_when_asked(checkout):
    root = checkout(causalprune__a__one="import causalprune.b\n")
    command = [sys.executable, rooms.__file__, str(root), "-v"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rooms 2, arrows 1, rooms in a circle 0 [], loose modules 0, largest folder 1 files")
    assert done.stdout.endswith("\na → b\nb → nothing\n")
