"""What a stage logs, whatever the format: rows of numbers in a few tables, each row at a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from causalprune.base.errors import StorageError
from causalprune.base.files import remove_file
from causalprune.models.mask import Mask

Row = Mapping[str, float | str]
"""Values by name; ``step``, the number of steps taken so far, is always among them."""

STEPS, EPOCHS, LAYERS = "steps", "epochs", "layers"
"""The tables: of each step its loss and learning rate, of each epoch also the validation, and of each layer its
sparsity. They are at the steps at which these are known."""


class Log:
    """Takes rows; this base drops them. As a context manager it closes itself."""

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Add rows to a table, in the order of their steps; what is written stays if the process is killed."""

    def close(self) -> None:
        """Close the files; a second time does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What ended the work says more than a file that can't be closed.
        with nullcontext() if error is None else suppress(StorageError):
            self.close()


OpenLog = Callable[[int], Log]
"""Opens a log for the steps after the given one. Of what an interrupted attempt logged, only the rows of the steps up
to that one stay: epochs and layers are known and written anew, and files of another format would be behind."""


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


CSV, EVENTS = "csv", "events"
"""The kinds of files that logs have."""


def log_files(folder: Path, kind: str) -> list[Path]:
    """The files of one kind that a log may have in a folder, in the order in which they were begun."""
    if kind == CSV:
        return [folder / f"{table}.csv" for table in (STEPS, EPOCHS, LAYERS)]
    return sorted(folder.glob("events.out.tfevents.*"))


def remove_logs(folder: Path, *kinds: str) -> None:
    """Delete the files of an earlier log, of these kinds or of all, and nothing else.

    Raises:
        StorageError: The file system refused.
    """
    for kind in kinds or (CSV, EVENTS):
        for path in log_files(folder, kind):
            remove_file(path, missing_ok=True)
