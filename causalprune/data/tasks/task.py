"""What every task can do: the loss that training minimizes, and the metrics of a split."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs, network_outputs
from causalprune.base.errors import DataError, MismatchError
from causalprune.base.registry import call_with
from causalprune.base.specs import ACCURACY, R2, Headline
from causalprune.data.normalization import Normalization

Batch = tuple[Inputs, torch.Tensor]
"""Normalized inputs of N samples, one tensor or several, and their targets."""

Sums = dict[str, torch.Tensor]


def in_order(parts: list[torch.Tensor]) -> torch.Tensor:
    """The sum of tensors, one after the other."""
    return functools.reduce(torch.add, parts)


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """What the outputs y of a network mean for the targets t of a data set.

    A task of your own is a subclass; a data set's source, or your factory, says which one it is.

    Attributes:
        class_names: What the outputs stand for, in their order; empty if they have no names.
        num_outputs: Number of classes, labels or quantities; of a task that is fitted to its data.
        label_smoothing: See ``torch.nn.CrossEntropyLoss``; 0 for a task without classes.
        target_normalization: How targets are standardized; None if they aren't.
        name: Its name among the tasks.
        headline: The metric that a network is judged by.
        tokens: Whether inputs are tokens, which aren't standardized, whatever their dtype in an array.
        stratified: Whether targets are (N,) labels whose proportions the splits should keep.
    """

    class_names: tuple[str, ...] = ()
    num_outputs: int = 0
    label_smoothing: float = 0.0
    target_normalization: Normalization | None = None

    name: ClassVar[str]
    headline: ClassVar[Headline]
    tokens: ClassVar[bool] = False
    stratified: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def read(
        cls, arrays: Mapping[str, np.ndarray], source: str, class_names: Any = None
    ) -> tuple[tuple[torch.Tensor, ...], Self]:
        """Read the targets of arrays.

        Args:
            arrays: By name: those of the training data, then those of other splits.
            source: Where they come from, for messages.
            class_names: Names of the outputs, if the arrays have any; not checked.

        Returns:
            The targets of each split, and the task.

        Raises:
            DataError: They can't be targets of this task.
        """

    def check(self, targets: torch.Tensor, what: str) -> None:
        """Raise a DataError if ``targets`` of a split, named ``what``, can't be those of this task."""
        del targets, what  # Any number is a target, unless a task says otherwise.

    @abstractmethod
    def fitted(self, targets: torch.Tensor, what: str) -> Self:
        """The same task for a data set with these training targets; ``what`` names it for errors."""

    @abstractmethod
    def output_shape(self, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of y for one sample, whose target has ``target_shape``."""

    @cached_property
    @abstractmethod
    def criterion(self) -> nn.Module:
        """The mean loss of a batch, which takes y and t."""

    @abstractmethod
    def sums(self, outputs: torch.Tensor, targets: torch.Tensor) -> Sums:
        """What the metrics are made of, summed over the samples of a batch; ``outputs`` are float64.

        On a GPU nothing should be read from it here: no ``item()``, ``bincount`` or index of bools.
        """

    @abstractmethod
    def summary(self, sums: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """The metrics, JSON-ready, ``loss`` first.

        Args:
            sums: What :meth:`sums` returns, added up over all batches, as numbers and lists.
            samples: Number of samples.
        """

    @abstractmethod
    def drawn_loss(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The loss, summed over samples, for targets that are drawn from what the network itself says."""

    @abstractmethod
    def distance(self, outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """How far outputs are from those of another network, a mean over the samples: what distillation minimizes."""

    def score(self, metrics: Mapping[str, Any]) -> list[float]:
        """What the best epoch is chosen by, larger is better: the headline, then the loss."""
        value = metrics[self.headline.metric]
        if value is None:
            return [-float("inf"), -metrics["loss"]]
        return [-value if self.headline.falling else value, -metrics["loss"]]

    def loss(self, model: nn.Module, batch: Batch, *, exact: bool = False) -> torch.Tensor:
        """The mean loss of a batch.

        Args:
            model: The network.
            batch: Inputs and targets.
            exact: Whether the loss is computed in float64 from the network's outputs.
        """
        inputs, targets = batch
        outputs = network_outputs(model, inputs)
        if exact:
            outputs = outputs.double()
            targets = targets.double() if targets.is_floating_point() else targets
        loss: torch.Tensor = self.criterion(outputs, targets)
        return loss

    def exact_loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """:meth:`loss` with ``exact``, or where a task of your own knows no such argument, in float64 at the end."""
        loss: torch.Tensor = call_with(self.loss, model, batch, exact=True)
        return loss.double()

    def metrics(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        samples: int | None = None,
        total: Callable[[list[torch.Tensor]], torch.Tensor] = in_order,
    ) -> dict[str, Any]:
        """The metrics of a network over all samples of some batches; sums are accumulated in float64.

        Args:
            model: The network.
            batches: At least one.
            samples: How many samples there are, where other processes have some of them.
            total: Adds up what the batches have, those of other processes included.

        Returns:
            JSON-ready: ``task``; ``samples``, N; those of :meth:`summary`; and, unless it is a usual one, ``headline``.

        Raises:
            DataError: The outputs aren't finite.
            MismatchError: The outputs have the wrong shape.
        """
        parts: list[Sums] = []
        counted = values = 0
        for inputs, targets in batches:
            outputs = network_outputs(model, inputs)
            expected = (len(targets), *self.output_shape(tuple(targets.shape[1:])))
            if outputs.shape != expected:
                raise MismatchError(
                    "outputs of the model", expected=f"shape {expected}", found=str(tuple(outputs.shape))
                )
            counted += len(targets)
            values += outputs.numel()
            odd = {"nan": outputs.isnan().sum(), "inf": outputs.isinf().sum()}
            parts.append(odd | self.sums(outputs.double(), targets))
        sums: dict[str, Any] = {name: total([part[name] for part in parts]).tolist() for name in parts[0]}
        samples = counted if samples is None else samples
        nan, infinite = sums.pop("nan"), sums.pop("inf")
        if nan or infinite:
            raise DataError(
                "outputs of the model",
                expected="finite numbers",
                found=f"{nan} NaN and {infinite} infinite of {values * samples // counted}",
                remedy="look for NaN in the weights, or train with a lower `lr`",
            )
        said = {} if self.headline in (ACCURACY, R2) else {"headline": asdict(self.headline)}
        return {"task": self.name, "samples": samples, **self.summary(sums, samples), **said}
