"""What a repair without data costs: from the recording's layer statistics, beside one from as many samples.

An MLP (784-300-100-10) on MNIST and ResNet20, which has batch normalization, on the digits, each pruned in one shot and
not trained afterwards. Unrepaired networks get new running statistics from 1,000 training samples.

    python benchmarks/repair_without_data.py --data-root DIR    (DIR holds MNIST/raw)
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from causalprune.commands.apply_mask.command import apply_mask
from causalprune.commands.evaluate.command import evaluate
from causalprune.commands.pretrain import pretrain
from causalprune.commands.record.command import record
from causalprune.commands.repair import repair
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.evaluate import EvaluateConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig
from causalprune.config.repair import RepairConfig

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp on mnist": {"model": "mlp", "hidden": "300,100", "dataset": "mnist", "epochs": 5, "batch_size": 128},
    "resnet20 on digits": {"model": "resnet20", "dataset": "digits", "epochs": 10},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--criteria", nargs="+", default=["magnitude", "surgeon"])
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.7, 0.8, 0.9, 0.95])
    options = parser.parse_args()
    for name in options.networks:
        found: dict[str, list[list[float]]] = {}
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                for line, values in measured(NETWORKS[name], Path(folder), seed, options):
                    found.setdefault(line, []).append(values)
        print(f"\n{name}: accuracy % on the test split, mean of {options.seeds} seeds")
        print(f"{'pruned':36}", *(f"{s:8.2f}" for s in options.sparsities))
        for line, rows in found.items():
            print(f"{line:36}", *(f"{100 * value:8.2f}" for value in np.mean(rows, axis=0)), flush=True)


def measured(
    network: dict[str, Any], run: Path, seed: int, options: argparse.Namespace
) -> Iterator[tuple[str, list[float]]]:
    """One line of accuracies per criterion and repair."""
    where = {"run": run, "data_root": options.data_root, "overwrite": True}
    pretrain(PretrainConfig(**network, **where, seed=seed))
    record(RecordConfig(**where, steps=200, layer_statistics=True, seed=seed))
    dense = run / "recorded.safetensors"

    def accuracy(checkpoint: Path) -> float:
        return evaluate(EvaluateConfig(**where, checkpoint=checkpoint)).evaluation["top1"]

    yield "dense", [accuracy(dense)] * len(options.sparsities)
    for criterion in options.criteria:
        lines: dict[str, list[float]] = {}
        for sparsity in options.sparsities:
            apply_mask(ApplyMaskConfig(**where, criterion=criterion, sparsity=sparsity, measure=False))
            lines.setdefault(criterion, []).append(accuracy(run / "pruned.safetensors"))
            for how, from_statistics in (("statistics", True), ("samples", False)):
                repair(RepairConfig(**where, dense=dense, from_statistics=from_statistics, seed=seed))
                line = f"{criterion}, repaired from {how}"
                lines.setdefault(line, []).append(accuracy(run / "repaired.safetensors"))
        yield from lines.items()


if __name__ == "__main__":
    main()
