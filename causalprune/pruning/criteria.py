"""The built-in criteria, each a formula, and the way from a name to a criterion."""

from __future__ import annotations

import hashlib
from typing import cast

import numpy as np

from causalprune.errors import MismatchError, UsageError
from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, Vector
from causalprune.pruning.names import added_criteria, check_criterion


def load_criterion(name: str) -> Criterion:
    """Find a criterion, built in or added by an installed package.

    Raises:
        UsageError: No such criterion, or one whose package can't be imported.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    expected = check_criterion(name)
    if expected:
        raise UsageError("--criterion", expected=expected, found=repr(name))
    point = added_criteria()[name]
    try:
        criterion = point.load()
    except Exception as error:  # another package's import may fail in any way
        raise UsageError(
            f"criterion {name} ({point.value})", expected="to be imported", found=f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(criterion, Criterion):
        raise UsageError(
            f"criterion {name} ({point.value})",
            expected="a causalprune.pruning.criterion.Criterion",
            found=type(criterion).__name__,
        )
    return criterion


def _gamma(inputs: CriterionInputs) -> Scores:
    """|γ_k|, and among equals |x_kᵀr|/(Tα): how near a column with γ_k = 0 is to entering the model.

    Source: Shah et al., arXiv 2412.03035; the order of the zeros is the KKT condition of the Lasso. With momentum the
    three lag coefficients count as Σ|γ| (zero only if all three are) and their largest dual correlation.
    """
    return Scores(
        np.abs(_over_lags(inputs.gamma)).sum(axis=0),
        np.abs(_over_lags(inputs.dual_correlation)).max(axis=0),
    )


def _effect(inputs: CriterionInputs) -> Scores:
    """|γ_k|·θ_k²: setting θ_k to zero is the step Δθ_k = −θ_k, for which the fit predicts the loss change γ_k·θ_k².

    Zeros are ordered by the dual correlation times θ_k². Lags are combined as in ``gamma``.
    """
    squared = _float64(inputs.theta) ** 2
    gamma = _gamma(inputs)
    return Scores(gamma.primary * squared, cast(Vector, gamma.secondary) * squared)


def _curvature(inputs: CriterionInputs) -> Scores:
    """½·h_k·θ_k² with h_k = 2(γ_k + 1/η), the classical saliency of the curvature that the fit implies.

    A second-order step changes the loss by Σ_k(−1/η + h_k/2)·Δθ_k², hence γ_k = −1/η + h_k/2. A coordinate of negative
    curvature has a negative score and goes first. It holds for plain SGD with same-batch, unscaled ΔL.
    """
    gamma = _float64(inputs.gamma)
    if gamma.ndim != 1:
        raise MismatchError(
            "criterion curvature",
            expected="a fit without lags",
            found="three coefficients a parameter",
            remedy="record with --momentum 0, or choose another",
        )
    h = 2 * (gamma + 1 / cast(float, inputs.learning_rate))
    return Scores(h * _float64(inputs.theta) ** 2 / 2)


def _magnitude(inputs: CriterionInputs) -> Scores:
    """|θ_k| (Han et al., arXiv 1506.02626)."""
    return Scores(np.abs(_float64(inputs.theta)))


def _random(inputs: CriterionInputs) -> Scores:
    """Uniform in [0, 1), a function of seed and position alone, so that the masks of one seed are nested."""
    key = hashlib.sha256(f"causalprune criterion random {inputs.seed}".encode()).digest()[:16]
    # NumPy promises a bit generator's raw stream for ever, which it doesn't for its distributions.
    bits = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(inputs.theta.size)
    return Scores((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _fisher(inputs: CriterionInputs) -> Scores:
    """mean(g_k²), the diagonal of the empirical Fisher matrix."""
    return Scores(_float64(inputs.mean_squared_gradient))


def _obd(inputs: CriterionInputs) -> Scores:
    """θ_k²·mean(g_k²): Optimal Brain Damage (LeCun, Denker, Solla 1989) with the Fisher diagonal as curvature."""
    return Scores(_float64(inputs.theta) ** 2 * _float64(inputs.mean_squared_gradient))


def _float64(value: Vector | None) -> Vector:
    return np.asarray(value, dtype=np.float64)


def _over_lags(value: Vector | None) -> Vector:
    """(lags, P), where a model without lags has one."""
    return np.atleast_2d(_float64(value))


_FIT = frozenset({"gamma", "dual_correlation"})

BUILT_IN: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion("gamma", _gamma, _FIT),
        Criterion("effect", _effect, _FIT),
        Criterion("curvature", _curvature, frozenset({"gamma", "learning_rate"})),
        Criterion("magnitude", _magnitude),
        Criterion("random", _random),
        Criterion("fisher", _fisher, frozenset({"mean_squared_gradient"})),
        Criterion("obd", _obd, frozenset({"mean_squared_gradient"})),
    )
}
"""The criteria of :data:`causalprune.pruning.names.CRITERIA`."""
