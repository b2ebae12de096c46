"""A log for TensorBoard, written by its own library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from causalprune.base.errors import missing_extra, storage_errors
from causalprune.base.files import make_directory, remove_file, write_atomic
from causalprune.training.logs.log import CSV, EPOCHS, EVENTS, LAYERS, Log, Row, log_files, remove_logs

_EPOCH, _SPARSITY = "epoch/", "sparsity/"
"""How the names of charts begin that have no value for each step."""


class TensorBoardLog(Log):
    """Writes scalars into event files: ``loss``, ``lr``, ``epoch/validation``, ``sparsity/LAYER`` and so on.

    A resumed stage cuts the steps that come again off the files, and adds one. That also tells a TensorBoard that is
    running to forget these steps.

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
            raise missing_extra("`log=tensorboard` needs TensorBoard", "tensorboard") from error
        make_directory(folder)
        if step == 0:
            remove_logs(folder)
        else:
            remove_logs(folder, CSV)
            for path in log_files(folder, EVENTS):
                _cut(path, step)
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
        """Close the event file; a second time does nothing."""
        with storage_errors(self._folder):
            self._writer.close()


def _scalars(table: str, row: Row) -> dict[str, float]:
    """The numbers of a row by the names of their charts."""
    if table == LAYERS:
        return {f"{_SPARSITY}{row['layer']}": float(row["sparsity"])}
    group = _EPOCH if table == EPOCHS else ""
    return {
        f"{group}{name}": value
        for name, value in row.items()
        if name not in ("step", "epoch") and not isinstance(value, str)
    }


def _cut(path: Path, step: int) -> None:
    """Cut off the values of later steps, those that no step has, and a last record that was cut short."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    kept, scalars = bytearray(), 0
    with storage_errors(path, "read"):
        data = path.read_bytes()
    for record in _records(data):
        try:
            event = Event.FromString(record[_HEAD:-_TAIL])
        except DecodeError:
            break
        names = [value.tag for value in event.summary.value]
        if names and (event.step > step or names[0].startswith((_EPOCH, _SPARSITY))):
            continue
        kept += record
        scalars += len(names)
    if scalars:
        write_atomic(path, kept)
    else:
        remove_file(path)


_HEAD, _TAIL = 12, 4
"""Bytes of a record before its event, the event's size and a checksum of that, and after it, its checksum."""


def _records(data: bytes) -> Iterator[bytes]:
    """The whole records of an event file."""
    start = 0
    while (event := start + _HEAD) <= len(data):
        end = event + int.from_bytes(data[start : start + 8], "little") + _TAIL
        if end > len(data):
            return
        yield data[start:end]
        start = end
