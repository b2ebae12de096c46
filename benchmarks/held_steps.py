"""How well a held step measures the curvature along its gradient, by the share of the loss that the step takes.

Against gᵀHg/‖g‖⁴ by two backward passes in float64, for single samples of networks as ``pretrain`` makes them.

    python benchmarks/held_steps.py --data-root DIR    (DIR holds MNIST/raw)
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from causalprune import Recorder, Store
from causalprune.commands._network import set_up
from causalprune.commands.pretrain import pretrain
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig
from causalprune.data.batches import Batches
from causalprune.models.checkpoint import load_checkpoint
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.gradients import measured_curvature

NETWORKS = {
    "lenet": {"dataset": "digits", "epochs": 8},
    "resnet20": {"dataset": "digits", "epochs": 4},
    "mlpnet": {"dataset": "mnist", "epochs": 3, "batch_size": 256},
}
SHARES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)


class Float32(nn.Module):
    """Outputs in float32, with which losses are measured in float32."""

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--samples", type=int, default=100)
    options = parser.parse_args()
    logging.getLogger("causalprune").setLevel(logging.ERROR)
    print(f"relative error of d, median and 95 %, and rows flagged, of {options.samples} single samples")
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in NETWORKS.items():
            run = Path(folder) / name
            pretrain(PretrainConfig(run=run, model=name, data_root=options.data_root, **settings))
            model, samples = load(run, options)
            exact = [curvature(model, *sample) for sample in samples]
            print(f"\n{name:10s}{'losses in float64':>32s}{'losses in float32':>32s}")
            for share in SHARES:
                cells = [measure(network, samples, share, run) for network in (model, nn.Sequential(model, Float32()))]
                print(f"{share:<10g}" + "".join(row(*cell, np.array(exact)) for cell in cells), flush=True)


def load(run: Path, options: argparse.Namespace) -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    path = run / "pretrained.safetensors"
    config = RecordConfig(run=run, data_root=options.data_root, device="cpu")
    device, data, model, _ = set_up(load_checkpoint(path), path, config)
    batches = Batches(data, "train", batch_size=1, device=device, seed=0).epoch(0)
    return model.eval(), [batch for batch, _ in zip(batches, range(options.samples), strict=False)]


def curvature(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """gᵀHg/‖g‖⁴ of the prunable weights."""
    twin = copy.deepcopy(model).double()
    named = dict(twin.named_parameters())
    weights = [named[entry.name] for entry in ParameterIndex.from_model(twin)]
    gradients = torch.autograd.grad(cross_entropy(twin(inputs.double()), targets), weights, create_graph=True)
    along = sum((g * g.detach()).sum() for g in gradients)
    products = torch.autograd.grad(along, weights)
    norm = sum(float((g.detach() ** 2).sum()) for g in gradients)
    return sum(float((p * g.detach()).sum()) for p, g in zip(products, gradients, strict=True)) / norm**2


def measure(
    model: nn.Module, samples: list[tuple[torch.Tensor, torch.Tensor]], share: float, run: Path
) -> tuple[np.ndarray, np.ndarray]:
    optimizer = torch.optim.SGD(model.parameters())
    store = run / "held.zarr"
    with Recorder(model, optimizer, store, hold=True, hold_share=share, overwrite=True) as recorder:
        for inputs, targets in samples:
            loss = cross_entropy(model(inputs).double(), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda x=inputs, y=targets: cross_entropy(model(x).double(), y))
    reader = Store.open(store).recording()
    found = measured_curvature(reader.steps, reader.precision)
    return found.values, found.noisy


def row(found: np.ndarray, noisy: np.ndarray, exact: np.ndarray) -> str:
    median, most = np.quantile(np.abs(found / exact - 1), [0.5, 0.95])
    return f"{median:>12.1e}{most:>10.1e}{noisy.mean():>10.0%}"


if __name__ == "__main__":
    main()
