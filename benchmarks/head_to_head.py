"""One network pruned by torch.nn.utils.prune, by torch-pruning and by causalprune, as users of each would do it.

    python benchmarks/head_to_head.py [--seeds 3] [--smoke]

A small convolutional network is trained on scikit-learn's digits. Then 90 % of its weights are set to zero, or half of
the channels of each layer are removed. Accuracy is that of 297 held-out images, without any training after the pruning
and after five more epochs with the pruned weights held; mean and standard deviation of the seeds. Nonzero parameters,
the file that torch.save writes, and the time for a batch of 256 on one thread are of the final network; times are
medians of rounds in which the networks alternate, relative to the dense network's. `lines` are the lines of code in the
function that prunes, as they stand in this file.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch_pruning
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

import causalprune as cp

SPARSITY, CHANNELS = 0.9, 0.5
EPOCHS, FINE_TUNING = 15, 5


class Network(nn.Module):
    """Three convolutions with batch normalization, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 64, 64)
        self.features = nn.Sequential(
            *(
                layer
                for before, after in itertools.pairwise(widths)
                for layer in (nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())
            ),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(4 * widths[-1], 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))


@dataclass
class Bench:
    """Data, and the loop that every way trains with."""

    loader: DataLoader
    test: tuple[torch.Tensor, torch.Tensor]
    epochs: int
    fine_tuning: int
    folder: Path

    def train(self, model: nn.Module, epochs: int, hold: Callable[[torch.optim.Optimizer], object] | None = None):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        if hold is not None:
            hold(optimizer)
        model.train()
        for _ in range(epochs):
            for images, labels in self.loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
        model.eval()

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        images, labels = self.test
        return 100 * float((model.eval()(images).argmax(1) == labels).float().mean())


@dataclass
class Pruned:
    """A pruned network, what holds its zeros in a training, and what is done with it at the end."""

    model: nn.Module
    hold: Callable[[torch.optim.Optimizer], object] | None = None
    finish: Callable[[nn.Module], nn.Module] = lambda model: model.eval()


def without_hooks(model: nn.Module, layers: list[tuple[nn.Module, str]]) -> nn.Module:
    for layer, name in layers:
        prune.remove(layer, name)
    return model.eval()


def torch_weights(model: nn.Module, _: Bench) -> Pruned:
    layers = [(m, "weight") for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=SPARSITY)
    return Pruned(model, finish=lambda trained: without_hooks(trained, layers))


def causalprune_recorded(model: nn.Module, bench: Bench) -> Pruned:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    store = bench.folder / "trajectory.zarr"
    model.train()
    with cp.Recorder(model, optimizer, store, overwrite=True) as recorder:
        for _ in range(5):
            for images, labels in bench.loader:
                loss = nn.functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                recorder.step(loss, lambda x=images, y=labels: nn.functional.cross_entropy(model(x), y))
    mask = cp.prune(model, store, sparsity=SPARSITY)
    return Pruned(model, mask.hold)


def causalprune_repaired(model: nn.Module, bench: Bench) -> Pruned:
    dense = copy.deepcopy(model)
    mask = cp.prune(model, sparsity=SPARSITY, criterion="rank-sum", inputs=bench.loader)
    cp.repair(model, mask, dense=dense, inputs=bench.loader)
    return Pruned(model, mask.hold)


def torch_pruning_channels(model: nn.Module, bench: Bench) -> Pruned:
    images, _ = next(iter(bench.loader))
    torch_pruning.pruner.BasePruner(
        model,
        images,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=CHANNELS,
        ignored_layers=[model.classifier],
    ).step()
    return Pruned(model)


def causalprune_channels(model: nn.Module, bench: Bench) -> Pruned:
    dense = copy.deepcopy(model)
    mask = cp.prune(
        model,
        sparsity=CHANNELS,
        criterion="rank-sum",
        granularity="channel",
        scope="layer",
        keep="classifier",
        inputs=bench.loader,
    )
    cp.repair(model, mask, dense=dense, inputs=bench.loader)
    return Pruned(model, mask.hold, lambda trained: cp.compact(trained, mask, inputs=bench.loader))


WAYS: dict[str, Callable[[nn.Module, Bench], Pruned]] = {
    "90 % of weights, torch.nn.utils.prune": torch_weights,
    "90 % of weights, causalprune, from a recording": causalprune_recorded,
    "90 % of weights, causalprune, with repair": causalprune_repaired,
    "half of channels, torch-pruning": torch_pruning_channels,
    "half of channels, causalprune, with repair": causalprune_channels,
}


def lines_of(way: Callable[..., object]) -> int:
    """Lines between a function's head and its end."""
    return len(inspect.getsource(way).strip().splitlines()) - 1


def milliseconds(models: dict[str, nn.Module], rounds: int) -> dict[str, float]:
    images, times = torch.randn(256, 1, 8, 8), {name: [] for name in models}
    with torch.no_grad():
        for number in range(rounds + 1):
            for name, model in models.items():
                begun = time.perf_counter()
                model(images)
                if number:
                    times[name].append(time.perf_counter() - begun)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one seed and one epoch: whether it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images).float().view(-1, 1, 8, 8) / 16, torch.tensor(labels)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in ("dense", *WAYS)}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1 if options.smoke else options.seeds):
            torch.manual_seed(seed)
            order = torch.randperm(len(images))
            train, test = order[:1500], order[1500:]
            loader = DataLoader(TensorDataset(images[train], labels[train]), batch_size=50, shuffle=True)
            epochs = (1, 1) if options.smoke else (EPOCHS, FINE_TUNING)
            bench = Bench(loader, (images[test], labels[test]), *epochs, Path(folder))
            dense = Network()
            bench.train(dense, bench.epochs)
            finals = {"dense": dense}
            results["dense"].append((bench.accuracy(dense), bench.accuracy(dense)))
            for name, way in WAYS.items():
                pruned = way(copy.deepcopy(dense), bench)
                before = bench.accuracy(pruned.model)
                bench.train(pruned.model, bench.fine_tuning, pruned.hold)
                finals[name] = pruned.finish(pruned.model)
                results[name].append((before, bench.accuracy(finals[name])))
    times = milliseconds(finals, 3 if options.smoke else 100)
    print("| what | as pruned | trained on | parameters not 0 | file | time of a batch | lines |")
    print("|---|---|---|---|---|---|---|")
    for name, model in finals.items():
        before, after = (
            f"{statistics.mean(values):.1f} ±{statistics.stdev(values) if len(values) > 1 else 0:.1f}"
            for values in zip(*results[name], strict=True)
        )
        nonzero = sum(int(p.count_nonzero()) for p in model.parameters())
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        ratio = times[name] / times["dense"]
        lines = lines_of(WAYS[name]) if name in WAYS else "–"
        print(
            f"| {name} | {before} | {'–' if name == 'dense' else after} | {nonzero:,} | {file.tell() / 1000:,.0f} kB "
            f"| {ratio:.2f} | {lines} |"
        )


if __name__ == "__main__":
    main()
