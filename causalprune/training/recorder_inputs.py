"""What a recorder is given: the model, which no other one may have, the columns, and gradients that are scaled."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from causalprune.base.errors import UsageError
from causalprune.base.paths import StoreUrl
from causalprune.models.parameters import ParameterIndex
from causalprune.training.ranks import DiscardingWriter
from causalprune.trajectory import RecordingWriter
from causalprune.trajectory.lifecycle import open_writers
from causalprune.trajectory.storage import locate

Writer = RecordingWriter | DiscardingWriter

_watched: weakref.WeakKeyDictionary[object, tuple[Writer, frozenset[int]]] = weakref.WeakKeyDictionary()
"""The writer of each recorder of this process, and the parameters whose steps it takes."""


def watch(recorder: object, writer: Writer, parameters: Iterable[nn.Parameter]) -> None:
    """Note that a recorder takes the steps of parameters, as long as it lives and its writer is open."""
    _watched[recorder] = writer, frozenset(map(id, parameters))


def require_free(parameters: Iterable[nn.Parameter], store: str | Path | StoreUrl | Writer) -> None:
    """Refuse parameters that another recorder watches, unless it records into the store that is about to be replaced.

    Raises:
        UsageError: Another recorder watches them.
    """
    own = frozenset(map(id, parameters))
    replaced = open_writers(locate(store)) if isinstance(store, (str, Path, StoreUrl)) else []
    for writer, watched in _watched.values():
        if not writer.closed and writer not in replaced and not own.isdisjoint(watched):
            raise UsageError(
                "model",
                expected="one that no other recorder has",
                found="one whose steps an open recorder takes",
                remedy="close that one first, or give it a copy of the model",
            )


def find_left_out(index: ParameterIndex, columns: str | Sequence[str]) -> tuple[str, ...]:
    """The names of the parameters that no pattern chooses; without patterns none.

    Raises:
        UsageError: A pattern that matches nothing.
    """
    patterns = [columns] if isinstance(columns, str) else list(columns)
    chosen = {name for pattern in patterns for name in index.matching(pattern, "columns")}
    return tuple(entry.name for entry in index if patterns and entry.name not in chosen)


def unscale(scaler: GradScaler, optimizer: Optimizer) -> None:
    """Let the gradients be what the optimizer will see, unless the loop has seen to that, in order to clip them."""
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in f"{error}":
            raise
