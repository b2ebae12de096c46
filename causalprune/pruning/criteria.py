"""Criteria of weights, of a fit, or of gradients; how a name becomes a criterion, and how one gets its inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import CausalpruneError, DataError, UsageError, translate
from causalprune.models.mask import Mask
from causalprune.pruning.criterion import NEEDS, Criterion, CriterionInputs, Scores, Vector, float64
from causalprune.pruning.gradients import GradientMatrix, mean_squared_gradient, measured_curvature
from causalprune.pruning.names import CRITERIA, DEAD_ENDS, EXPONENTS, added_criteria, check_criterion
from causalprune.trajectory import Fit, RecordingReader

if TYPE_CHECKING:
    from causalprune.pruning.layer_statistics import LayerStatistics

MAX_GRADIENTS = 2000
"""Largest number of rows used as gradients; from a longer recording, this many evenly spaced rows are used."""


def _gamma(inputs: CriterionInputs) -> Scores:
    """|γ_k|; ties by |x_kᵀr|/(Tα), the KKT score: how close a column with γ_k = 0 is to entering the model.

    Source: Shah et al., arXiv 2412.03035; the order of the zeros follows from the KKT conditions of the Lasso. With
    momentum, the scores of the three lags are combined as Σ|γ| (zero only if all three are) and the largest KKT score.
    """
    return Scores(
        np.abs(_over_lags(inputs.gamma)).sum(axis=0),
        np.abs(_over_lags(inputs.dual_correlation)).max(axis=0),
    )


def _over_lags(value: Vector | None) -> Vector:
    """(lags, P); a model without lags has one row."""
    return np.atleast_2d(float64(value))


def _effect(inputs: CriterionInputs) -> Scores:
    """|γ_k|^p·θ_k²; with p = 1 the loss change γ_k·Δθ_k² that the fit predicts for Δθ_k = −θ_k, which prunes θ_k.

    Source: derived here from the causal model ΔL = Σ_k γ_k·Δθ_k² of Shah et al. (arXiv 2412.03035), who rank by |γ_k|.
    Ties are broken by the KKT score to the power p times θ_k². Lags are combined as in ``gamma``. The exponent p lies
    between ``magnitude`` at 0 (0⁰ is 1) and the prediction at 1; γ_k = 0 comes first for every p above 0.
    """
    squared, p = float64(inputs.theta) ** 2, inputs.exponent
    gamma = _gamma(inputs)
    return Scores(_power(gamma.primary, p) * squared, _power(cast(Vector, gamma.secondary), p) * squared)


def _curvature(inputs: CriterionInputs) -> Scores:
    """½·h_k·θ_k² with h_k = 2(γ_k + 1/η): the saliency of the curvature h_k that a fit implies.

    Source: the saliency ½hθ² is that of Optimal Brain Damage (LeCun, Denker, Solla 1989); h from γ is derived here. To
    second order, and with a diagonal Hessian, a step of plain SGD changes the loss of its own minibatch by
    Σ_k(−1/η + h_k/2)·Δθ_k², so γ_k = −1/η + h_k/2 in the causal model of Shah et al. (arXiv 2412.03035).
    :class:`causalprune.trajectory.steps.UpdateRule` checks for which recordings this holds, and η is infinite for held
    steps, of which a fit explains the second-order part alone. A coordinate of negative curvature has a negative score
    and is pruned first.
    """
    gamma = float64(inputs.gamma)
    CURVATURE.require_lags(lags=gamma.ndim > 1)
    h = 2 * (gamma + 1 / cast(Vector, inputs.learning_rate))
    return Scores(h * float64(inputs.theta) ** 2 / 2)


def _magnitude(inputs: CriterionInputs) -> Scores:
    """|θ_k| (Han et al., arXiv 1506.02626)."""
    return Scores(np.abs(float64(inputs.theta)))


def _random(inputs: CriterionInputs) -> Scores:
    """Uniform in [0, 1), determined by seed and position alone, so that the masks of one seed are nested."""
    key = hashlib.sha256(f"causalprune criterion random {inputs.seed}".encode()).digest()[:16]
    # NumPy guarantees that the raw stream of a bit generator never changes; its distributions may.
    bits = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(inputs.theta.size)
    return Scores((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _fisher(inputs: CriterionInputs) -> Scores:
    """mean(g_k²) over the recorded minibatch gradients: the diagonal of the empirical Fisher matrix.

    Source: a baseline without its own paper. Fisher pruning (Theis et al., arXiv 1801.05787) uses the Fisher diagonal
    as the curvature of a weight and ranks by its product with θ_k², which is the criterion ``obd`` here.
    """
    return Scores(float64(inputs.mean_squared_gradient))


def _obd(inputs: CriterionInputs) -> Scores:
    """θ_k²·mean(g_k²)^p; with p = 1, Optimal Brain Damage with the empirical Fisher diagonal as curvature.

    Source: LeCun, Denker, Solla 1989, who rank by ½hθ²; Theis et al. (arXiv 1801.05787) use this diagonal for h. The
    exponent p, as in ``effect``, is derived here.
    """
    return Scores(float64(inputs.theta) ** 2 * _power(inputs.mean_squared_gradient, inputs.exponent))


def _power(values: Vector | None, exponent: float) -> npt.NDArray[np.float64]:
    """``values``, not negative, to the power of the option ``exponent``.

    Raises:
        UsageError: A finite value that is infinite then.
    """
    base = float64(values)
    with np.errstate(over="ignore"):
        powers: npt.NDArray[np.float64] = base**exponent
    if np.any(np.isinf(powers) & np.isfinite(base)):
        raise UsageError("`exponent`", expected="one with which the scores are finite", found=f"{exponent:g}")
    return powers


GAMMA = Criterion("gamma", _gamma, frozenset({"gamma", "dual_correlation"}))
EFFECT = Criterion("effect", _effect, GAMMA.needs, exponent=EXPONENTS["effect"], dead_ends=DEAD_ENDS["effect"])
CURVATURE = Criterion("curvature", _curvature, frozenset({"gamma", "learning_rate"}), takes_lags=False)
MAGNITUDE = Criterion("magnitude", _magnitude)
RANDOM = Criterion("random", _random)
FISHER = Criterion("fisher", _fisher, frozenset({"mean_squared_gradient"}))
OBD = Criterion("obd", _obd, FISHER.needs, exponent=EXPONENTS["obd"])


def load_criterion(name: str) -> Criterion:
    """Load a criterion by its name, built in or added by an installed package.

    If an added criterion raises, or returns anything but scores, that becomes a DataError that names it.

    Raises:
        UsageError: There is no such criterion, or its package can't be imported.
    """
    if name in CRITERIA:
        built_in: Criterion = CRITERIA.load(name)
        return built_in
    expected = check_criterion(name)
    if expected:
        raise UsageError("`criterion`", expected=expected, found=repr(name))
    point = added_criteria()[name]
    who = f"criterion {name} ({point.value})"
    try:
        criterion = point.load()
    except Exception as error:  # another package's import may fail in any way
        raise UsageError(who, expected="to be imported", found=f"{type(error).__name__}: {error}") from error
    if not isinstance(criterion, Criterion):
        raise UsageError(who, expected="a causalprune.pruning.criterion.Criterion", found=type(criterion).__name__)
    return replace(criterion, formula=partial(_score, criterion, who))


def _score(criterion: Criterion, who: str, inputs: CriterionInputs) -> Scores | Vector:
    """Run the formula of another package, so that its errors aren't mistaken for errors of causalprune."""
    try:
        scores = criterion.formula(inputs)
    except CausalpruneError:
        raise
    except Exception as error:  # another package's code may fail in any way
        raise translate(error) or DataError(
            who,
            expected="scores",
            found=f"that its own code raised {type(error).__name__}: {error}",
            remedy="mend the criterion (`debug` shows where)",
        ) from error
    if not isinstance(scores, Scores | np.ndarray):
        raise DataError(
            who,
            expected="an array, or causalprune.pruning.criterion.Scores",
            found=f"that its own code returned {type(scores).__name__}",
            remedy="mend the criterion",
        )
    return scores


def read_inputs(
    criterion: Criterion,
    theta: npt.NDArray[np.float32],
    mask: Mask,
    reader: RecordingReader | None,
    fit: Fit | None,
    *,
    max_bytes: int,
    layers: Mapping[str, LayerStatistics] | None = None,
    project: Callable[[npt.NDArray[np.floating]], npt.NDArray[np.bool_]] | None = None,
    candidates: npt.NDArray[np.bool_] | None = None,
    ridge: float = CriterionInputs.ridge,
    first_order: bool = False,
    exponent: float = CriterionInputs.exponent,
    device: str = "cpu",
    seed: int = 0,
) -> CriterionInputs:
    """Read what a criterion needs; what the recording and the fit don't have is left out.

    Args:
        criterion: Declares its needs; :meth:`Criterion.require` checks that the recording can serve them.
        theta: (P,) weights.
        mask: The mask so far.
        reader: A recording of these parameters.
        fit: A fit to this recording.
        max_bytes: Largest gradient matrix to hold in memory; a larger one is read from the store in each pass.
        layers: See :class:`CriterionInputs`.
        project: See :class:`CriterionInputs`.
        candidates: See :class:`CriterionInputs`.
        ridge: See :class:`CriterionInputs`.
        first_order: See :class:`CriterionInputs`.
        exponent: See :class:`CriterionInputs`.
        device: See :class:`CriterionInputs`.
        seed: See :class:`CriterionInputs`.

    Raises:
        CorruptError: The store is damaged.
    """
    values: dict[str, Any] = {}
    index = mask.index
    if reader is not None:
        lr, columns = reader.learning_rates, reader.column_index
        if fit is not None:
            for name in ("gamma", "dual_correlation"):
                values[name] = fit.spread(name)
        if "mean_squared_gradient" in criterion.needs:
            values["mean_squared_gradient"] = np.zeros(index.total)
            values["mean_squared_gradient"][columns] = mean_squared_gradient(reader.row_blocks(), lr, len(columns))
        if "gradients" in criterion.needs:
            values["gradients"] = GradientMatrix.from_deltas(
                lambda chosen: reader.column_blocks(columns=chosen),
                lr,
                columns,
                max_rows=MAX_GRADIENTS,
                max_bytes=max_bytes,
                curvature=measured_curvature(reader.steps, reader.precision) if reader.info.held else None,
                identity=reader.digest,
            )
        in_gamma = reader.rates_in_gamma
        if reader.num_rows and not NEEDS["learning_rate"].unmet(reader.info.update_rule, in_gamma.extremes):
            values["learning_rate"] = rates = in_gamma.of_columns()
            if in_gamma.group is not None:
                # Any number where there is no column.
                values["learning_rate"] = np.ones(index.total)
                values["learning_rate"][columns] = rates
    return CriterionInputs(
        theta=theta,
        mask=mask,
        layers=layers,
        project=project,
        candidates=candidates,
        ridge=ridge,
        first_order=first_order,
        exponent=exponent,
        device=device,
        seed=seed,
        **values,
    )
