"""A large network on a small machine: ResNet50 at 224×224 is recorded, fitted, pruned and repaired on a CPU.

    python benchmarks/large.py [--steps 32] [--batch 2] [--columns 1 0.1] [--memory 2GB] [--directory DIR]
    python benchmarks/large.py --smoke

Images and labels are drawn at random, the weights are those that a new network has: what is measured is time and
memory, which don't depend on them. Each line is a process of its own. ``peak beyond`` is its largest resident memory
minus that when PyTorch was imported and the network was made: activations, gradients, rows that aren't stored yet. A
fit needs no network; its ``limit`` is ``--memory``. Needs about 2 GB of disk in DIR, else where temporary files go.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lines import put
from torch import nn

import causalprune
from causalprune import Recorder, Store

LIMIT = 4.0
"""GB beyond the network that recording and repairing may take."""

SPARSITY = 0.2
"""Of the recorded weights of each layer, what is pruned."""


def memory(what: str) -> float:
    """``VmRSS`` or ``VmHWM``, in GB."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e9


def network(smoke: bool) -> nn.Module:
    from torchvision.models import resnet50
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10, width_per_group=2) if smoke else resnet50()


def images(count: int, smoke: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    side, classes = (32, 10) if smoke else (224, 1000)
    return torch.randn(count, 3, side, side, generator=draw), torch.randint(0, classes, (count,), generator=draw)


def record(args: argparse.Namespace, share: float) -> dict[str, Any]:
    model = network(args.smoke)
    before, path = memory("VmRSS"), args.directory / f"{share:g}.zarr"
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    started = time.perf_counter()
    with Recorder(model, optimizer, path, max_rows=args.steps, columns=share) as recorder:
        for step in range(args.steps):
            inputs, targets = images(args.batch, args.smoke, step)

            def measure(inputs: torch.Tensor = inputs, targets: torch.Tensor = targets) -> torch.Tensor:
                return nn.functional.cross_entropy(model(inputs), targets)

            loss = measure()
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, measure)
    seconds = time.perf_counter() - started
    torch.save(model.state_dict(), args.directory / f"{share:g}.pt")
    reader = Store.open(path).recording()
    what = f"{reader.num_rows} × {reader.num_columns:,} in {reader.stored_bytes / 1e9:.2f} GB"
    return {"beyond": memory("VmHWM") - before, "seconds": seconds, "what": what}


def fit(args: argparse.Namespace, share: float) -> dict[str, Any]:
    before, started = memory("VmRSS"), time.perf_counter()
    found = causalprune.fit(args.directory / f"{share:g}.zarr", memory=args.memory)
    evidence = found.evidence
    what = f"{evidence['num_nonzero']} γ ≠ 0 in {evidence['passes']:.2f} passes, gap {evidence['relative_gap']:.1g}"
    return {"beyond": memory("VmHWM") - before, "seconds": time.perf_counter() - started, "what": what}


def repair(args: argparse.Namespace, share: float) -> dict[str, Any]:
    model = network(args.smoke)
    model.load_state_dict(torch.load(args.directory / f"{share:g}.pt"))
    before, started = memory("VmRSS"), time.perf_counter()
    dense = copy.deepcopy(model.state_dict())
    store, sparsity = args.directory / f"{share:g}.zarr", SPARSITY * share
    mask = causalprune.prune(model, store, criterion="effect", sparsity=sparsity, scope="layer")
    inputs, _ = images(args.samples, args.smoke, 1_000_000)
    batches = inputs.split(args.batch)
    layers = causalprune.repair(model, mask, dense=dense, inputs=list(batches), samples=args.samples)
    missed = [sum(getattr(layer, name) for layer in layers) / len(layers) for name in ("before", "after")]
    what = f"{mask.sparsity:.1%} pruned, layers miss {missed[0]:.2%}, then {missed[1]:.2%} of their outputs"
    return {"beyond": memory("VmHWM") - before, "seconds": time.perf_counter() - started, "what": what}


STAGES = {"record": record, "fit": fit, "repair": repair}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8, help="images on which the layers are repaired")
    parser.add_argument("--columns", type=float, nargs="+", help="shares to record, one by one [1 0.1]")
    parser.add_argument("--memory", default="2GB", help="limit of the fit")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--smoke", action="store_true", help="as small as it gets")
    parser.add_argument("--stages", choices=STAGES, nargs="+", default=list(STAGES))
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.columns = args.columns or ([0.1] if args.smoke else [1.0, 0.1])
    if args.smoke:
        args.steps, args.memory = min(args.steps, 4), "400MB"
    if args.stage:
        print(json.dumps(STAGES[args.stage](args, *args.columns)))
        return
    with tempfile.TemporaryDirectory(dir=args.directory) as folder:
        size = sum(p.numel() for p in network(args.smoke).parameters())
        side = 32 if args.smoke else 224
        print(f"\n{size:,} parameters, {args.batch} images of {side}×{side} a step\n")
        print("| stage | columns | seconds | peak beyond, GB | limit, GB | what came out |\n|---|---|---|---|---|---|")
        limit = {"fit": f"{args.memory} of `memory`"}
        for share in args.columns:
            for stage in args.stages:
                command = [sys.executable, __file__, *sys.argv[1:], "--directory", folder, "--stage", stage]
                done = subprocess.run(
                    [*command, "--columns", f"{share}"], check=True, stdout=subprocess.PIPE, text=True
                )
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"| {stage} | {share:.0%} | {found['seconds']:.0f} | {found['beyond']:.2f} | "
                    f"{limit.get(stage, f'{LIMIT:g}')} | {found['what']} |",
                    flush=True,
                )
                aim = f"*{args.memory}*, its `memory`" if stage == "fit" else f"*{LIMIT:g} GB*"
                of_them = f", {share:.0%} recorded" if share < 1 else ""
                work = f"memory to {stage} {size / 1e6:.1f} M weights, {args.steps} steps{of_them}"
                put(work, f"{found['beyond']:.2f} GB", limit=aim)


if __name__ == "__main__":
    main()
