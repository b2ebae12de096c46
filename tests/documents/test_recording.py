"""The Python on the page about recording works as it stands."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "recording.md"


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 1
    exec(blocks[0], {})
    assert capsys.readouterr().out.startswith("[")
