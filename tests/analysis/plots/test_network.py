"""Pictures of a network: what the pixels say is what the numbers say, and a failure leaves the old picture."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import pixels

from causalprune.analysis.plots.colors import BLUE, GRAY, ORANGE
from causalprune.analysis.plots.network import plot_evaluation
from causalprune.base.errors import StorageError, UsageError

TRACK = "#EBEBEB"


def layer(total: int, kept: int, name: str = "fc.weight") -> dict[str, Any]:
    return {"name": name, "total": total, "kept": kept}


def evaluation(**changes: Any) -> dict[str, Any]:
    return {
        "top1": 0.5,
        "model": "mlp",
        "dataset": "digits",
        "reference": {"top1": 1.0},
        "layers": [layer(1000, 250)],
        "flops_dense": 2000,
        "flops_theoretical": 500,
    } | changes


@pytest.mark.parametrize("kept", [[10, 90], [100, 0], [50, 75]])
def test_bars_are_as_long_as_layers_are_sparse(tmp_path: Path, kept: list[int]) -> None:
    """What isn't pruned of a layer's bar shows its track, which only the panel of the layers has."""
    for name, numbers in (("p", kept), ("dense", [100] * len(kept))):
        layers = [layer(100, k, f"l{i}") for i, k in enumerate(numbers)]
        plot_evaluation(evaluation(layers=layers), tmp_path / f"{name}.png")
    (track, line), (whole, _) = (pixels(tmp_path / f"{name}.png", TRACK, ORANGE) for name in ("p", "dense"))
    assert track / whole == pytest.approx(np.mean(kept) / 100, abs=0.03)
    assert line > 100


@pytest.mark.parametrize("dense", [{"r2": 0.5}, {"r2": None}, None])
def test_no_bar_for_an_r2_that_is_none(tmp_path: Path, dense: dict[str, Any] | None) -> None:
    """Where all targets are equal there is none."""
    values = evaluation(top1=None, r2=None, reference=dense)
    plot_evaluation(values, tmp_path / "none.png")
    plot_evaluation(values | {"r2": 0.5}, tmp_path / "half.png")
    without, with_bar = (pixels(tmp_path / f"{n}.png", BLUE)[0] for n in ("none", "half"))
    # Bars of 0.25 + 0.25 and of 0.75 in the other panel, against one of 0.5 more.
    assert 0 < without < with_bar


def test_pruned_bars_stand_to_dense_ones_as_the_numbers_do(tmp_path: Path) -> None:
    # Widths: dense 1 + 1 + 1 and pruned 0.5 + 0.25 + 0.25, and in the other panel a bar of 0.75.
    plot_evaluation(evaluation(), tmp_path / "a.png")
    plot_evaluation(evaluation(top1=0.0, flops_theoretical=0), tmp_path / "b.png")
    (blue, gray), (blue_without, gray_without) = (pixels(tmp_path / f"{n}.png", BLUE, GRAY) for n in "ab")
    assert gray == pytest.approx(gray_without, rel=0.01)
    assert (blue - blue_without) / gray == pytest.approx(0.75 / 3, abs=0.02)


def test_without_a_dense_network_to_compare_its_score_is_left_out(tmp_path: Path) -> None:
    for name, reference in (("a", {"top1": 1.0}), ("b", None)):
        plot_evaluation(evaluation(reference=reference), tmp_path / f"{name}.png")
    (with_score,), (without,) = (pixels(tmp_path / f"{n}.png", GRAY) for n in "ab")
    assert without / with_score == pytest.approx(2 / 3, abs=0.03)


def test_a_regression_is_drawn_with_its_r2_even_below_zero(tmp_path: Path) -> None:
    scores = {"top1": None, "r2": -0.4, "reference": {"r2": 0.5}}
    plot_evaluation(evaluation(**scores), tmp_path / "p.png")
    assert all(pixels(tmp_path / "p.png", BLUE, GRAY))


def test_hostile_names_and_many_layers(tmp_path: Path) -> None:
    names = ["$\\frac{$.weight", "a\nb", "層" * 50, "x" * 300, "_^&%"]
    plot_evaluation(
        evaluation(layers=[layer(10, 1, n) for n in names], dataset="npz:/tmp/$x/" + "é" * 200, model="m\n$"),
        tmp_path / "p.png",
    )
    plot_evaluation(evaluation(layers=[layer(10, n % 11, f"l{n}") for n in range(200)]), tmp_path / "p.png")


def test_equal_numbers_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        plot_evaluation(evaluation(), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_folder_that_isnt_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="create the directory"):
        plot_evaluation(evaluation(), tmp_path / "absent" / "p.png")


def test_only_png(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.png, found p\.pdf"):
        plot_evaluation(evaluation(), tmp_path / "p.pdf")


def test_without_matplotlib_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[plots\]'"):
        plot_evaluation(evaluation(), tmp_path / "p.png")


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, causalprune.analysis.plots.network; print({'matplotlib', 'torch'} & set(sys.modules))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"
