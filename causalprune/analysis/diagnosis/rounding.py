"""What rounding left of a recording: changes of weights that vanished, and curvatures that only noise decides about."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalprune.pruning.gradients import measured_curvature
from causalprune.trajectory import RecordingReader

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the measured curvature that are shown."""


def rounding(reader: RecordingReader) -> dict[str, Any]:
    """What rounding left, as JSON.

    Returns:
        Of a held recording ``hold_share``, η‖g‖² as a share of the loss; ``precision`` of its losses; ``noisy``, the
        share of rows whose curvature isn't known; and ``curvature``, the quantiles :data:`LEVELS` of the others,
        :func:`causalprune.pruning.gradients.measured_curvature`, None without any. Of another one ``vanished``, the
        share of changes that vanished in the rounding of the weights; or only ``unavailable``, the reason.
    """
    if reader.info.held and reader.num_rows:
        found = measured_curvature(reader.steps, reader.precision)
        known = found.values[~found.noisy]
        return {
            "hold_share": reader.info.hold_share,
            "precision": reader.precision,
            "noisy": float(found.noisy.mean()),
            "curvature": np.quantile(known, LEVELS).tolist() if len(known) else None,
        }
    share = reader.vanished_share
    if share is None:
        why = f"with stride {reader.info.stride}" if reader.info.stride > 1 else "in this recording"
        return {"unavailable": f"changes that vanished weren't counted {why}"}
    return {"vanished": share}
