"""A log for TensorBoard, written by its own library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from causalprune.base.errors import UsageError, storage_errors
from causalprune.base.files import make_directory
from causalprune.training.logs.log import EPOCHS, LAYERS, Log, Row, remove_logs


class TensorBoardLog(Log):
    """Writes scalars into event files: ``loss``, ``lr``, ``epoch/validation``, ``sparsity/LAYER`` and so on.

    A resumed stage adds a file, which tells TensorBoard to forget the steps that come again.

    Args:
        folder: Where they are.
        step: The step after which it goes on; 0 begins anew.

    Raises:
        UsageError: TensorBoard isn't installed.
        StorageError: The file system refused.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("`log=tensorboard` needs TensorBoard: pip install '.[tensorboard]'") from error
        make_directory(folder)
        if step == 0:
            remove_logs(folder)
        self._folder = folder
        with storage_errors(folder):
            self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Add scalars, and hand them to the system."""
        with storage_errors(self._folder):
            for row in rows:
                for name, value in _scalars(table, row).items():
                    self._writer.add_scalar(name, value, int(row["step"]))
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def _scalars(table: str, row: Row) -> dict[str, float]:
    """The numbers of a row by the names of their charts."""
    if table == LAYERS:
        return {f"sparsity/{row['layer']}": float(row["sparsity"])}
    group = "epoch/" if table == EPOCHS else ""
    return {
        f"{group}{name}": value
        for name, value in row.items()
        if name not in ("step", "epoch") and not isinstance(value, str)
    }
