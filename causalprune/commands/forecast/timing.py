"""The time of training, of a fit and of an evaluation, from a few real steps of each: rough, but for nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from causalprune.base.compute.runtime import keyed_seed, seed_generators
from causalprune.data.batches import Batches
from causalprune.data.datasets import DataSet
from causalprune.models.mask import Mask
from causalprune.training.distillation import Distillation
from causalprune.training.loop import EVALUATED
from causalprune.training.metrics import evaluate_model
from causalprune.training.optimizers import build_optimizer, optimizer_tensors
from causalprune.training.options import TrainingOptions
from causalprune.trajectory.codec import find_codec

STEPS = 4
"""Optimizer steps that are timed; the first one, which also pays for what is done once, doesn't count."""

_DECODED = 2**20
"""Columns of the row whose decoding is timed, at most."""


@dataclass(frozen=True)
class TimedSteps:
    """A few steps of a training.

    Attributes:
        seconds: Of one step.
        state: Tensors that a saved state has besides the weights, by name.
    """

    seconds: float
    state: dict[str, torch.Tensor]


def time_steps(
    model: nn.Module,
    data: DataSet,
    options: TrainingOptions,
    batches: Batches,
    *,
    mask: Mask,
    device: torch.device,
    distill: float = 0.0,
) -> TimedSteps:
    """Take the first steps of a training, and put the weights back.

    Args:
        model: On ``device``.
        data: What it is trained on.
        options: Optimizer and so on; nothing is compiled.
        batches: The minibatches.
        mask: Held.
        device: Where to compute.
        distill: Part of the loss that another network sets; as long as this one takes.
    """
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    optimizer = build_optimizer(model, options)
    mask.hold(optimizer, model)
    task = replace(data.task, label_smoothing=options.label_smoothing)
    compute = partial(Distillation(model, distill).loss, task) if distill else task.loss
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.amp == "bf16")
    times, model_was_training = [], model.training
    model.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_generators(keyed_seed(0, "dry run"), device)
        started = time.monotonic()
        for batch in islice(batches.epoch(0), STEPS):
            with autocast:
                loss = compute(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            # Reading it waits for a GPU.
            loss.item()
            times.append(time.monotonic() - started)
            started = time.monotonic()
    state = optimizer_tensors(model, optimizer)
    model.load_state_dict(before)
    model.zero_grad(set_to_none=True)
    model.train(model_was_training)
    return TimedSteps(median(times[1:] or times), state)


def time_evaluation(
    model: nn.Module, data: DataSet, *, device: torch.device
) -> tuple[Callable[[int], float], dict[str, Any]]:
    """Evaluate on a few samples of the validation split.

    Returns:
        The seconds for so many samples, and the metrics.
    """
    count = min(len(data.validation), EVALUATED)
    few = replace(data, validation=data.validation.subset(torch.arange(count)))
    started = time.monotonic()
    metrics = evaluate_model(model, few, "validation", batch_size=EVALUATED, device=device)
    seconds = time.monotonic() - started
    return lambda samples: seconds * math.ceil(samples / count), metrics


def fit_seconds(delta: npt.NDArray[np.float32], *, rows: int, codec: str) -> float:
    """Time to read a recording of such rows once, from one of them: to decode, square and multiply it."""
    chosen, part = find_codec(codec), np.ascontiguousarray(delta[:_DECODED])
    rounded, decoded = np.empty_like(part), np.empty_like(part)
    chosen.round(part, rounded)
    encoded = np.frombuffer(b"".join(chosen.encode(rounded)), np.uint8)
    started = time.monotonic()
    chosen.decode(encoded, decoded, "a row")
    squared = np.square(decoded.astype(np.float64))
    float(squared @ squared)
    return rows * (time.monotonic() - started) * len(delta) / len(part)
