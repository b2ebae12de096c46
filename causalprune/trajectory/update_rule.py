"""What recorded steps mean: whether gradients can be read from them, and whether γ has the curvature in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STEP_EXTRAS = ("weight_decay", "nesterov", "maximize")
"""Settings of an optimizer that stand in a recording's ``extra`` unless they are off: Δθ isn't −η·g with them."""


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """How an optimizer moves the weights in a row of a recording, and which loss change the row has.

    Plain SGD steps by Δθ_t = −η_t·g_t, the gradient of minibatch t. To second order such a step changes the loss of its
    own minibatch by ΔL_t = Σ_k (−1/η + h_k/2)·Δθ_tk², so that γ_k = −1/η + h_k/2 with the curvature h_k.

    Attributes:
        optimizer: Its name; ``sgd`` is the only one with such steps.
        momentum: μ.
        weight_decay: Coefficient of the decay.
        nesterov: Whether momentum is Nesterov's.
        maximize: Whether it ascends.
        stride: Optimizer updates in a row.
        loss_change: ``same-batch`` or ``next-batch``.
    """

    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    stride: int = 1
    loss_change: str = "same-batch"

    def against_gradients(self) -> str:
        """What makes a row's Δθ differ from −η·g, in words; empty for plain SGD."""
        return ", ".join(self._differences())

    def against_curvature(self, learning_rates: Sequence[float] = (), *, lags: bool = False) -> str:
        """What makes γ differ from −1/η + h/2, in words; empty where they are the same.

        Args:
            learning_rates: Of the rows, in any order; left out where they are one.
            lags: Whether the fit has lag columns.
        """
        odd = self._differences()
        if lags and not self.momentum:
            odd.append("lags")
        if self.loss_change != "same-batch":
            odd.append(f"{self.loss_change} losses")
        low, high = min(learning_rates, default=0.0), max(learning_rates, default=0.0)
        if low != high:
            odd.append(f"learning rates from {low:g} to {high:g}")
        return ", ".join(odd)

    def _differences(self) -> list[str]:
        odd = [
            f"optimizer {self.optimizer}" if self.optimizer != "sgd" else "",
            f"momentum {self.momentum:g}" + (" (Nesterov)" if self.nesterov else "") if self.momentum else "",
            f"weight decay {self.weight_decay:g}" if self.weight_decay else "",
            "steps that ascend" if self.maximize else "",
            f"stride {self.stride}" if self.stride != 1 else "",
        ]
        return [difference for difference in odd if difference]
