"""The built-in criteria, one a file, and the way from a name to a criterion."""

from __future__ import annotations

from causalprune.errors import UsageError
from causalprune.pruning.criteria.chita import CHITA
from causalprune.pruning.criteria.curvature import CURVATURE
from causalprune.pruning.criteria.effect import EFFECT
from causalprune.pruning.criteria.fisher import FISHER
from causalprune.pruning.criteria.gamma import GAMMA
from causalprune.pruning.criteria.magnitude import MAGNITUDE
from causalprune.pruning.criteria.obd import OBD
from causalprune.pruning.criteria.random import RANDOM
from causalprune.pruning.criterion import Criterion
from causalprune.pruning.names import added_criteria, check_criterion

BUILT_IN: dict[str, Criterion] = {
    criterion.name: criterion for criterion in (GAMMA, EFFECT, CURVATURE, MAGNITUDE, RANDOM, FISHER, OBD, CHITA)
}
"""The criteria of :data:`causalprune.pruning.names.CRITERIA`."""


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
