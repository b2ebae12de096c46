"""What ``record --layer-statistics`` keeps: the layers' second moments at the weights that the recording ends with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from causalprune.base.signals import StopRequest
from causalprune.commands.layer_statistics.measuring import measure_layers
from causalprune.commands.layer_statistics.stored import to_store
from causalprune.config.record import RecordConfig
from causalprune.data.datasets import DataSet
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.mask import Mask
from causalprune.pruning.layer_statistics import LayerStatistics, packed_bytes
from causalprune.training.pass_state import PassState


@dataclass(frozen=True)
class LayersToKeep:
    """The layers of a network that is recorded; measuring them leaves the network and its generators as they are."""

    config: RecordConfig
    model: nn.Module
    mask: Mask
    data: DataSet
    device: torch.device

    def predicted_bytes(self) -> int:
        """Bytes before compression, which a measurement on two samples shows.

        A network whose layers can't be measured is refused by it before the recording, not after.

        Raises:
            MismatchError: A layer that no forward pass reaches.
        """
        return packed_bytes(self._measured(2))

    def measure(self, network: Checkpoint, stop: StopRequest) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays and attributes for the store.

        Args:
            network: The network as it is now.
            stop: Asked before each pass.

        Raises:
            InterruptedStage: A signal has arrived; the state before was saved.
        """

        def check() -> None:
            if stop:
                raise stop.error("all steps saved")

        samples, seed = self.config.samples, self.config.seed
        return to_store(self._measured(samples, check), network, self.data, samples=samples, seed=seed)

    def _measured(self, samples: int, between: Callable[[], None] = lambda: None) -> dict[str, LayerStatistics]:
        state = PassState(self.model)
        state.save()
        with state.repeated():
            return measure_layers(
                self.model,
                self.mask.index,
                self.data,
                self.device,
                samples=samples,
                seed=self.config.seed,
                num_workers=self.config.num_workers,
                between=between,
            )
