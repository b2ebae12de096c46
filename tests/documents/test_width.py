"""Documents can be read in an editor: prose is held to the width of the code."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WIDTH = 120
DOCUMENTS = (
    sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "examples").rglob("*.md"))
)


def prose(text):
    """Numbered lines outside code blocks and tables."""
    fenced = False
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        # Indented text is code where a blank line or more of it precedes, else a list item goes on.
        code = line.startswith("    ") and (not before.strip() or before.startswith("    "))
        if not (fenced or code or line.startswith("|")):
            yield number, line
        before = line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_prose_is_not_wider_than_code(path):
    assert [f"{path.name}:{number}" for number, line in prose(path.read_text()) if len(line) > WIDTH] == []


def test_what_counts_as_prose():
    wide = "x" * 200
    text = f"{wide}\n\n    {wide}\n\n- a\n  {wide}\n\n```\n{wide}\n```\n| {wide} |\n"
    assert [number for number, line in prose(text) if len(line) > WIDTH] == [1, 6]
