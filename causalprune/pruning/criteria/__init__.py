"""The built-in criteria, one a file, and the way from a name to a criterion."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from causalprune.errors import CausalpruneError, DataError, UsageError
from causalprune.pruning.criteria.chita import CHITA
from causalprune.pruning.criteria.curvature import CURVATURE
from causalprune.pruning.criteria.effect import EFFECT
from causalprune.pruning.criteria.fisher import FISHER
from causalprune.pruning.criteria.gamma import GAMMA
from causalprune.pruning.criteria.magnitude import MAGNITUDE
from causalprune.pruning.criteria.obd import OBD
from causalprune.pruning.criteria.random import RANDOM
from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores
from causalprune.pruning.names import added_criteria, check_criterion

BUILT_IN: dict[str, Criterion] = {
    criterion.name: criterion for criterion in (GAMMA, EFFECT, CURVATURE, MAGNITUDE, RANDOM, FISHER, OBD, CHITA)
}
"""The criteria of :data:`causalprune.pruning.names.CRITERIA`."""


def load_criterion(name: str) -> Criterion:
    """Find a criterion, built in or added by an installed package.

    What an added one raises or returns that isn't scores becomes a DataError that names it.

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
    return replace(criterion, formula=partial(_score, criterion, f"criterion {name} ({point.value})"))


def _score(criterion: Criterion, who: str, inputs: CriterionInputs) -> Scores:
    """Run the formula of another package, so that what goes wrong in it isn't taken for an internal error."""
    try:
        scores = criterion.formula(inputs)
    except CausalpruneError:
        raise
    except Exception as error:  # another package's code may fail in any way
        raise DataError(
            who,
            expected="scores",
            found=f"that its own code raised {type(error).__name__}: {error}",
            remedy="mend the criterion (--debug shows where)",
        ) from error
    if not isinstance(scores, Scores):
        raise DataError(
            who,
            expected="causalprune.pruning.criterion.Scores",
            found=f"that its own code returned {type(scores).__name__}",
            remedy="mend the criterion",
        )
    return scores
