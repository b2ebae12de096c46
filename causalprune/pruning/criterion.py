"""What a pruning criterion is: a function from measurements to one score per parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.base.options import one_of, require
from causalprune.models.mask import Mask
from causalprune.pruning.gradients import GradientMatrix
from causalprune.pruning.names import CHITA_RIDGE, DEAD_END_RULES
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
        "a same-batch recording of plain SGD without weight decay, at learning rates that stay or held, and stride 1",
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
        learning_rate: η of a recording in which γ = −1/η + h/2; (P,) where it differs between parameters, infinite
            where γ = h/2.
        candidates: (P,) bool, the parameters that may be pruned; None for all.
        ridge: Penalty of ``chita``, as a multiple of the mean over the parameters of Σ_t g_tk², and of ``obs``, of
            Σ_t d_t·g_tk².
        first_order: Whether ``obs`` counts the gradient besides the curvature.
        exponent: p in |γ|^p·θ² and its like; read by the criteria that have one.
        device: Where ``obs`` computes, and matrices of ``layers`` are factorized, in float64: ``cpu``, ``cuda`` or
            ``cuda:N``.
        seed: Seed of ``random``.

    Raises:
        MismatchError: Shapes don't agree.
        DataError: A learning rate that isn't above 0, a ridge that isn't a finite number above 0, or an exponent below
            0.
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
    candidates: npt.NDArray[np.bool_] | None = None
    ridge: float = CHITA_RIDGE
    first_order: bool = False
    exponent: float = 1.0
    device: str = "cpu"
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
        if not (math.isfinite(self.ridge) and self.ridge > 0):
            raise DataError("ridge", expected="a finite number above 0", found=str(self.ridge))
        if self.learning_rate is not None and not np.greater(self.learning_rate, 0).all():
            raise DataError("learning rate", expected="a number above 0", found=str(self.learning_rate))
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
        dead_ends: (P,) bool, parameters that are pruned before all others whatever their scores, or None.
        remarks: What the user should know of how they came about, in whole lines.

    Raises:
        MismatchError: The vectors differ in length.
    """

    primary: Vector
    secondary: Vector | None = None
    theta: Vector | None = None
    dead_ends: npt.NDArray[np.bool_] | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("primary", "secondary", "theta", "dead_ends"):
            value = getattr(self, name)
            if value is not None and value.shape != (self.primary.size,):
                raise MismatchError(f"{name} scores", expected=f"shape ({self.primary.size},)", found=f"{value.shape}")

    @property
    def keys(self) -> tuple[Vector, ...]:
        """The vectors to sort by, most significant first."""
        scores = (self.primary,) if self.secondary is None else (self.primary, self.secondary)
        return scores if self.dead_ends is None else (np.where(self.dead_ends, -1.0, 0.0), *scores)


@dataclass(frozen=True)
class Criterion:
    """A way to order weights: a function from what was measured to one score per weight; the lowest are pruned first.

    Attributes:
        name: Its name, the value of the option ``criterion``.
        formula: Computes the scores of all P parameters from the inputs: :class:`Scores`, or a vector (P,) of them.
        needs: Fields of :class:`CriterionInputs` that ``formula`` reads besides ``theta``, ``candidates``, ``ridge``,
            ``first_order``, ``exponent``, ``device`` and ``seed``.
        reweights: Whether it also sets the kept weights, in :attr:`Scores.theta`.
        exponent: The exponent that ``formula`` reads unless another is given; None if it reads none.
        dead_ends: What becomes of dead ends unless told otherwise, a name in
            :data:`causalprune.pruning.names.DEAD_END_RULES`.
        first_order: Whether ``formula`` has a first-order term to switch on.
        takes_lags: Whether ``formula`` can read the three coefficients per weight of a fit with lags.

    Raises:
        UsageError: A need that isn't in :data:`NEEDS`.

    Example:
        For :func:`causalprune.prune`; a package adds one for the command line with an entry point in the group
        ``causalprune.criteria``.

        >>> import numpy as np
        >>> taylor = Criterion(
        ...     "taylor",
        ...     lambda inputs: np.abs(inputs.theta) * np.sqrt(inputs.mean_squared_gradient),
        ...     needs=frozenset({"mean_squared_gradient"}),
        ... )
        >>> inputs = CriterionInputs(theta=np.array([-2.0, 1.0]), mean_squared_gradient=np.array([1.0, 9.0]))
        >>> taylor.score(inputs).primary
        array([2., 3.])
    """

    name: str
    formula: Callable[[CriterionInputs], Scores | Vector]
    needs: frozenset[str] = field(default_factory=frozenset)
    reweights: bool = False
    exponent: float | None = None
    dead_ends: str = "scored"
    first_order: bool = False
    takes_lags: bool = True

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

    @property
    def reads_gamma(self) -> bool:
        """Whether it reads a fit, or what comes of one."""
        return bool({"gamma", "dual_correlation"} & self.needs)

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

    def require_lags(self, *, lags: bool) -> None:
        """Refuse a fit with lags where the formula can't read one.

        Raises:
            MismatchError: It can't.
        """
        if lags and not self.takes_lags:
            raise MismatchError(
                f"criterion {self.name}",
                expected="a fit without lags",
                found="three coefficients per parameter",
                remedy="pass `fit-gamma.lags=0`, or choose another",
            )

    def choose_exponent(self, given: float | None) -> float:
        """The exponent that was given, or the criterion's own; 1 for one that reads none.

        Raises:
            UsageError: One was given, and the criterion reads none.
        """
        if given is not None and self.exponent is None:
            raise UsageError(
                "`exponent`",
                expected=f"none, because the formula of criterion {self.name} has no exponent",
                found=f"{given:g}",
                remedy="leave it out, or choose a criterion with |γ|^p or its like in its formula, such as effect",
            )
        return 1.0 if self.exponent is None else self.exponent if given is None else given

    def finds_dead_ends(self, given: str | None, *, ranks_weights: bool) -> bool:
        """Whether dead ends are pruned before all other weights: as was asked for, or else as the criterion does.

        Args:
            given: A name in :data:`causalprune.pruning.names.DEAD_END_RULES`, or None.
            ranks_weights: Whether single weights are ranked, to a sparsity.

        Raises:
            UsageError: An unknown name; it was asked for, and weights aren't ranked, or the criterion sets them.
        """
        if given is not None:
            require("`dead_ends`", given, one_of(DEAD_END_RULES))
        if given == "first" and (self.reweights or not ranks_weights):
            reason = (
                f"criterion {self.name} sets the weights that it keeps" if ranks_weights else "no weights are ranked"
            )
            raise UsageError(
                "`dead_ends`",
                expected=f"scored, because {reason}",
                found=given,
                remedy="leave it out, or rank single weights to a `sparsity` by a criterion such as effect",
            )
        return ranks_weights and (given or self.dead_ends) == "first"

    def check_options(self, *, exponent: float | None, first_order: bool) -> None:
        """Refuse an option that the formula doesn't have.

        Raises:
            UsageError: An exponent or a first-order term that it lacks.
        """
        self.choose_exponent(exponent)
        if first_order and not self.first_order:
            raise UsageError(
                "`first_order`",
                expected=f"none, because the formula of criterion {self.name} has no first-order term",
                found="one",
                remedy="leave it out, or choose criterion obs",
            )

    def score(self, inputs: CriterionInputs) -> Scores:
        """Score all P parameters.

        Raises:
            MismatchError: An input that it needs is missing, or (a defect of the criterion) not P scores.
        """
        for name, need in NEEDS.items():
            if name in self.needs and getattr(inputs, name) is None:
                raise self._mismatch(need.what, "none", f"{need.remedy}, or choose another")
        found = self.formula(inputs)
        scores = Scores(found) if isinstance(found, np.ndarray) else found
        if not isinstance(scores, Scores):
            raise self._mismatch("an array, or Scores", type(scores).__name__, "mend the criterion")
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
