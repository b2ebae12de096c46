"""Names of the store's codecs, known without importing what they stand for."""

from __future__ import annotations

from causalprune.base.registry import Registry

CODECS = Registry(
    "codec",
    {
        "exact": "causalprune.store.codec:EXACT",
        "balanced": "causalprune.store.codec:BALANCED",
        "small": "causalprune.store.codec:SMALL",
    },
)
"""Ways to store deltas, each a :class:`causalprune.store.codec.Codec`."""
