"""The scripts of the documents load every format where there is no causalprune."""

import re
from pathlib import Path

import pytest
import torch
from elsewhere import run_elsewhere
from networks_of_runs import final_network

DOCUMENT = Path(__file__).parents[3] / "docs" / "export.md"
RUN_ALL = """
import runpy, torch
sys.path.insert(0, ".")
for name in sys.argv[1:]:
    found = runpy.run_path(f"{name}.py")
    torch.save([torch.as_tensor(found[n]).detach() for n in ("inputs", "outputs")], f"{name}.outputs")
"""


def recipes():
    """Each script of the section under what its command exports: ``pt2``, …, ``masks``; and the file ``lenet.py``."""
    section = DOCUMENT.read_text().split("\n## Loading")[1].split("\n## ")[0]
    found = re.findall(r"`causalprune export (--[^`]*)`.*?```python\n(.*?)```", section, flags=re.DOTALL)
    (lenet,) = re.findall(r"```python\n# lenet.py\n(.*?)```", section, flags=re.DOTALL)
    return {options: script for options, script in found if not script.startswith("# lenet.py")}, lenet


def test_every_format_has_one() -> None:
    from causalprune.models.names import EXPORT_FORMATS

    options = list(recipes()[0])
    assert [f"--format {name}" in options for name in EXPORT_FORMATS] == [True] * len(EXPORT_FORMATS)
    assert any("--masks" in o for o in options)


@pytest.mark.parametrize("compact", [False, True])
def test_each_gives_the_outputs_of_the_checkpoint(lenet_run, exported, tmp_path, monkeypatch, compact) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(lenet_run)
    scripts, lenet = recipes()
    (tmp_path / "lenet.py").write_text(lenet)
    names = []
    for number, (options, script) in enumerate(scripts.items()):
        if compact and "--masks" in options:
            continue
        exported("run", *options.split(), *(["--compact"] if compact else []))
        names.append(f"recipe{number}")
        (tmp_path / f"{names[-1]}.py").write_text(script)
    printed = run_elsewhere(RUN_ALL, *names, cwd=tmp_path)
    assert len(printed.splitlines()) == len(names) == (5 if compact else 6)
    model = final_network(lenet_run)
    for name in names:
        inputs, outputs = torch.load(tmp_path / f"{name}.outputs", weights_only=True)
        with torch.no_grad():
            assert torch.allclose(model(inputs), outputs, rtol=1e-4, atol=1e-5), name
