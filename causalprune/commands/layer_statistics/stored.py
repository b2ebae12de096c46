"""Statistics of the layers in a store: written beside a recording, and found again by the weights that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from causalprune.base.errors import DAMAGE
from causalprune.base.paths import StoreUrl
from causalprune.data.datasets import DataSet
from causalprune.data.tasks.classification import SMOOTHING
from causalprune.models.checkpoint import Checkpoint
from causalprune.pruning.layer_statistics import LayerStatistics, PackedStatistics, pack
from causalprune.trajectory import Store
from causalprune.trajectory.array_groups import ArrayGroup
from causalprune.trajectory.storage import locate
from causalprune.trajectory.storage.location import damaged

ROLE = "layer_statistics"
"""The role of these statistics among the inputs of a command."""


@dataclass(frozen=True, eq=False)
class StoredStatistics:
    """What a recording keeps of the layers.

    Attributes:
        kept: The arrays and attributes.
        network: What they are of.
        source: What they are, for messages.
    """

    kept: ArrayGroup
    network: Checkpoint
    source: str

    @cached_property
    def layers(self) -> Mapping[str, LayerStatistics]:
        """The statistics, by the name of the weight.

        Raises:
            CorruptError: An array is missing or damaged.
        """
        described = self.kept.attributes.get("layers")
        return PackedStatistics(self.kept.arrays, described, self.network.info.index, self.source)

    @property
    def samples(self) -> int:
        """How many samples they were measured on."""
        samples: int = self.kept.attributes["samples"]
        return samples

    def is_of(self, samples: int | None) -> bool:
        """Whether they are what a measurement on so many samples would give; None stands for any number."""
        return samples in (None, self.samples, self.kept.attributes["requested"])


def to_store(
    statistics: Mapping[str, LayerStatistics], network: Checkpoint, data: DataSet, *, samples: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the attributes that a recording keeps.

    Args:
        statistics: By the name of the weight.
        network: What they were measured of.
        data: What they were measured on.
        samples: How many samples were asked for.
        seed: Of the draw of samples and labels.
    """
    arrays, layers = pack(statistics)
    attributes = {
        "weights": network.network_digest,
        "data": data.fingerprint,
        "samples": min(samples, len(data.train)),
        "requested": samples,
        "seed": seed,
        "smoothing": SMOOTHING,
        "layers": layers,
    }
    return arrays, attributes


def find_statistics(
    path: Path | StoreUrl, network: Checkpoint, recording: str | None = None
) -> tuple[StoredStatistics | None, str]:
    """The statistics of exactly these weights and data in a store.

    Args:
        path: The store, if there is one.
        network: The network that they should be of.
        recording: Look only at this recording; by default at all, the last first.

    Returns:
        The statistics, or None and, if the store has some or can't be read, why they can't be used.
    """
    if not locate(path).exists():
        return None, ""
    try:
        return _find(Store.open(path), network, recording)
    except DAMAGE as error:
        return None, f"{error}"


def _find(store: Store, network: Checkpoint, recording: str | None) -> tuple[StoredStatistics | None, str]:
    others = digest = ""
    for name in reversed(store.recordings if recording is None else [recording]):
        kept = store.recording(name).read_layer_statistics()
        if kept is None:
            continue
        digest = digest or network.network_digest
        source = f"layer statistics of recording {name} in {store.path}"
        if (kept.attributes.get("weights"), kept.attributes.get("data")) == (digest, network.info.data_fingerprint):
            if not all(type(kept.attributes.get(name)) is int for name in ("samples", "requested")):
                raise damaged(source, expected="the number of samples", found="none")
            return StoredStatistics(kept, network, source), ""
        others = f"the {source} are of other weights"
    return None, others
