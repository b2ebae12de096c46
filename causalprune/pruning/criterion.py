"""What a pruning criterion is: a function from what was measured to one score per parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from causalprune.errors import DataError, MismatchError, UsageError

Vector = npt.NDArray[np.floating]

NEEDS: dict[str, tuple[str, str]] = {
    "gamma": ("the Granger coefficients of a fit", "run fit-gamma first"),
    "dual_correlation": ("the dual correlations of a fit", "run fit-gamma first"),
    "mean_squared_gradient": ("the gradients of a plain-SGD recording", "record with --momentum 0 --stride 1"),
    "learning_rate": (
        "a same-batch recording at one learning rate and stride 1",
        "record with --stride 1 --loss-change same-batch",
    ),
}
"""What a criterion may ask for beyond the weights and the seed: what it is, and how to get it."""


@dataclass(frozen=True, eq=False)
class CriterionInputs:
    """What a stage read for a criterion; everything but the weights may be left out when it isn't needed.

    Values at parameters that are pruned already are ignored, so any filler will do there.

    Attributes:
        theta: (P,) weights.
        gamma: (P,) γ, or (3, P) with the three lag columns of a momentum model, in units of loss per Δθ² as recorded
            (not in those of normalised columns). A γ that belongs to a group is repeated for each member.
        dual_correlation: |x_kᵀr|/(Tα), in the shape of ``gamma``.
        mean_squared_gradient: (P,) mean over the recorded steps of g², see
            :func:`causalprune.pruning.gradients.mean_squared_gradient`.
        learning_rate: η of the recording.
        seed: Seed of ``random``.

    Raises:
        MismatchError: Shapes that don't agree.
        DataError: A learning rate that isn't a finite number above 0.
    """

    theta: Vector
    gamma: Vector | None = None
    dual_correlation: Vector | None = None
    mean_squared_gradient: Vector | None = None
    learning_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        total = self.theta.size
        allowed: dict[str, list[tuple[int, ...]]] = {
            "theta": [(total,)],
            "gamma": [(total,), (3, total)],
            "dual_correlation": [(total,), (3, total)] if self.gamma is None else [self.gamma.shape],
            "mean_squared_gradient": [(total,)],
        }
        for name, shapes in allowed.items():
            value = getattr(self, name)
            if value is not None and value.shape not in shapes:
                raise MismatchError(name, expected=" or ".join(map(str, shapes)), found=f"{value.shape}")
        if self.learning_rate is not None and not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise DataError("learning rate", expected="a finite number above 0", found=str(self.learning_rate))


@dataclass(frozen=True, eq=False)
class Scores:
    """One score per parameter: the lowest are pruned first.

    Attributes:
        primary: (P,) float64.
        secondary: (P,) float64 that orders parameters whose ``primary`` is equal, or None.

    Raises:
        MismatchError: Not vectors of one length.
    """

    primary: Vector
    secondary: Vector | None = None

    def __post_init__(self) -> None:
        for name, key in zip(("primary", "secondary"), self.keys, strict=False):
            if key.shape != (self.primary.size,):
                raise MismatchError(f"{name} scores", expected=f"shape ({self.primary.size},)", found=f"{key.shape}")

    @property
    def keys(self) -> tuple[Vector, ...]:
        """The vectors to sort by, the most significant first."""
        return (self.primary,) if self.secondary is None else (self.primary, self.secondary)


@dataclass(frozen=True)
class Criterion:
    """A named way to score parameters.

    Attributes:
        name: What ``--criterion`` calls it.
        formula: The scores of all P parameters, from the inputs.
        needs: Fields of :class:`CriterionInputs` that ``formula`` reads beyond ``theta`` and ``seed``.

    Raises:
        UsageError: A need that isn't in :data:`NEEDS`.

    Example:
        A package adds a criterion with an entry point in the group ``causalprune.criteria``:

        >>> import numpy as np
        >>> cubed = Criterion("cubed", lambda inputs: Scores(np.abs(inputs.theta) ** 3))
        >>> cubed.score(CriterionInputs(theta=np.array([-2.0, 1.0]))).primary
        array([8., 1.])
    """

    name: str
    formula: Callable[[CriterionInputs], Scores]
    needs: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        unknown = sorted(self.needs - set(NEEDS))
        if unknown:
            raise UsageError(
                f"needs of criterion {self.name}", expected="some of " + ", ".join(NEEDS), found=", ".join(unknown)
            )

    def score(self, inputs: CriterionInputs) -> Scores:
        """Score all P parameters.

        Raises:
            MismatchError: An input that it needs is missing, or (a defect of the criterion) not P scores.
        """
        for need in NEEDS:
            if need in self.needs and getattr(inputs, need) is None:
                what, remedy = NEEDS[need]
                raise MismatchError(
                    f"criterion {self.name}", expected=what, found="none", remedy=f"{remedy}, or choose another"
                )
        scores = self.formula(inputs)
        if scores.primary.shape != inputs.theta.shape:
            raise MismatchError(
                f"criterion {self.name}",
                expected=f"{inputs.theta.size} scores",
                found=str(scores.primary.size),
                remedy="mend the criterion",
            )
        return scores
