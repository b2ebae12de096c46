"""Cut a part from a set of samples by a seed: the validation split, or a test split where none is published."""

from __future__ import annotations

import math

import torch

from causalprune.errors import DataError
from causalprune.runtime import keyed_seed


def holdout(
    targets: torch.Tensor, fraction: float, seed: int, *, stratify: bool, part: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw ⌊N·fraction + ½⌋ samples without replacement.

    Stratified, class c gives ⌊n_c·fraction⌋ or one more, the largest remainders first (ties: the lower label), but
    never its last sample; only for that reason can the total be smaller.

    Args:
        targets: (N,) labels, int64 from 0 when ``stratify``.
        fraction: Share to draw, in (0, 1).
        seed: Seed of the draw; with ``part`` it decides it alone.
        stratify: Keep the shares of the classes.
        part: What the drawn samples become, ``validation`` or ``test``.

    Returns:
        Indices that stay and indices that were drawn, int64, each in rising order; together all N.

    Raises:
        DataError: One of the two would be empty.
    """
    count = len(targets)
    total = math.floor(count * fraction + 0.5)
    generator = torch.Generator().manual_seed(keyed_seed(seed, part))
    order = torch.randperm(count, generator=generator)
    if stratify:
        sizes = torch.bincount(targets)
        quota = _quotas(sizes, fraction, total)
        order = order[torch.argsort(targets[order], stable=True)]
        labels = targets[order]
        starts = torch.cumsum(sizes, 0) - sizes
        drawn = torch.arange(count) - starts[labels] < quota[labels]
    else:
        drawn = torch.arange(count) < total
    held, kept = order[drawn].sort().values, order[~drawn].sort().values
    if len(held) == 0 or len(kept) == 0:
        raise DataError(
            f"{part} split",
            expected=f"at least one sample in it and one outside of it at a fraction of {fraction:g}",
            found=f"{len(held)} of {count}",
            remedy="use more data or another fraction",
        )
    return kept, held


def _quotas(sizes: torch.Tensor, fraction: float, total: int) -> torch.Tensor:
    exact = sizes.double() * fraction
    quota = exact.floor().long()
    order = torch.argsort(exact - quota, descending=True, stable=True)
    quota[order[: max(0, total - int(quota.sum()))]] += 1
    return torch.minimum(quota, (sizes - 1).clamp(min=0))
