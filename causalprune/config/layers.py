"""Options about single layers and patterns of weights, which ``record``, ``apply-mask`` and ``run`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from causalprune.base.errors import UsageError
from causalprune.base.options import fraction, option, require
from causalprune.config.values import meant_number
from causalprune.pruning.names import check_pattern

SCOPE_HELP = (
    "What each layer loses. global: what one ranking over all layers says; layer: the same fraction of each; uniform: "
    "as layer, but the first convolution stays dense and the last Linear layer keeps a fifth; erk: as the Erdős–Rényi "
    "kernel has it; lamp: as a global ranking by LAMP scores has it."
)


@dataclass(frozen=True)
class LayerTarget:
    """A sparsity for the layers that a pattern matches.

    Attributes:
        pattern: As in :mod:`fnmatch`, of names of layers or weights.
        sparsity: S in [0, 1).
    """

    pattern: str
    sparsity: float

    def __str__(self) -> str:
        return f"{self.pattern}={self.sparsity}"

    @classmethod
    def parse(cls, text: str, place: str) -> LayerTarget:
        """Read ``PATTERN=S``.

        Raises:
            UsageError: Malformed, or S outside [0, 1).
        """
        pattern, equals, value = text.strip().rpartition("=")
        try:
            sparsity = float(value)
        except ValueError:
            equals = ""
        if not equals or not pattern:
            expected = f"PATTERN=S such as conv1=0.5{meant_number(value)}"
            raise UsageError(place, expected=expected, found=repr(text))
        require(f"{place} {text}", sparsity, fraction)
        return cls(pattern, sparsity)


def keep_option() -> Any:
    """Declare ``keep``."""
    return option(
        (),
        "Leave layers dense, by the name of the layer or weight, such as conv1 or 'fc*'; --sparsity is of the others. "
        "May be repeated.",
        metavar="PATTERN",
        parse=lambda text, _: text.strip(),
        repeated=True,
        formerly=(),
    )


def layer_sparsity_option() -> Any:
    """Declare ``layer_sparsity``."""
    return option(
        (),
        "Prune these layers to S, and the others so that --sparsity is met together; of several that match a layer the "
        "last one holds. May be repeated.",
        metavar="PATTERN=S",
        parse=LayerTarget.parse,
        repeated=True,
        formerly=(),
    )


def prune_option(what: str) -> Any:
    """Declare ``prune``."""
    return option(
        (),
        f"{what} further parameters, by name, such as tokens.weight or 'blocks.*.scale': embeddings, bare parameters. "
        "May be repeated.",
        metavar="PATTERN",
        parse=lambda text, _: text.strip(),
        repeated=True,
        formerly=(),
    )


def pattern_option() -> Any:
    """Declare ``pattern``."""
    return option(
        None,
        "Instead of --sparsity: keep the N that the criterion ranks highest of each M consecutive weights of a filter "
        "or neuron, such as 2:4.",
        metavar="N:M",
        check=check_pattern,
        formerly=None,
    )
