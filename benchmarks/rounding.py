"""What the rounding of the weights leaves of recorded gradients, and what that does to criteria that read them.

Prunes in one shot, without training, by recordings at several learning rates and by a held one. Running statistics of
batch normalization are re-estimated by ``evaluate``.

    python benchmarks/rounding.py --data-root DIR --sparsity 0.95    (DIR holds MNIST/raw)
    python benchmarks/rounding.py --model resnet20 --dataset digits --batch-size 16 --steps 200 --sparsity 0.5
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from causalprune import Store
from causalprune.commands.apply_mask.command import apply_mask
from causalprune.commands.evaluate.command import evaluate
from causalprune.commands.pretrain import pretrain
from causalprune.commands.record.command import record
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.evaluate import EvaluateConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig

RATES = (1e-2, 1e-4, 1e-6, 1e-7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mlpnet")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-root", default="")
    parser.add_argument("--epochs", type=int, default=5, help="of pretraining")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", nargs="+", type=float, default=RATES, help="of the recordings")
    parser.add_argument("--steps", type=int, default=1000, help="recorded gradients")
    parser.add_argument("--batch-size", type=int, default=1, help="samples in a gradient")
    parser.add_argument("--criteria", nargs="+", default=["obd", "chita"])
    parser.add_argument("--sparsity", type=float, action="append")
    options = parser.parse_args()
    options.sparsity = options.sparsity or [0.95]
    logging.getLogger("causalprune").setLevel(logging.ERROR)
    columns = [(criterion, sparsity) for criterion in options.criteria for sparsity in options.sparsity]
    found: dict[str, list[list[float]]] = {}
    dense = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            data = {"data_root": options.data_root, "seed": seed, "run": Path(folder) / f"{seed}"}
            training = {"model": options.model, "dataset": options.dataset, "batch_size": 256}
            pretrain(PretrainConfig(**training, epochs=options.epochs, **data))
            dense.append(accuracy(data["run"] / "pretrained.safetensors", data))
            for rate in (*options.lr, None):
                name = "held" if rate is None else f"{rate:.0e}"
                found.setdefault(name, []).append(row(rate, columns, options, data))
    print(f"accuracy %, mean ± sample standard deviation of {options.seeds} seeds; dense {show(dense)}")
    print(f"{'lr':8s}{'vanished':>10s}" + "".join(f"{f'{name}, {sparsity:g}':>16s}" for name, sparsity in columns))
    for name, rows in found.items():
        lost, *scores = np.array(rows).T
        share = "–" if name == "held" else f"{lost.mean():.1%}"
        print(f"{name:8s}{share:>10s}" + "".join(f"{show(s):>16s}" for s in scores))


def row(
    rate: float | None, columns: list[tuple[str, float]], options: argparse.Namespace, data: dict[str, Any]
) -> list[float]:
    """The share of changes that vanished, and an accuracy per criterion and sparsity."""
    how: dict[str, Any] = {"hold": True} if rate is None else {"lr": rate}
    record(RecordConfig(steps=options.steps, batch_size=options.batch_size, overwrite=True, **how, **data))
    found = [Store.open(data["run"] / "trajectory.zarr").recording().vanished_share or 0.0]
    for criterion, sparsity in columns:
        apply_mask(ApplyMaskConfig(criterion=criterion, sparsity=sparsity, overwrite=True, measure=False, **data))
        found.append(accuracy(data["run"] / "pruned.safetensors", data))
    return found


def accuracy(checkpoint: Path, data: dict[str, Any]) -> float:
    result = evaluate(EvaluateConfig(checkpoint=checkpoint, overwrite=True, **data))
    return 100 * float(result.evaluation["top1"])


def show(values: Any) -> str:
    return f"{np.mean(values):.2f} ±{np.std(values, ddof=1 if len(values) > 1 else 0):.2f}"


if __name__ == "__main__":
    main()
