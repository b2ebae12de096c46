"""``random``: the baseline that knows nothing."""

from __future__ import annotations

import hashlib

import numpy as np

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores


def _score(inputs: CriterionInputs) -> Scores:
    """Uniform in [0, 1), a function of seed and position alone, so that the masks of one seed are nested."""
    key = hashlib.sha256(f"causalprune criterion random {inputs.seed}".encode()).digest()[:16]
    # NumPy promises a bit generator's raw stream for ever, which it doesn't for its distributions.
    bits = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(inputs.theta.size)
    return Scores((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


RANDOM = Criterion("random", _score)
