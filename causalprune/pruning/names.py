"""Names of everything that pruning may be asked for, known without importing PyTorch or NumPy."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

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
        "chita": "causalprune.pruning.chita:CHITA",
    },
)
"""The built-in criteria, each a :class:`causalprune.pruning.criterion.Criterion`."""

ENTRY_POINT_GROUP = "causalprune.criteria"
"""Entry-point group in which another package registers a :class:`causalprune.pruning.criterion.Criterion`."""

SPARSITY_SCHEDULES = Registry(
    "sparsity schedule",
    {
        "cubic": "causalprune.pruning.schedule:cubic",
        "geometric": "causalprune.pruning.schedule:geometric",
        "one-shot": "causalprune.pruning.schedule:one_shot",
    },
)
"""Ways to a sparsity over several iterations, each a function of the progress i/N and the sparsity at the end."""

SCOPES = ("global", "layer")
"""One ranking (or fit) over all layers, or one per layer."""

GRANULARITIES = ("parameter", "filter", "neuron", "layer")
"""What a coefficient belongs to."""

MASK_GRANULARITIES = ("parameter", "filter", "neuron", "channel", "layer")
"""What is pruned as a whole."""

REWINDS = ("none", "recording", "pretrained")
"""Which weights a network gets after the mask."""


def added_criteria() -> dict[str, EntryPoint]:
    """Criteria that installed packages add, unloaded; a built-in name can't be replaced and is left out."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in CRITERIA}


def check_criterion(name: str) -> str | None:
    """Check an option: None for a built-in or added criterion, else what was expected."""
    if name in CRITERIA:
        return None
    added = added_criteria()
    return None if name in added else expected_name(name, (*CRITERIA, *sorted(added)))


def check_mask_granularity(value: str) -> str | None:
    """Check an option: None for a granularity whose library is installed, else what was expected."""
    if value not in MASK_GRANULARITIES:
        return expected_name(value, MASK_GRANULARITIES)
    if value == "channel" and find_spec("torch_pruning") is None:
        return "torch-pruning installed (pip install 'causalprune[compact]')"
    return None


# The command line shows the words as the placeholder.
check_mask_granularity.choices = MASK_GRANULARITIES  # type: ignore[attr-defined]
