"""Weights that don't move, noted while they are recorded: nothing trains them, or their own rounding loses Δθ."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from causalprune.base.errors import UsageError
from causalprune.base.progress import logger
from causalprune.models.mask import Mask
from causalprune.training.ranks import Writer
from causalprune.training.row import checked_thoroughly
from causalprune.trajectory.row_block import on_device
from causalprune.trajectory.steps.rounding import vanished_finding, vanished_share

FIRST_WARNED = 8
"""The first row, from 0, after which there may be a warning before the recording ends."""


class UntrainedWeights:
    """Knows which weights no step of a recording has trained, and notes them.

    Args:
        optimizer: Trains the weights in its parameter groups that have a gradient.
        parameters: The recorded weights by name.
        writer: Gets the note, and has that of the rows before.
    """

    def __init__(self, optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], writer: Writer) -> None:
        self._optimizer, self._writer = optimizer, writer
        self._total = len(parameters)
        names = writer.untrained if writer.rows_appended else parameters
        self._untrained = {name: parameters[name] for name in names}

    def before_step(self) -> None:
        """Note those that the coming step doesn't train either.

        Raises:
            UsageError: All of them.
        """
        if not self._untrained:
            return
        trained = {id(p) for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None}
        self._untrained = {name: p for name, p in self._untrained.items() if id(p) not in trained}
        if len(self._untrained) == self._total:
            raise UsageError(
                "Recorder.step",
                expected="a recorded weight that is trained",
                found=f"{self._total} that are frozen, have no gradient or aren't given to the optimizer",
                remedy="call loss.backward() first, and look at requires_grad",
            )
        self._writer.untrained = tuple(self._untrained)


class VanishedDeltas:
    """Counts in how many columns Δθ is exactly 0 although the gradient isn't; warns if they are many.

    Args:
        parameters: The recorded weights by name, with the gradient of the row.
        mask: Which of them have a column.
        own: The columns to count in; None for all.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], mask: Mask, own: slice | None = None) -> None:
        self._own = own or slice(None)
        self._parameters, self._index = parameters, mask.index
        self._keep = None if mask.num_kept == mask.index.total else mask.keep
        self._said = False

    def count(self, writer: Writer, delta: torch.Tensor) -> None:
        """Count in the coming row, and note it, if that is a row that is :func:`checked_thoroughly`.

        Args:
            writer: Has the rows before, and gets the note.
            delta: (own columns,) Δθ.
        """
        row = writer.rows_appended
        if not checked_thoroughly(row):
            return
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self._parameters.items()}
        pushed = self._index.flatten(gradients) != 0
        if self._keep is not None:
            pushed = pushed[self._keep.to(pushed.device)]
        pushed = pushed[self._own]
        counts = torch.stack([(pushed & (delta == 0)).sum(), pushed.sum()])
        waits = on_device(counts)
        # Another dictionary, because the writer may be about to commit the last one. It reads what is on a GPU.
        vanished = {**writer.noted.get("vanished", {}), str(row): counts if waits else counts.tolist()}
        writer.noted = {**writer.noted, "vanished": vanished}
        # Gradients of single samples differ much.
        if row >= FIRST_WARNED and not waits:
            self.warn(writer)

    def warn(self, writer: Writer) -> None:
        """Warn, once, if many changes have vanished; this may wait for a GPU."""
        found = "" if self._said else vanished_finding(vanished_share(writer.noted))
        if found:
            self._said = True
            logger.warning("%s", found)
