"""How large a recording will be, before it is made."""

from __future__ import annotations

import numpy as np

from causalprune.trajectory.blocks import BlockShape
from causalprune.trajectory.codec import find_codec
from causalprune.trajectory.shard import index_bytes


def estimate_bytes(delta: np.ndarray, *, rows: int, codec: str = "balanced") -> int:
    """Predict the bytes of a recording's shards by compressing one real row.

    Args:
        delta: (P_active,) float32, the Δθ of one step.
        rows: Rows to record.
        codec: ``exact``, ``balanced`` or ``small``.

    Returns:
        Bytes of all shards; the rest of a store is small beside them.

    Raises:
        UsageError: An unknown codec.
    """
    chosen = find_codec(codec)
    shape = BlockShape.choose(len(delta), rows)
    rounded = np.empty(len(delta), np.float32)
    chosen.round(np.ascontiguousarray(delta, np.float32), rounded)
    # No less at once than in the recording, whose blocks hold several rows: compressors do less well on little data.
    length = max(shape.width, chosen.block_bytes // 4)
    chunks = (rounded[start : start + length] for start in range(0, len(delta), length))
    row_bytes = sum(len(part) for chunk in chunks for part in chosen.encode(chunk))
    return rows * row_bytes + shape.shards(rows) * index_bytes(shape)
