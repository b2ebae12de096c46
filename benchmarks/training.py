"""An epoch of training on CIFAR-10's sizes: our loop, and one written as usual with a DataLoader.

    python benchmarks/training.py [--network resnet20] [--samples 20000] [--batch-sizes 64 256] [--workers 0 2]
    python benchmarks/training.py --smoke

Both train the same network on the same images (random ones: pixels don't change the time) with crops and flips,
validate after the epoch and keep the loss and the accuracy of each. The usual loop, as the authors' trainer, takes one
image after the other through torchvision's transforms, in the loader's workers or without any, and reads loss and
accuracy of every minibatch. CPU seconds include those of workers. What the network itself costs, which bounds every
trainer, has a line of its own. ``channels last`` and ``bf16``: with ``--channels-last`` and ``--amp bf16``; the usual
loop has a line with these, too.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lines import put
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from causalprune.base.progress import SILENT
from causalprune.base.signals import StopRequest
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import DataSet, load_data
from causalprune.models.mask import Mask
from causalprune.models.networks import LeNet, ResNet20
from causalprune.models.parameters import ParameterIndex
from causalprune.training.loop import train
from causalprune.training.options import TrainingOptions

SHAPE = (3, 32, 32)
FAST = ", channels last, bf16"
NETWORKS = {"lenet": LeNet, "resnet20": ResNet20}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Images(Dataset):
    """As torchvision.datasets.CIFAR10: an image is made and transformed when it is asked for."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Callable[[Image.Image], torch.Tensor]):
        self.images, self.labels, self.transform = images.permute(0, 2, 3, 1).numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[number])), self.labels[number]


def ours(data: DataSet, network: str, batch_size: int, *, channels_last: bool = False, amp: str = "none") -> None:
    torch.manual_seed(0)
    model = NETWORKS[network](SHAPE, 10)
    train(
        model,
        data,
        TrainingOptions(
            epochs=1, batch_size=batch_size, checkpoint_every="never", channels_last=channels_last, amp=amp
        ),
        mask=Mask.all(ParameterIndex.from_model(model)),
        device=torch.device("cpu"),
        seed=0,
        save=lambda _: None,
        stop=StopRequest(),
        reporter=SILENT,
        description="",
    )


def autocast(amp: str) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp == "bf16")


def usual(
    data: DataSet, network: str, batch_size: int, *, workers: int, channels_last: bool = False, amp: str = "none"
) -> None:
    torch.manual_seed(0)
    model, criterion = NETWORKS[network](SHAPE, 10), nn.CrossEntropyLoss()
    options = TrainingOptions()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
    )
    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    augmented = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            plain.transforms[0],
            plain.transforms[1],
        ]
    )
    loaders = {
        name: DataLoader(
            Images(split.inputs, split.targets, transform),
            batch_size=batch_size,
            shuffle=name == "train",
            num_workers=workers,
        )
        for name, split, transform in (("train", data.train, augmented), ("validation", data.validation, plain))
    }
    for name, loader in loaders.items():
        model.train(name == "train")
        total, correct = 0.0, 0
        with torch.set_grad_enabled(name == "train"):
            for inputs, targets in loader:
                if channels_last:
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                with autocast(amp):
                    outputs = model(inputs)
                    loss = criterion(outputs, targets)
                if name == "train":
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                total += loss.item() * len(targets)
                correct += (outputs.argmax(1) == targets).sum().item()


def compute(data: DataSet, network: str, batch_size: int, *, channels_last: bool = False, amp: str = "none") -> None:
    """Forward and backward passes and steps alone, always of the same minibatch: no trainer can be faster."""
    torch.manual_seed(0)
    model, criterion = NETWORKS[network](SHAPE, 10), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs, targets = torch.randn(batch_size, *SHAPE), torch.arange(batch_size) % 10
    if channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    for _ in range(len(data.train) // batch_size):
        optimizer.zero_grad()
        with autocast(amp):
            loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
    with torch.no_grad(), autocast(amp):
        for _ in range(len(data.validation) // batch_size):
            model(inputs)


def seconds(action: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds, those of ended workers included."""

    def used() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    started, before = time.perf_counter(), used()
    action()
    return time.perf_counter() - started, used() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--samples", type=int, default=20_000, help="of the training split")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the DataLoader")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="the smallest form, for a test")
    options = parser.parse_args()
    if options.smoke:
        options.samples, options.batch_sizes, options.workers, options.rounds = 128, [64], [0], 1
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "images.npz"
        counts = {"train": options.samples * 10 // 9 + 1, "test": 50}
        arrays = {f"x_{name}": rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8) for name, n in counts.items()}
        np.savez(path, **arrays, **{f"y_{name}": np.arange(n) % 10 for name, n in counts.items()})
        data = load_data(DataSpec(name=f"npz:{path}", augment="crop-flip"))
        threads = torch.get_num_threads()
        print(f"torch {torch.__version__}, {threads} threads, {len(os.sched_getaffinity(0))} cores;", end=" ")
        print(f"{options.network}, {len(data.train)} images of 3 × 32 × 32,", end=" ")
        print(f"{len(data.validation)} to validate; median of {options.rounds}")
        print("\n| batch | trainer | s/epoch | CPU s/epoch | × ours | CPU × ours |\n|---|---|---|---|---|---|")
        for batch_size in options.batch_sizes:
            # Each with the network and the size of its minibatches.
            ways: dict[str, Callable[..., None]] = {"causalprune": ours, "passes and steps alone": compute}
            for workers in options.workers:
                ways[f"DataLoader, {workers} workers"] = partial(usual, workers=workers)
            plain = [*ways]
            ways |= {f"{name}, channels last": partial(ways[name], channels_last=True) for name in plain[:2]}
            ways |= {f"{name}{FAST}": partial(ways[name], channels_last=True, amp="bf16") for name in plain[:3]}
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(options.rounds):
                for name, action in ways.items():
                    found[name].append(seconds(partial(action, data, options.network, batch_size)))
            for name, pairs in found.items():
                wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
                ratios = [
                    statistics.median(a[which] / b[which] for a, b in zip(pairs, found["causalprune"], strict=True))
                    for which in (0, 1)
                ]
                print(
                    f"| {batch_size} | {name} | {wall:.2f} | {cpu:.2f} | {ratios[0]:.1f} | {ratios[1]:.1f} |",
                    flush=True,
                )
            cpu = {name: statistics.median(seconds for _, seconds in pairs) for name, pairs in found.items()}
            peer = min((name for name in plain if name.startswith("DataLoader")), key=cpu.__getitem__)
            for options_of in ("", FAST):
                own, alone = cpu["causalprune" + options_of], cpu["passes and steps alone" + options_of]
                put(
                    f"an epoch of {options.network}, batch {batch_size}{options_of}",
                    f"{own:.2f} CPU s",
                    f"{cpu[peer]:.2f} CPU s, {peer}",
                    f"{alone:.2f} CPU s, passes and steps alone",
                    cpu[peer] / own,
                )


if __name__ == "__main__":
    main()
