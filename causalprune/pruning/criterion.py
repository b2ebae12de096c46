"""What a pruning criterion is: a function from what was measured to one score per parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from causalprune.errors import DataError, MismatchError, UsageError
from causalprune.pruning.gradients import GradientMatrix
from causalprune.step_rule import UpdateRule

Vector = npt.NDArray[np.floating]

NEEDS: dict[str, tuple[str, str]] = {
    "gamma": ("the Granger coefficients of a fit", "run fit-gamma first"),
    "dual_correlation": ("the dual correlations of a fit", "run fit-gamma first"),
    "mean_squared_gradient": ("the gradients of a plain-SGD recording", "record with --momentum 0 --stride 1"),
    "gradients": ("the gradients of a plain-SGD recording", "record with --momentum 0 --stride 1"),
    "project": ("the number of weights to keep", "use it with apply-mask --sparsity"),
    "learning_rate": (
        "a same-batch recording of plain SGD without weight decay, at one learning rate and stride 1",
        "record with --momentum 0 --stride 1 --loss-change same-batch",
    ),
}
"""What a criterion may ask for beyond the weights and the seed: what it is, and how to get it."""


def departure(need: str, rule: UpdateRule, learning_rates: Sequence[float] = ()) -> str:
    """How a recording departs from one that has something of :data:`NEEDS`, in words; empty where it has it.

    Args:
        need: What it is to have.
        rule: How its steps were made.
        learning_rates: Of its rows, in any order; left out where they are one.
    """
    if need in ("mean_squared_gradient", "gradients"):
        return rule.against_gradients()
    return rule.against_curvature(learning_rates) if need == "learning_rate" else ""


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
        gradients: The recorded minibatch gradients themselves.
        project: Takes (P,) finite scores and returns the (P,) bool mask that will be made of them: the projection onto
            the supports that sparsity, scope and granularity allow.
        learning_rate: η of a recording in which γ = −1/η + h/2.
        ridge: Penalty of ``chita``, a multiple of the mean over the parameters of Σ_t g_tk².
        seed: Seed of ``random``.

    Raises:
        MismatchError: Shapes that don't agree.
        DataError: A learning rate or a ridge that isn't a finite number above 0.
    """

    theta: Vector
    gamma: Vector | None = None
    dual_correlation: Vector | None = None
    mean_squared_gradient: Vector | None = None
    gradients: GradientMatrix | None = None
    project: Callable[[Vector], npt.NDArray[np.bool_]] | None = None
    learning_rate: float | None = None
    ridge: float = 0.01
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
        for name, value in (("learning rate", self.learning_rate), ("ridge", self.ridge)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise DataError(name, expected="a finite number above 0", found=str(value))


@dataclass(frozen=True, eq=False)
class Scores:
    """One score per parameter: the lowest are pruned first.

    Attributes:
        primary: (P,) float64.
        secondary: (P,) float64 that orders parameters whose ``primary`` is equal, or None.
        theta: (P,) weights that the kept parameters get, or None where they stay as they are.

    Raises:
        MismatchError: Not vectors of one length.
    """

    primary: Vector
    secondary: Vector | None = None
    theta: Vector | None = None

    def __post_init__(self) -> None:
        for name in ("primary", "secondary", "theta"):
            value = getattr(self, name)
            if value is not None and value.shape != (self.primary.size,):
                raise MismatchError(f"{name} scores", expected=f"shape ({self.primary.size},)", found=f"{value.shape}")

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
        needs: Fields of :class:`CriterionInputs` that ``formula`` reads beyond ``theta``, ``ridge`` and ``seed``.
        reweights: Whether it also sets the weights it keeps, in :attr:`Scores.theta`.

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
    reweights: bool = False

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
        if (scores.theta is not None) != self.reweights:
            raise MismatchError(
                f"criterion {self.name}",
                expected="new weights from a criterion that says reweights=True, and from no other",
                found="new weights" if scores.theta is not None else "none",
                remedy="mend the criterion",
            )
        return scores


def float64(value: Vector | None) -> npt.NDArray[np.float64]:
    """An input that a criterion needs, in float64."""
    return np.asarray(value, dtype=np.float64)
