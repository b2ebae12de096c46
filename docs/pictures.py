"""Draw the pictures of docs/concepts.md from a run directory, and print the numbers that its text has.

The run is that of ``causalprune pretrain``, ``causalprune record --epochs 5`` and ``causalprune fit-gamma``.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("svg")
mpl.rcParams |= {
    "svg.hashsalt": "causalprune",
    "svg.fonttype": "none",
    "figure.figsize": (6.4, 3.2),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}

import torch  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from torch import nn  # noqa: E402

import causalprune as cp  # noqa: E402
from causalprune.commands._network import load_its_data, load_network  # noqa: E402
from causalprune.data.datasets import DataSet  # noqa: E402
from causalprune.models.checkpoint import load_checkpoint  # noqa: E402
from causalprune.training.metrics import evaluate_model  # noqa: E402

FOLDER = Path(__file__).with_suffix("")
BLUE, ORANGE, GRAY = "#1b7f8c", "#e0662f", "#9a9a9a"
SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.99, 0.995)


def save(figure: Figure, name: str) -> None:
    """Write one picture; the same numbers give the same bytes."""
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def draw_model(measured: np.ndarray, explained: np.ndarray) -> None:
    """The loss change of each step: measured, and as γ explains it."""
    figure, axes = plt.subplots()
    steps = np.arange(1, len(measured) + 1)
    axes.plot(steps, measured, "o", color=GRAY, markersize=3, label="measured, ΔL")
    axes.plot(steps, explained, "-", color=ORANGE, linewidth=1, label="the fit's sum, Σ γ Δθ²")
    axes.set(xlabel="recorded step", ylabel="change of the loss")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.legend()
    save(figure, "model")


def draw_kkt(scores: np.ndarray, nonzero: int) -> None:
    """How many weights have which KKT score."""
    figure, axes = plt.subplots()
    axes.hist(scores, bins=60, range=(0, 1), color=BLUE)
    axes.set(xlabel="KKT score", ylabel="weights, log scale", yscale="log", xlim=(0, 1.02))
    axes.annotate(
        f"{nonzero} of {len(scores):,} weights\nare in the model: score 1",
        (1, 30), (0.66, 3000), arrowprops={"arrowstyle": "->", "color": ORANGE}, color=ORANGE,
    )  # fmt: skip
    save(figure, "kkt")


def draw_mask(keep: np.ndarray) -> None:
    """The filters of the first layer: kept weights and pruned ones."""
    figure, axes = plt.subplots(2, 10, figsize=(6.4, 1.6))
    for place, kept in zip(axes.flat, keep[:, 0], strict=True):
        place.imshow(kept, cmap=mpl.colors.ListedColormap(["#dddddd", BLUE]), vmin=0, vmax=1, interpolation="nearest")
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(False)
    save(figure, "mask")


def accuracy(model: nn.Module, data: DataSet) -> float:
    """On the test split."""
    return float(evaluate_model(model, data, "test", batch_size=360, device=torch.device("cpu"))["top1"])


def draw_phase_shift(curves: dict[str, list[float]]) -> None:
    """Accuracy against the share of weights that are pruned."""
    figure, axes = plt.subplots()
    for (name, values), color in zip(curves.items(), (BLUE, ORANGE, GRAY), strict=True):
        axes.plot([100 * s for s in SPARSITIES], [100 * v for v in values], "o-", color=color, markersize=3, label=name)
    axes.set(xlabel="weights pruned, %", ylabel="test accuracy, %", xlim=(0, 101), ylim=(0, 102))
    axes.legend(loc="lower left")
    save(figure, "phase-shift")


def main(run: Path) -> None:
    """Draw all of them."""
    FOLDER.mkdir(exist_ok=True)
    store = cp.Store.open(run / "trajectory.zarr")
    recording = store.recording()
    fit = recording.read_fit("default")
    measured, gamma = np.asarray(recording.loss_change, np.float64), np.asarray(fit.gamma).ravel()
    rows, columns = recording.num_rows, recording.num_columns
    active = np.flatnonzero(gamma)
    deltas = recording.read_columns(0, columns)[:, active].astype(np.float64)
    explained = np.square(deltas) @ gamma[active]
    draw_model(measured, explained)
    scores = np.asarray(fit.kkt_scores).ravel()
    draw_kkt(scores, len(active))
    print(f"{rows} rows, {columns:,} columns, {len(active)} nonzero γ")
    print(f"KKT score at least 0.9: {(scores >= 0.9).sum():,} weights, at least 0.5: {(scores >= 0.5).sum():,}")

    source = run / "recorded.safetensors"
    checkpoint = load_checkpoint(source)
    data = load_its_data(checkpoint, source, data_root="data", trust_code=False)
    dense, _ = load_network(checkpoint, source, torch.device("cpu"), trust_code=False)
    curves: dict[str, list[float]] = {"effect": [], "magnitude": [], "gamma": []}
    for criterion, values in curves.items():
        for sparsity in SPARSITIES:
            model = copy.deepcopy(dense)
            mask = cp.prune(model, store, sparsity=sparsity, criterion=criterion)
            values.append(accuracy(model, data))
            if (criterion, sparsity) == ("effect", 0.9):
                name, first = next(iter(mask.tensors().items()))
                kept = first.numpy()
                draw_mask(kept)
                print(f"{name}: {kept.sum()} of {kept.size} weights kept, of all layers {mask.num_kept:,}")
        print(criterion, ", ".join(f"{s:.1%}: {v:.1%}" for s, v in zip(SPARSITIES, values, strict=True)))
    draw_phase_shift(curves)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("run"))
