"""Files of a sweep that somebody edited: said at once, nothing shown that wasn't measured, nothing lost."""

import json
import shutil

import pytest
from causalprune_cli.main import main
from sweeps import call, table

SMALL = ["--sparsity", "0.5,0.9", "--criterion", "magnitude", "--seeds", "1", "--dataset", "breast-cancer"]
SMALL += ["--model", "mlp", "--hidden", "4", "--pretrain-epochs", "1", "--keep-networks"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    run = tmp_path_factory.mktemp("swept") / "run"
    assert call(run, *SMALL) == 0
    return run


@pytest.fixture
def run(swept, tmp_path):
    return shutil.copytree(swept, tmp_path / "run")


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["measured"].update(score=0.99),
        lambda value: value["measured"].update(score="high"),
        lambda value: value["measured"].pop("score"),
        lambda value: value["measured"]["layers"].clear(),
        lambda value: value.update(sha256=""),
        lambda value: (value.pop("sha256"), value["measured"].update(score=0.99)),
    ],
)
def test_an_altered_cell_is_measured_again_once_it_is_deleted(run, capsys, change):
    expected, cell = table(run), min((run / "sweep/cells").glob("*.json"))
    edit(cell, change)
    for command in (["report"], ["sweep", *SMALL]):
        capsys.readouterr()
        assert main([*command, "--run", str(run), "--quiet"]) == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{cell}: expected the result of a cell as it was measured, found an altered one" in line
        assert "delete it and run the same sweep again" in line
    assert table(run) == expected
    cell.unlink()
    assert call(run, *SMALL) == 0
    assert table(run) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda grid: grid["cells"][0]["settings"].update(seed=7),
        lambda grid: grid["cells"].pop(),
        lambda grid: (grid["cells"].pop(), grid.pop("sha256")),
    ],
)
def test_an_altered_grid(run, capsys, change):
    before = table(run)
    edit(run / "sweep/grid.json", change)
    for command in (["report"], ["sweep", *SMALL]):
        capsys.readouterr()
        assert main([*command, "--run", str(run), "--quiet"]) == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert "grid.json: expected the grid of a sweep as it was written" in line
    assert table(run) == before


def test_another_cells_mask(run, capsys):
    assert call(run, *SMALL[:2], *SMALL[4:], "--criterion", "magnitude,random") == 0
    first, second, *_ = sorted((run / "sweep/cells").glob("*.mask.safetensors"))
    first.write_bytes(second.read_bytes())
    capsys.readouterr()
    assert main(["report", "--run", str(run), "--quiet"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{first}: expected the mask of a cell as it was written, found another; delete it" in line
    first.unlink()
    assert main(["report", "--run", str(run), "--quiet"]) == 0


def test_networks_that_were_kept_stay(run):
    kept = sorted(str(p) for p in (run / "sweep/cells").rglob("pruned.safetensors"))
    assert len(kept) == 2
    assert call(run, *[option for option in SMALL if option != "--keep-networks"]) == 0
    assert sorted(str(p) for p in (run / "sweep/cells").rglob("pruned.safetensors")) == kept
