"""What repair and layer costs take beside the least that they could take, in one run.

    python benchmarks/prune.py repair     ResNet20 from 500 samples, beside the products of its layers' inputs alone
    python benchmarks/prune.py memory     peak memory of the repair of ResNet50 at 224×224 from 200 samples
    python benchmarks/prune.py surgeon    the costs of a 2,048 × 2,048 layer, beside SparseGPT written out plainly

Rows of which other weights are pruned share no factor: each takes O(2048³), which SparseGPT avoids by one order of
columns for all rows. So only some of these rows are timed.

``--small`` makes each a matter of seconds. Weights are random: only time and memory are measured.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import time
from collections.abc import Callable

import torch
from lines import put
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18, resnet50

from causalprune.models.mask import Mask
from causalprune.models.networks import ResNet20
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.least_squares import inverse_diagonals
from causalprune.pruning.repair import repair_layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("repair", "memory", "surgeon"))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    {"repair": measure_repair, "memory": measure_memory, "surgeon": measure_surgeon}[options.what](options)


def pruned_copy(dense: nn.Module, sparsity: float) -> tuple[nn.Module, Mask]:
    """Pruned by magnitude, over all layers."""
    index = ParameterIndex.from_model(dense)
    magnitude = index.flatten(dense.state_dict()).abs()
    keep = torch.zeros(index.total, dtype=torch.bool)
    keep[magnitude.argsort(descending=True)[: round((1 - sparsity) * index.total)]] = True
    pruned, mask = copy.deepcopy(dense), Mask(index, keep)
    mask.apply_(pruned)
    return pruned, mask


def measure_repair(options: argparse.Namespace) -> None:
    dense = ResNet20((3, 32, 32), 10).eval()
    samples = torch.randn(20 if options.small else 500, 3, 32, 32)
    pruned, mask = pruned_copy(dense, 0.9)

    def repair() -> None:
        network = copy.deepcopy(pruned)
        list(repair_layers(network, dense, mask, samples.split(250)))

    def products() -> None:
        """UᵀU of every convolution and of the last layer, in float32, from inputs that are in memory already."""
        for layer, u in inputs:
            rows = functional.unfold(u, layer.kernel_size, padding=layer.padding, stride=layer.stride).mT.flatten(0, 1)
            rows.T @ rows

    inputs: list[tuple[nn.Conv2d, torch.Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda layer, given, _: inputs.append((layer, given[0])))
        for module in dense.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        dense(samples)
        for hook in hooks:
            hook.remove()
        compare(
            f"repair of ResNet20, {len(samples)} samples", repair, "products of its inputs", products, options.rounds
        )


def measure_memory(options: argparse.Namespace) -> None:
    dense = (resnet18 if options.small else resnet50)(weights=None).eval()
    samples = torch.randn(8 if options.small else 200, 3, 224, 224)
    pruned, mask = pruned_copy(dense, 0.9)
    start = time.perf_counter()
    layers = list(repair_layers(pruned, dense, mask, samples.split(20)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{type(dense).__name__}, {len(layers)} layers, {len(samples)} samples: {time.perf_counter() - start:.1f} s, "
        f"peak memory of the process {peak / 1e9:.2f} GB"
    )


def measure_surgeon(options: argparse.Namespace) -> None:
    size = 256 if options.small else 2048
    weight, inputs = torch.randn(size, size), torch.randn(2 * size, size, dtype=torch.float64)
    gram = inputs.T @ inputs / len(inputs)
    few = torch.rand(32, size) < 0.5
    for rows, keep in (
        (f"{size} rows of {size}, nothing pruned yet", torch.ones(size, size, dtype=torch.bool)),
        (f"{len(few)} rows of {size}, half of each pruned", few),
    ):
        compare(
            f"costs of weights by `surgeon`, {rows}",
            lambda: inverse_diagonals(gram, keep),  # noqa: B023
            f"SparseGPT of all {size} rows",
            lambda: sparsegpt(weight, gram),
            options.rounds,
        )


def sparsegpt(weight: torch.Tensor, gram: torch.Tensor, sparsity: float = 0.5, block: int = 128) -> torch.Tensor:
    """Frantar & Alistarh, arXiv 2301.00774, algorithm 1, with masks chosen in blocks of columns."""
    damped = gram.float().clone()
    damped.diagonal().add_(0.01 * damped.diagonal().mean())
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    weight = weight.clone()
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        part, corner = weight[:, start:stop].clone(), inverse[start:stop, start:stop]
        costs = part**2 / corner.diagonal() ** 2
        gone = costs <= costs.flatten().kthvalue(int(costs.numel() * sparsity)).values
        errors = torch.zeros_like(part)
        for column in range(stop - start):
            values = part[:, column].clone()
            values[gone[:, column]] = 0
            errors[:, column] = (part[:, column] - values) / corner[column, column]
            part[:, column:] -= errors[:, column, None] * corner[None, column, column:]
            part[:, column] = values
        weight[:, start:stop] = part
        weight[:, stop:] -= errors @ inverse[start:stop, stop:]
    return weight


def compare(name: str, run: Callable[[], object], peer: str, run_peer: Callable[[], object], rounds: int) -> None:
    """Time both in turn, and print the medians and their ratio."""
    run(), run_peer()
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        pair = []
        for function in (run, run_peer):
            start = time.perf_counter()
            function()
            pair.append(time.perf_counter() - start)
        times.append((pair[0], pair[1]))
    ours, theirs = (statistics.median(side) for side in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    print(f"{name}: {ours:.2f} s; {peer}: {theirs:.2f} s; ratio {ratio:.2f}, {torch.get_num_threads()} threads")
    put(name, f"{ours:.2f} s", limit=f"{theirs:.2f} s, {peer}")


if __name__ == "__main__":
    main()
