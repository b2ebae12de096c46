"""Does it help to score filters with the scale that BatchNorm gives them? ResNet20 on the digits, in one shot.

A filter before BatchNorm has an arbitrary scale. ``folded`` is the mask of the weights w·|b|/σ, with b the weight and σ
the running standard deviation of the BatchNorm after the filter, which doesn't depend on it; gradients by what the
filter puts out, which rank-sum reads, are divided by the same. After the mask, running
statistics are measured again on the training samples; nothing is trained.

    python benchmarks/folding.py
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from causalprune.commands._network import training_inputs
from causalprune.commands.pretrain import pretrain
from causalprune.config.pretrain import PretrainConfig
from causalprune.data.datasets import load_data
from causalprune.models.checkpoint import load_checkpoint
from causalprune.models.mask import Mask
from causalprune.models.networks import ResNet20
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.criterion import CriterionInputs
from causalprune.pruning.layer_statistics import layer_statistics
from causalprune.pruning.selection import select
from causalprune.training.metrics import evaluate_model

CRITERIA = ("magnitude", "lamp", "wanda", "rank-sum")
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.7, 0.8, 0.9])
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            config = PretrainConfig(
                run=Path(folder), dataset="digits", model="resnet20", epochs=options.epochs, seed=seed
            )
            pretrain(config)
            checkpoint = load_checkpoint(Path(folder) / "pretrained.safetensors")
        data = load_data(checkpoint.info.data)
        model = ResNet20(data.input_shape, data.num_outputs)
        model.load_state_dict(checkpoint.weights)
        batches = training_inputs(data, CPU, count=len(data.train), batch_size=500, seed=0, num_workers=0)
        found.setdefault("dense", []).append([accuracy(model, data)] * len(options.sparsities))
        mask = Mask.all(checkpoint.info.index)
        layers = layer_statistics(model, mask.index, batches, data.task.drawn_loss)
        theta = mask.index.flatten(checkpoint.weights).numpy()
        plain = CriterionInputs(theta=theta, mask=mask, layers=layers)
        ways = {"": plain, ", folded": folded(plain, factors(model, batches[0]))}
        for criterion in CRITERIA:
            for how, inputs in ways.items():
                scores = load_criterion(criterion).score(inputs)
                masks = [select(scores, mask, sparsity=s).mask for s in options.sparsities]
                accuracies = [accuracy(pruned(model, chosen, batches), data) for chosen in masks]
                found.setdefault(criterion + how, []).append(accuracies)
    print(f"accuracy %, mean of {options.seeds} seeds, {options.epochs} epochs")
    print(f"{'pruned':20}", *(f"{s:8.2f}" for s in options.sparsities))
    for name, values in found.items():
        print(f"{name:20}", *(f"{100 * v:8.1f}" for v in np.mean(values, axis=0)))


def folded(inputs: CriterionInputs, factors: dict[str, torch.Tensor]) -> CriterionInputs:
    theta, layers = inputs.theta.copy(), dict(inputs.layers)
    for name, factor in factors.items():
        entry = inputs.mask.index[name]
        theta[entry.offset : entry.stop] *= factor.repeat_interleave(entry.size // len(factor)).numpy()
        layers[name] = replace(layers[name], gradients=layers[name].gradients / factor**2)
    return replace(inputs, theta=theta, layers=layers)


def factors(model: nn.Module, samples: torch.Tensor) -> dict[str, torch.Tensor]:
    """|b|/σ of the BatchNorm that is called after each convolution, by the name of the weight."""
    called: list[nn.Module] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [
        module.register_forward_hook(lambda module, *_: called.append(module))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        model.eval()(samples[:2])
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in model.named_modules()}
    return {
        f"{names[conv]}.weight": norm.weight.detach().abs() / (norm.running_var + norm.eps).sqrt()
        for conv, norm in pairwise(called)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    }


def pruned(model: nn.Module, mask: Mask, batches: list[torch.Tensor]) -> nn.Module:
    """A pruned copy with new running statistics."""
    model = copy.deepcopy(model)
    mask.apply_(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for batch in batches:
            model.train()(batch)
    return model


def accuracy(model: nn.Module, data) -> float:
    return evaluate_model(model, data, "test", batch_size=512, device=CPU)["top1"]


if __name__ == "__main__":
    main()
