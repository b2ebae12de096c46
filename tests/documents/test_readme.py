"""The README's Python works as it stands, and its links lead somewhere."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_library_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    nonzero, gap = capsys.readouterr().out.split()
    assert int(nonzero) > 0
    assert float(gap) <= 1e-6


def test_links_lead_to_files():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text())
    assert targets
    assert [t for t in targets if not (README.parent / t).exists()] == []


def test_commands_of_the_pipeline_are_the_ones_there_are():
    from causalprune.commands.names import CONFIGS

    named = set(re.findall(r"causalprune ((?:store )?[a-z-]+)", README.read_text()))
    assert set(CONFIGS) <= named
