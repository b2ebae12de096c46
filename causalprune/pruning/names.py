"""The names of criteria, sparsity schedules, scopes and granularities, available without PyTorch and NumPy."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from causalprune.base.errors import missing_extra
from causalprune.base.registry import Registry, expected_name

CRITERIA = Registry(
    "criterion",
    {
        "gamma": "causalprune.pruning.criteria:GAMMA",
        "effect": "causalprune.pruning.criteria:EFFECT",
        "curvature": "causalprune.pruning.criteria:CURVATURE",
        "magnitude": "causalprune.pruning.criteria:MAGNITUDE",
        "random": "causalprune.pruning.criteria:RANDOM",
        "fisher": "causalprune.pruning.criteria:FISHER",
        "obd": "causalprune.pruning.criteria:OBD",
        "chita": "causalprune.pruning.surgery.chita:CHITA",
        "obs": "causalprune.pruning.surgery.criterion:OBS",
        "surgeon": "causalprune.pruning.layer_criteria:SURGEON",
        "rank-sum": "causalprune.pruning.layer_criteria:RANK_SUM",
        "wanda": "causalprune.pruning.layer_criteria:WANDA",
        "lamp": "causalprune.pruning.lamp:LAMP",
    },
)
"""The built-in criteria, each a :class:`causalprune.pruning.criterion.Criterion`."""

DEFAULT_CRITERION, DEFAULT_SCOPE = "effect", "global"
"""What orders the weights, and what is ranked together, unless told otherwise."""

EXPONENTS = {"effect": 0.125, "obd": 1.0}
"""The exponents p of |γ|^p·θ² and of θ²·mean(g²)^p unless told otherwise; docs/study.md has the choice."""

DEAD_ENDS = {"effect": "first"}
"""What becomes of dead ends unless told otherwise, a name in :data:`DEAD_END_RULES`; ``scored`` by other criteria."""

SAMPLES = 1000
"""Samples on which layers are measured or repaired unless told otherwise."""

CHITA_RIDGE, REPAIR_RIDGE = 0.01, 0.001
"""The penalties of ``chita`` and ``obs``, and of a repair, unless told otherwise."""

ENTRY_POINT_GROUP = "causalprune.criteria"
"""Entry-point group in which another package registers a :class:`causalprune.pruning.criterion.Criterion`."""

SPARSITY_SCHEDULES = Registry(
    "sparsity schedule",
    {
        "cubic": "causalprune.pruning.selection:cubic",
        "geometric": "causalprune.pruning.selection:geometric",
        "one-shot": "causalprune.pruning.selection:one_shot",
    },
)
"""How the sparsity grows over several iterations: functions of the progress i/N and the final sparsity."""

MASK_SCOPES = Registry(
    "scope",
    {
        "global": "causalprune.pruning.budgets:one_ranking",
        "layer": "causalprune.pruning.budgets:same_fraction",
        "uniform": "causalprune.pruning.budgets:uniform",
        "erk": "causalprune.pruning.budgets:erk",
        "lamp": "causalprune.pruning.budgets:lamp",
    },
)
"""How many weights each layer loses: functions of :class:`causalprune.pruning.budgets.Layers`."""

MASK_GRANULARITIES = ("parameter", "filter", "neuron", "channel", "layer")
"""What is pruned as a whole."""

DEAD_END_RULES = ("first", "scored")
"""What becomes of weights that reach no output any more: they are pruned first, or as their scores say."""

REWINDS = ("none", "recording", "pretrained")
"""The moment whose weights the pruned network gets back."""


def added_criteria() -> dict[str, EntryPoint]:
    """The criteria that installed packages add, not loaded yet; built-in names can't be replaced."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in CRITERIA}


def check_criterion(name: str) -> str | None:
    """Check an option: None for a built-in or added criterion, else the expected values."""
    if name in CRITERIA:
        return None
    return None if name in added_criteria() else expected_name(name, known_criteria())


def known_criteria() -> tuple[str, ...]:
    """The names of all criteria, those of installed packages last."""
    return (*CRITERIA, *sorted(added_criteria()))


def check_mask_granularity(value: str) -> str | None:
    """Check an option: None for a granularity, else the expected values.

    Raises:
        UsageError: Its library isn't installed.
    """
    if value not in MASK_GRANULARITIES:
        return expected_name(value, MASK_GRANULARITIES)
    if value == "channel" and find_spec("torch_pruning") is None:
        raise missing_extra("`granularity=channel` needs torch-pruning", "compact")
    return None


def check_pattern(value: str) -> str | None:
    """Check an option: None for N:M, else the expected values."""
    kept, colon, of = value.partition(":")
    whole = bool(colon) and all(part.isascii() and part.isdigit() and len(part) < 7 for part in (kept, of))
    return None if whole and 0 < int(kept) < int(of) else "N:M with 0 < N < M, such as 2:4"


# For the help and the completion of the shell.
check_criterion.names = known_criteria  # type: ignore[attr-defined]
check_mask_granularity.choices = MASK_GRANULARITIES  # type: ignore[attr-defined]
