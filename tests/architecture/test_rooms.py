"""The layout of ``docs/architecture.md``: few rooms, arrows that only lead down, and what each floor may know."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rooms import MOST_ARROWS, MOST_FILES, MOST_LOOSE, MOST_ROOMS, survey

ROOT = Path(__file__).parents[2]

FLOORS = [
    {"base"},
    {"data", "models"},
    {"trajectory"},
    {"solver", "pruning"},
    {"training"},
    {"analysis"},
    {"config"},
    {"commands"},
    {"api"},
    {"cli"},
    {"__main__"},
]
"""From the ground up."""
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
BELOW_COMMANDS = sorted(set().union(*FLOORS[: FLOOR_OF["config"]]))

FLAG = re.compile(r"--[a-z][a-z-]+")
CONFIG = re.compile(r"\w+Config\b")


@pytest.fixture(scope="module")
def house():
    return survey(ROOT)


@pytest.fixture(scope="module")
def sources_below_commands():
    """Syntax tree of each file, by its path."""
    paths = [p for room in BELOW_COMMANDS for p in sorted((ROOT / "causalprune" / room).rglob("*.py"))]
    assert len(paths) > 50
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def test_there_are_few_rooms(house):
    assert len(house.rooms) <= MOST_ROOMS


def test_there_are_few_arrows(house):
    assert len(house.arrows) <= MOST_ARROWS


def test_no_room_is_in_a_circle(house):
    assert house.circles == ()


def test_few_modules_are_loose(house):
    assert len(house.loose) <= MOST_LOOSE


def test_no_folder_is_large(house):
    assert {str(folder): n for folder, n in house.folders.items() if n > MOST_FILES} == {}


def test_base_is_small(house):
    assert house.folders[Path("causalprune/base")] <= 15


def test_most_files_carry_their_weight(house):
    assert 60 <= house.median_lines <= 160


def test_every_room_has_a_floor(house):
    assert set(house.rooms) - set(FLOOR_OF) == set()


def test_no_arrow_leads_up(house):
    known = [(here, there) for here, there in house.arrows if {here, there} <= set(FLOOR_OF)]
    assert sorted((here, there) for here, there in known if FLOOR_OF[there] > FLOOR_OF[here]) == []


@pytest.mark.parametrize("load", ["import causalprune", "from causalprune.commands import names; names.load_configs()"])
def test_neither_the_package_nor_the_configuration_loads_torch(load):
    code = f"import sys; {load}; sys.exit(any(name.partition('.')[0] == 'torch' for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_below_commands_knows_an_option_of_the_command_line(sources_below_commands):
    wrong = [
        f"{path}:{node.lineno} {found[0]}"
        for path, tree in sources_below_commands.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (found := FLAG.search(node.value))
    ]
    assert wrong == []


def test_nothing_below_commands_takes_the_configuration_of_a_command(sources_below_commands):
    wrong = [
        f"{path}:{node.lineno} {node.arg}"
        for path, tree in sources_below_commands.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.arg) and node.annotation and CONFIG.search(ast.unparse(node.annotation))
    ]
    assert wrong == []
