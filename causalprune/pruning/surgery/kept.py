"""What masks of one recording at several sparsities have in common, kept from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_kept: ContextVar[dict[str, tuple[object, object]]] = ContextVar("kept of a recording")


@contextmanager
def last_results_kept() -> Iterator[None]:
    """Keep the most recent result of each kind in memory while the body runs, for masks that follow each other."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def kept_or_computed(kind: str, key: object, compute: Callable[[], T]) -> T:
    """The kept result of this kind, if it was computed with an equal key; else compute it, and keep it.

    Args:
        kind: What it is. Of each kind one result is kept, within :func:`last_results_kept`.
        key: Everything that decides the result; None if that isn't known.
        compute: Makes the result, which nobody changes afterwards.
    """
    results = _kept.get(None)
    if results is None or key is None:
        return compute()
    if kind not in results or results[kind][0] != key:
        results[kind] = key, compute()
    found: T = results[kind][1]  # type: ignore[assignment]
    return found
