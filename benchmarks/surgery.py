"""The time and the peak memory of ``obs`` at several sparsities beside ``chita`` at one, each in a process of its own.

    python benchmarks/surgery.py                a LeNet of 656,500 weights, 1,000 gradients, at most 400 MB of them
    python benchmarks/surgery.py --network resnet18 --gradients 40 --memory 400MB --criteria obs
                                                11 million weights, whose gradients take 1.8 GB
    python benchmarks/surgery.py --smoke        a small network, in seconds

Weights and samples are random: only time and memory are measured. Both read the same held recording.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

import causalprune as cp
from causalprune.models.networks import LeNet
from causalprune.pruning.surgery.kept import last_results_kept

SHAPE = (3, 32, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("lenet", "resnet18"), default="lenet")
    parser.add_argument("--gradients", type=int, default=1000)
    parser.add_argument("--memory", default="400MB")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.8, 0.9, 0.95, 0.98])
    parser.add_argument("--one", type=float, default=0.95, help="the sparsity of chita")
    parser.add_argument("--criteria", nargs="+", default=["obs", "chita"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.smoke:
        options.gradients, options.memory, options.sparsities = 10, "1MB", [0.5, 0.9]
    if options.child:
        measure(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "trajectory.zarr"
        model = network(options)
        record(model, store, options.gradients)
        weights = cp.Store.open(store).index.total
        threads = torch.get_num_threads()
        print(f"{weights:,} weights, {options.gradients:,} gradients, --memory {options.memory}, {threads} threads\n")
        print("| criterion | sparsities | seconds | seconds of the CPU | peak memory, GB |\n|---|---|---|---|---|")
        for criterion in options.criteria:
            command = [sys.executable, __file__, *sys.argv[1:], "--child", f"{criterion}={store}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            numbers = f"{found['seconds']:.1f} | {found['cpu']:.1f} | {found['peak'] / 1e9:.2f}"
            print(f"| {criterion} | {found['sparsities']} | {numbers} |", flush=True)


def network(options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    if options.smoke:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    return (resnet18(num_classes=10) if options.network == "resnet18" else LeNet(SHAPE, 10)).eval()


def record(model: nn.Module, store: Path, steps: int) -> None:
    optimizer, loss_of = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    with cp.Recorder(model, optimizer, store, hold=True) as recorder:
        for _ in range(steps):
            inputs, label = torch.randn(1, *SHAPE), torch.randint(10, (1,))
            optimizer.zero_grad()
            loss = loss_of(model(inputs).double(), label)
            loss.backward()
            recorder.step(loss, lambda inputs=inputs, label=label: loss_of(model(inputs).double(), label))


def measure(options: argparse.Namespace) -> None:
    """Prune in this process, and print what it took."""
    criterion, _, store = options.child.partition("=")
    sparsities = options.sparsities if criterion == "obs" else [options.one]
    start, used = time.perf_counter(), time.process_time()
    with last_results_kept():
        for sparsity in sparsities:
            model = network(options).to(options.device)
            cp.prune(model, store, sparsity=sparsity, criterion=criterion, memory=options.memory)
    found = {
        "sparsities": ", ".join(map(str, sparsities)),
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - used,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
