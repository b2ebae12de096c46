"""What ``evaluate`` measures of the loss around a network, and how much work that is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from causalprune.analysis.flatness.samples import ParameterVector, Samples, draw_samples
from causalprune.base.progress import Bar
from causalprune.config.evaluate import EvaluateConfig
from causalprune.data.datasets import DataSet
from causalprune.data.tasks.task import Task
from causalprune.models.mask import Mask

_PRODUCT = 5
"""A product with the Hessian, in losses: one there, two for the way back, and about two for the way through both."""


@dataclass(frozen=True)
class Flatness:
    """What is to be measured of the loss around the network, on a fixed part of a split.

    Attributes:
        config: What is asked for.
        model: On the device of the samples.
        task: Defines the loss.
        parameters: Those of the model.
        samples: Empty if nothing is asked for.
    """

    config: EvaluateConfig
    model: nn.Module
    task: Task
    parameters: ParameterVector
    samples: Samples

    @classmethod
    def of(cls, config: EvaluateConfig, model: nn.Module, mask: Mask, data: DataSet, device: torch.device) -> Flatness:
        """Draw the samples."""
        samples: Samples = []
        if config.hessian or config.noise or config.landscape:
            samples = draw_samples(
                data,
                config.flatness_split,
                count=config.samples,
                batch_size=config.batch_size,
                device=device,
                seed=config.seed,
                num_workers=config.num_workers,
            )
        return cls(config, model, data.task, ParameterVector(model, mask), samples)

    @property
    def batches(self) -> int:
        """About how many losses of a batch all of it takes."""
        config, losses = self.config, 0
        if config.hessian:
            from causalprune.analysis.flatness.hessian import planned_products

            dimensions = {len(self.parameters.kept), self.parameters.total}
            losses += _PRODUCT * sum(planned_products(dimension, config.hessian) for dimension in dimensions)
        if config.noise:
            from causalprune.analysis.flatness.landscape import SIGMAS

            losses += 1 + config.draws * len(SIGMAS)
        losses += config.landscape_points**2 * config.landscape
        return losses * len(self.samples)

    def measure(self, bar: Bar) -> dict[str, Any]:
        """Measure in evaluation mode; parameters stay unchanged.

        Returns:
            Those of ``hessian``, ``noise`` and ``landscape`` that are asked for, with ``flatness_samples`` and
            ``flatness_split``; empty if none is.

        Raises:
            UsageError: An extra that isn't installed.
            NumericalError: The eigenvalues don't converge.
        """
        if not self.samples:
            return {}
        config, network = self.config, (self.model, self.task, self.parameters, self.samples)
        self.model.eval()
        found: dict[str, Any] = {
            "flatness_samples": sum(len(targets) for _, targets in self.samples),
            "flatness_split": config.flatness_split,
        }

        def loss_is_done() -> None:
            bar.advance(len(self.samples))

        if config.hessian:
            from causalprune.analysis.flatness.hessian import hessian_spectra

            bar.describe("Hessian")
            spectra = hessian_spectra(
                *network, count=config.hessian, seed=config.seed, notify=lambda count: bar.advance(_PRODUCT * count)
            )
            found["hessian"] = {name: asdict(spectrum) for name, spectrum in spectra.items()}
        if config.noise:
            from causalprune.analysis.flatness.landscape import noise_tolerance

            bar.describe("noise")
            found["noise"] = noise_tolerance(*network, draws=config.draws, seed=config.seed, notify=loss_is_done)
        if config.landscape:
            from causalprune.analysis.flatness.landscape import loss_landscape

            bar.describe("landscape")
            found["landscape"] = loss_landscape(
                *network, points=config.landscape_points, seed=config.seed, notify=loss_is_done
            )
        return found
