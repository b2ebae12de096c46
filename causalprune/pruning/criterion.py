"""What a pruning criterion is: a function from measurements to one score per parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.models.mask import Mask
from causalprune.pruning.gradients import GradientMatrix
from causalprune.trajectory.steps import UpdateRule

if TYPE_CHECKING:
    from causalprune.pruning.layer_statistics import LayerStatistics

Vector = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Need:
    """An input that a criterion may need besides the weights and the seed.

    Attributes:
        what: What it is.
        remedy: How to get it.
        recorded: Whether only a recording, or a fit to one, has it.
        unmet: Takes the update rule of a recording and the learning rates of its rows, (T,) or (T, G) for G parameter
            groups (in any order; empty if each stays the same), and returns in words why the recording can't provide
            the input, or an empty string if it can.
    """

    what: str
    remedy: str
    recorded: bool = True
    unmet: Callable[[UpdateRule, npt.ArrayLike], str] = lambda _rule, _learning_rates: ""


_GRADIENTS = Need(
    "the gradients of a plain-SGD recording",
    "record with `momentum=0, stride=1`",
    unmet=lambda rule, _learning_rates: rule.against_gradients(),
)

NEEDS: dict[str, Need] = {
    "gamma": Need("the Granger coefficients of a fit", "run fit-gamma first"),
    "dual_correlation": Need("the KKT scores of a fit", "run fit-gamma first"),
    "mean_squared_gradient": _GRADIENTS,
    "gradients": _GRADIENTS,
    "mask": Need("the mask so far", "use it with apply-mask", recorded=False),
    "layers": Need("the second moments of the layers", "use it with the data set at hand", recorded=False),
    "project": Need("the number of weights to keep", "use it with apply-mask `sparsity`", recorded=False),
    "learning_rate": Need(
        "a same-batch recording of plain SGD without weight decay, at learning rates that stay and stride 1",
        "record with `momentum=0, stride=1, loss_change=same-batch`",
        unmet=lambda rule, learning_rates: rule.against_curvature(learning_rates),
    ),
}
"""Everything that a criterion may need, by the field of :class:`CriterionInputs` that holds it."""


@dataclass(frozen=True, eq=False)
class CriterionInputs:
    """The inputs of a criterion; everything but the weights may be left out when it isn't needed.

    Values at parameters that are pruned already are ignored and may be anything.

    Attributes:
        theta: (P,) weights.
        gamma: (P,) γ, or (3, P) for the three lags of a momentum model, in units of loss per recorded Δθ² (not per
            normalized column). The γ of a group is repeated for each member.
        dual_correlation: KKT score |x_kᵀr|/(Tα), in the shape of ``gamma``.
        mean_squared_gradient: (P,) mean over the recorded steps of g², see
            :func:`causalprune.pruning.gradients.mean_squared_gradient`.
        gradients: The recorded minibatch gradients.
        mask: The mask so far; it knows which parameters belong to which layer.
        layers: Second moments of the inputs and of the output gradients of each layer, by the name of its weight.
        project: Takes (P,) finite scores and returns the (P,) bool mask that the selection makes of them: the
            projection onto the supports that sparsity, scope and granularity allow.
        learning_rate: η of a recording in which γ = −1/η + h/2; (P,) where it differs between parameters.
        ridge: Penalty of ``chita``, as a multiple of the mean over the parameters of Σ_t g_tk².
        exponent: p in |γ|^p·θ² and its like; read by the criteria that are ``tempered``.
        seed: Seed of ``random``.

    Raises:
        MismatchError: Shapes don't agree.
        DataError: A learning rate or a ridge that isn't a finite number above 0, or an exponent below 0.
    """

    theta: Vector
    gamma: Vector | None = None
    dual_correlation: Vector | None = None
    mean_squared_gradient: Vector | None = None
    gradients: GradientMatrix | None = None
    mask: Mask | None = None
    layers: Mapping[str, LayerStatistics] | None = None
    project: Callable[[Vector], npt.NDArray[np.bool_]] | None = None
    learning_rate: float | Vector | None = None
    ridge: float = 0.01
    exponent: float = 1.0
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
            if value is not None and not (np.isfinite(value).all() and np.greater(value, 0).all()):
                raise DataError(name, expected="a finite number above 0", found=str(value))
        if not (math.isfinite(self.exponent) and self.exponent >= 0):
            raise DataError("exponent", expected="a finite number of at least 0", found=str(self.exponent))
        if self.mask is not None and self.mask.index.total != total:
            raise MismatchError("mask", expected=f"{total} parameters", found=str(self.mask.index.total))


@dataclass(frozen=True, eq=False)
class Scores:
    """One score per parameter; the lowest are pruned first.

    Attributes:
        primary: (P,) float64.
        secondary: (P,) float64 that orders parameters with equal ``primary`` scores, or None.
        theta: (P,) new weights of the kept parameters, or None to keep their weights.

    Raises:
        MismatchError: The vectors differ in length.
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
        """The vectors to sort by, most significant first."""
        return (self.primary,) if self.secondary is None else (self.primary, self.secondary)


@dataclass(frozen=True)
class Criterion:
    """A named way to score parameters.

    Attributes:
        name: Its name, the value of the option ``criterion``.
        formula: Computes the scores of all P parameters from the inputs.
        needs: Fields of :class:`CriterionInputs` that ``formula`` reads besides ``theta``, ``ridge``, ``exponent`` and
            ``seed``.
        reweights: Whether it also sets the kept weights, in :attr:`Scores.theta`.
        tempered: Whether ``formula`` reads ``exponent``; without it, only an exponent of 1 is accepted.

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
    tempered: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(self.needs - set(NEEDS))
        if unknown:
            raise UsageError(
                f"needs of criterion {self.name}", expected="some of " + ", ".join(NEEDS), found=", ".join(unknown)
            )

    @property
    def reads_recording(self) -> bool:
        """Whether it needs anything that only a recording or its fit has."""
        return any(NEEDS[name].recorded for name in self.needs)

    def unmet(self, rule: UpdateRule, learning_rates: npt.ArrayLike = ()) -> tuple[Need, str] | None:
        """The first need that a recording can't serve, whatever is fitted to it, and why; None if there is none.

        Args:
            rule: Update rule of the recording's steps.
            learning_rates: Learning rates of its rows, as :class:`Need` takes them.
        """
        found = ((need, need.unmet(rule, learning_rates)) for name, need in NEEDS.items() if name in self.needs)
        return next(((need, reason) for need, reason in found if reason), None)

    def require(
        self,
        rule: UpdateRule,
        learning_rates: npt.ArrayLike,
        *,
        subject: str = "",
        where: str = "",
        remedy: str = "",
    ) -> None:
        """Refuse a recording that can't serve the criterion.

        Args:
            rule: See :meth:`unmet`.
            learning_rates: See :meth:`unmet`.
            subject: Name of the criterion in the message.
            where: Name of the recording in the message.
            remedy: What to do instead of recording what is needed.

        Raises:
            MismatchError: The recording can't serve a need.
        """
        unmet = self.unmet(rule, learning_rates)
        if unmet:
            need, reason = unmet
            remedy = remedy or f"{need.remedy}, or choose another"
            raise self._mismatch(need.what, f"one with {reason}{where}", remedy, subject)

    def require_exponent(self, exponent: float) -> None:
        """Refuse an exponent that the criterion doesn't read.

        Raises:
            UsageError: One other than 1.
        """
        if exponent != 1 and not self.tempered:
            raise UsageError(
                "`exponent`",
                expected=f"1, because criterion {self.name} has no exponent",
                found=f"{exponent:g}",
                remedy="leave it out, or choose a criterion with |γ|^p or its like in its formula, such as effect",
            )

    def score(self, inputs: CriterionInputs) -> Scores:
        """Score all P parameters.

        Raises:
            MismatchError: An input that it needs is missing, or (a defect of the criterion) not P scores.
        """
        for name, need in NEEDS.items():
            if name in self.needs and getattr(inputs, name) is None:
                raise self._mismatch(need.what, "none", f"{need.remedy}, or choose another")
        scores = self.formula(inputs)
        if scores.primary.shape != inputs.theta.shape:
            raise self._mismatch(f"{inputs.theta.size} scores", f"{scores.primary.size}", "mend the criterion")
        if (scores.theta is not None) != self.reweights:
            expected = "new weights from a criterion that says reweights=True, and from no other"
            raise self._mismatch(expected, "none" if scores.theta is None else "new weights", "mend the criterion")
        return scores

    def _mismatch(self, expected: str, found: str, remedy: str, subject: str = "") -> MismatchError:
        return MismatchError(subject or f"criterion {self.name}", expected=expected, found=found, remedy=remedy)


def float64(value: Vector | None) -> npt.NDArray[np.float64]:
    """Convert an input that a criterion needs to float64."""
    return np.asarray(value, dtype=np.float64)
