"""The README's Python works as it stands, and its links lead somewhere."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[2] / "README.md"


def test_the_library_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    namespace = {}
    exec(block, namespace)
    assert namespace["fit"].certified
    assert namespace["mask"].sparsity == 0.9
    weights = torch.cat([namespace["model"][n].weight.detach().reshape(-1) for n in (0, 2)])
    assert (weights == 0).sum() == 990


def test_links_lead_to_files():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text())
    assert targets
    assert [t for t in targets if not (README.parent / t).exists()] == []


def test_commands_of_the_pipeline_are_the_ones_there_are():
    from causalprune.commands.names import CONFIGS

    named = set(re.findall(r"causalprune ((?:store )?[a-z-]+)", README.read_text()))
    assert set(CONFIGS) <= named
