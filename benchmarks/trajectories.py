"""Make the trajectory stores that the benchmarks of the fit read.

    python benchmarks/trajectories.py sgd-1m STORE

``sgd-*``: plain SGD on scikit-learn's digits with noise, both losses on the same minibatch, as ``record`` does.
``mom-*``: momentum 0.9, the loss change on other samples: a noisy target.
``syn-*``: synthetic deltas of any width: log-normal scales by layer, low rank and noise, 5 % zero columns.
Suffixes: tiny, 200k, 1m (real networks), 1m, 4m, 25m (synthetic; 25m has the layers' sizes of a ResNet50 and 64 steps).
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, Store

HIDDEN = {"tiny": (20, 20), "200k": (300, 500, 50), "1m": (700, 1200, 100)}
WIDTHS = {"1m": 1_000_000, "4m": 4_000_000, "25m": 25_000_000}
STEPS = {"tiny": 64, "200k": 512, "1m": 512, "4m": 512, "25m": 64}


def network(name: str, path: Path) -> None:
    """Record a real multilayer perceptron."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    from causalprune.training.recorder import Recorder

    kind, size = name.split("-")
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    images = images + 0.05 * torch.randn_like(images)
    labels = torch.tensor(digits.target)
    sizes = (64, *HIDDEN[size], 10)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    momentum, lr = (0.9, 0.02) if kind == "mom" else (0.0, 0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    draw = torch.Generator().manual_seed(0)
    steps = STEPS[size]

    def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(0, len(labels), (count,), generator=draw)
        return images[chosen], labels[chosen]

    for _ in range(20):
        optimizer.zero_grad()
        inputs, targets = batch(64)
        criterion(model(inputs), targets).backward()
        optimizer.step()
    with Recorder(model, optimizer, path, max_rows=steps) as recorder:
        for _ in range(steps):
            inputs, targets = batch(64)
            others = batch(256) if kind == "mom" else (inputs, targets)
            with torch.no_grad():
                before = criterion(model(others[0]), others[1])
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            recorder.step(before, lambda others=others: criterion(model(others[0]), others[1]))


def synthetic(name: str, path: Path) -> None:
    """Draw deltas; every row by its own seed, so that no more than one block of rows is ever in memory."""
    size = name.split("-")[1]
    width, steps, rank = WIDTHS[size], STEPS[size], 12
    rng = np.random.default_rng(0)
    edges = np.sort(rng.integers(0, width, 7))
    layer = np.searchsorted(edges, np.arange(width), side="right").astype(np.int8)
    level = rng.normal(-12, 1, 8).astype(np.float32)[layer] + rng.normal(0, 1, width).astype(np.float32)
    level[rng.random(width) < 0.05] = -np.inf
    loadings = rng.normal(0, 0.18, (rank, width)).astype(np.float32)
    factors = (np.cumsum(rng.normal(size=(steps, rank)), 0) * 0.05 + 0.5 * rng.normal(size=(steps, rank))).astype("f4")
    trend = -0.75 * np.linspace(0, 1, steps) + 0.15 * rng.normal(size=steps)
    causes = rng.choice(np.flatnonzero(np.isfinite(level)), 300, replace=False)
    strength = -np.abs(rng.normal(size=300)) * 1e-3 / np.exp(2 * level[causes])
    index = ParameterIndex.from_json([{"name": "synthetic.weight", "shape": [width], "filter_axis": 0}])
    store = Store.create(path, index=index, model={"name": "synthetic"}, start_sha256="")
    info = RecordingInfo(lr=0.05, batch_size=64, seed=0, start_sha256="", identity=name)
    noise = np.random.default_rng(1)
    writer = store.create_recording(info, np.ones(width, bool), max_rows=steps)
    for step in range(steps):
        scale = np.exp(level + np.float32(trend[step]) + factors[step] @ loadings)
        delta = scale * np.exp(0.35 * noise.standard_normal(width, np.float32))
        delta *= np.where(noise.random(width, np.float32) < 0.5, -1, 1).astype(np.float32)
        change = float((delta[causes].astype(np.float64) ** 2) @ strength)
        before = 2.0 - step * 1e-3
        after = before + change * (1 + 0.1 * noise.standard_normal())
        writer.append(delta, loss_before=before, loss_after=after, lr=0.05, epoch=0, batch=step, grad_norm=1.0)
    writer.finish()


def make(name: str, path: Path) -> Path:
    """Make a store unless it is there."""
    if not path.exists():
        started = time.perf_counter()
        (synthetic if name.startswith("syn") else network)(name, path)
        print(f"made {path} in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("store", type=Path)
    arguments = parser.parse_args()
    make(arguments.name, arguments.store)
