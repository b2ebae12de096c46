"""What a GPU does with it: the overhead of recording, the bytes a second, and how fast γ is fitted.

    python benchmarks/gpu.py record [--device cuda] [--seconds 180] [--directory DIR]
    python benchmarks/gpu.py fit [--device cuda]
    python benchmarks/gpu.py record --device cpu [--smoke]
    python benchmarks/gpu.py fit --device cpu [--smoke]

On a bare machine with PyTorch, torchvision and NumPy it needs no installation: PYTHONPATH=. and the wheels of
numcodecs and google-crc32c, of filelock where PyTorch brought one before 4.3, and for ``fit`` of SciPy and
threadpoolctl.

``record``: a step of the loop is a forward and a backward pass, SGD's step, and the second forward pass for the loss
after it, in float32 without TensorFloat-32. ``overhead`` is the time of the loop that records over that of the same
loop which records nothing and reads neither loss, so that it never waits for the GPU; until all rows are on the disk.
All of it ends within ``--seconds`` and what the imports take: each network gets a share, and takes as many steps as
fit.

``fit`` is described in device_fits.py.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from device_fits import compare_fits
from recording_loops import Recorded, Rounds, Training, finish, lenet, resnet18, resnet50, tiny
from torch import nn

from causalprune.base.compute.precision import full_precision
from causalprune.trajectory import Store


@dataclass(frozen=True)
class Case:
    """A network, its minibatch, and the share of the time that it gets."""

    title: str
    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    share: float


CASES = {
    "cuda": [
        Case("LeNet, 256 of 28×28", lenet, (256, 1, 28, 28), 0.15),
        Case("ResNet18, 256 of 32×32", resnet18, (256, 3, 32, 32), 0.25),
        Case("ResNet50, 256 of 224×224", resnet50, (256, 3, 224, 224), 0.6),
    ],
    "cpu": [
        Case("LeNet, 64 of 28×28", lenet, (64, 1, 28, 28), 0.2),
        Case("ResNet18, 32 of 32×32", resnet18, (32, 3, 32, 32), 0.3),
        Case("ResNet50, 4 of 224×224", resnet50, (4, 3, 224, 224), 0.5),
    ],
}
"""A CPU gets smaller minibatches, which make the overhead larger."""

SMOKE = [Case("one layer, 8 of 28×28", tiny, (8, 1, 28, 28), 1.0)]

ROUNDS = 4
MOST_ROWS = 2**16


def steps_of(case: Case, device: str, seconds: float) -> int:
    """Steps of a round, so that all rounds of both loops take about so many seconds."""
    loop = Training(case.network, case.shape, 1, Path(), device)
    for _ in range(3):
        loop.step()
    finish(loop.device)
    started = time.perf_counter()
    for _ in range(3):
        loop.step()
    finish(loop.device)
    each = (time.perf_counter() - started) / 3
    return max(2, min(MOST_ROWS // (ROUNDS + 1), int(seconds / each / (2 * (ROUNDS + 1)))))


def measure(case: Case, device: str, seconds: float, directory: Path) -> str:
    """A line of the table."""
    steps = steps_of(case, device, seconds)
    rows = steps * (ROUNDS + 1)
    loops: dict[str, Training] = {
        "nothing": Training(case.network, case.shape, rows, directory, device),
        "causalprune": Recorded(case.network, case.shape, rows, directory, device),
    }
    found = Rounds(loops, steps, ROUNDS)
    for loop in loops.values():
        loop.close()
    stored = Store.open(directory / "t.zarr").recording().stored_bytes / rows
    raw = 4 * loops["nothing"].index.total
    step = statistics.median(found.wall["causalprune"])
    extra = statistics.median(a - b for a, b in zip(found.cpu["causalprune"], found.cpu["nothing"], strict=True))
    cells = (
        f"{case.title} ({raw / 4e6:.1f} M)",
        f"{1000 * statistics.median(found.wall['nothing']):.2f}",
        f"{1000 * step:.2f}",
        found.overhead("causalprune"),
        f"{100 * statistics.median(found.behind['causalprune']) / step:.1f} %",
        f"{raw / step / 1e9:.2f}",
        f"{stored / step / 1e9:.2f}",
        f"{1000 * extra:.1f}",
        f"{steps}",
    )
    return "| " + " | ".join(cells) + " |"


def record(options: argparse.Namespace) -> None:
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}, {torch.get_num_threads()} threads; median of {ROUNDS} rounds (range)\n")
    head = ("loop", "ms/step, nothing recorded", "ms/step, recorded", "overhead", "of it, waiting at end")
    head += ("raw GB/s", "stored GB/s", "extra CPU ms/step", "steps a round")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    cases = SMOKE if options.smoke else CASES[options.device]
    with tempfile.TemporaryDirectory(dir=options.directory) as name, full_precision():
        for number, case in enumerate(cases):
            directory = Path(name) / f"{number}"
            directory.mkdir()
            print(measure(case, options.device, case.share * options.seconds, directory), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "fit"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=180, help="for all of ``record``")
    parser.add_argument("--directory", type=Path, help="where to record, on the disk to be measured")
    parser.add_argument("--smoke", action="store_true", help="the smallest form, for a test")
    options = parser.parse_args()
    if options.what == "fit":
        compare_fits(options.device, smoke=options.smoke)
        return
    if options.smoke:
        options.seconds = 0.1
    record(options)


if __name__ == "__main__":
    main()
