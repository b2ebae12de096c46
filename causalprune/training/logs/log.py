"""What a stage logs, whatever the format: rows of numbers in a few tables, each row at a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from causalprune.base.files import remove_file
from causalprune.models.mask import Mask

Row = Mapping[str, float | str]
"""Values by name; ``step``, the number of steps taken so far, is always among them."""

STEPS, EPOCHS, LAYERS = "steps", "epochs", "layers"
"""The tables: of each step its loss and learning rate, of each epoch also the validation, and of each layer its
sparsity. They are at the steps at which these are known."""


class Log:
    """Takes rows; this base drops them."""

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Add rows to a table, in the order of their steps; what is written stays if the process is killed."""

    def close(self) -> None:
        """Close the files."""


OpenLog = Callable[[int], Log]
"""Opens a log for the steps after the given one; rows of later steps, which an interrupted attempt wrote, go away."""


def write_layers(log: Log, mask: Mask) -> None:
    """Log the sparsity of each layer, which a mask that is held decides once for all steps."""
    layers = mask.per_layer()
    log.write(
        LAYERS,
        [
            {"step": 0, "layer": one.name, "weights": one.total, "kept": one.kept, "sparsity": one.sparsity}
            for one in layers
        ],
    )


def remove_logs(folder: Path) -> None:
    """Delete the files of an earlier log, of whatever format, and nothing else.

    Raises:
        StorageError: The file system refused.
    """
    for table in (STEPS, EPOCHS, LAYERS):
        remove_file(folder / f"{table}.csv", missing_ok=True)
    for events in folder.glob("events.out.tfevents.*"):
        remove_file(events, missing_ok=True)
