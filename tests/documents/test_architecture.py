"""What docs/architecture.md says of the code holds: each name that it mentions is there, and so is each arrow."""

import ast
import re
from pathlib import Path

import pytest
from rooms import MOST_ARROWS, MOST_FILES, MOST_LOOSE, MOST_ROOMS, survey

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()
MENTIONED = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", DOCUMENT)))


def source(path):
    return ROOT / path if path.startswith("cli/") else ROOT / "causalprune" / path


def names_in(body):
    """What the body of a module or of a class binds, each with the node that has a body of its own, or None."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, None) for target in targets if isinstance(target, ast.Name))


@pytest.mark.parametrize(("path", "name"), MENTIONED)
def test_every_name_that_is_mentioned_exists(path, name):
    body = ast.parse(source(path).read_text()).body
    for part in name.split("."):
        found = dict(names_in(body))
        assert part in found
        body = getattr(found[part], "body", [])


def test_many_names_are_mentioned():
    assert len(MENTIONED) > 40


def test_the_table_has_the_rooms_and_what_each_imports():
    section = DOCUMENT.partition("| room | what it is | imports |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| .+? \| ([^|]+) \|$", section, flags=re.MULTILINE)
    said = {(room, there) for room, imports in rows for there in re.findall(r"`(\w+)`", imports)}
    house = survey(ROOT)
    assert {room for room, _ in rows} == set(house.rooms)
    assert said == set(house.arrows)


def test_the_bounds_are_those_that_are_checked():
    found = re.search(r"at most (\d+) rooms, (\d+) arrows, (\d+) loose .+? (\d+) files", " ".join(DOCUMENT.split()))
    assert [int(n) for n in found.groups()] == [MOST_ROOMS, MOST_ARROWS, MOST_LOOSE, MOST_FILES]
