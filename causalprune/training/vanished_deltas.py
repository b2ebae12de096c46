"""Changes of weights that are lost in the weights' own rounding, counted while they are recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from causalprune.base.progress import logger
from causalprune.models.mask import Mask
from causalprune.trajectory.row_block import on_device
from causalprune.trajectory.steps.rounding import vanished_finding, vanished_share

if TYPE_CHECKING:
    from causalprune.training.ranks import DiscardingWriter
    from causalprune.trajectory import RecordingWriter


FIRST_WARNED = 8
"""The first row, from 0, after which there may be a warning before the recording ends."""


class VanishedDeltas:
    """Counts in how many columns Δθ is exactly 0 although the gradient isn't; warns if they are many.

    Args:
        parameters: The recorded weights by name, with the gradient of the row.
        mask: Which of them have a column.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], mask: Mask) -> None:
        self._parameters, self._index = parameters, mask.index
        self._keep = None if mask.num_kept == mask.index.total else mask.keep
        self._said = False

    def count(self, writer: RecordingWriter | DiscardingWriter, delta: torch.Tensor) -> None:
        """Count in the coming row, and note it.

        Args:
            writer: Has the rows before, and gets the note.
            delta: (P_active,) Δθ.
        """
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self._parameters.items()}
        pushed = self._index.flatten(gradients) != 0
        if self._keep is not None:
            pushed = pushed[self._keep.to(pushed.device)]
        counts = torch.stack([(pushed & (delta == 0)).sum(), pushed.sum()])
        row, waits = writer.rows_appended, on_device(counts)
        # Another dictionary, because the writer may be about to commit the last one. It reads what is on a GPU.
        vanished = {**writer.noted.get("vanished", {}), str(row): counts if waits else counts.tolist()}
        writer.noted = {**writer.noted, "vanished": vanished}
        # Gradients of single samples differ much.
        if row >= FIRST_WARNED and not waits:
            self.warn(writer)

    def warn(self, writer: RecordingWriter | DiscardingWriter) -> None:
        """Warn, once, if many changes have vanished; this may wait for a GPU."""
        found = "" if self._said else vanished_finding(vanished_share(writer.noted))
        if found:
            self._said = True
            logger.warning("%s", found)
