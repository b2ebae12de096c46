"""A log as CSV files, one per table, which every spreadsheet and data frame reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from causalprune.base.errors import storage_errors
from causalprune.base.files import append_line, make_directory, remove_file, rename, write_atomic
from causalprune.base.progress import logger
from causalprune.training.logs.log import EPOCHS, EVENTS, LAYERS, STEPS, Log, Row, remove_logs


class CsvLog(Log):
    """Appends rows to ``steps.csv``, ``epochs.csv`` and ``layers.csv``; numbers are written in full.

    Args:
        folder: Where they are.
        step: The step after which it goes on; 0 begins anew. A ``steps.csv`` that another program has saved in its own
            way is moved aside, to ``steps.csv.unread``: a log never costs a training.

    Raises:
        StorageError: The file system refused.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        make_directory(folder)
        if step == 0:
            remove_logs(folder)
            return
        remove_logs(folder, EVENTS)
        for table in (EPOCHS, LAYERS):
            remove_file(folder / f"{table}.csv", missing_ok=True)
        _cut(folder / f"{STEPS}.csv", step)

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Append rows, durably; the first ones of a table decide its columns."""
        if not rows:
            return
        path = self._folder / f"{table}.csv"
        # A full disk may leave an empty file.
        head = [] if path.exists() and path.stat().st_size else [list(rows[0])]
        append_line(path, _text([*head, *(list(row.values()) for row in rows)]).removesuffix("\n"))


def _cut(path: Path, step: int) -> None:
    """Cut off the rows of later steps, and a last row that was cut short."""
    if not path.exists():
        return
    try:
        with storage_errors(path, "read"):
            whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        lines = list(csv.reader(io.StringIO(whole)))
        kept = lines[:1] + [line for line in lines[1:] if line and int(line[0]) <= step]
        if kept and kept[0][:1] != ["step"]:
            raise ValueError(kept[0])
    except (ValueError, csv.Error):
        aside = path.with_name(f"{path.name}.unread")
        logger.warning("%s isn't as it was written: it is %s now, and the log goes on in a new file", path, aside.name)
        rename(path, aside)
        return
    if not kept:
        remove_file(path)
    elif len(kept) < len(lines) or path.stat().st_size != len(whole.encode()) + 1:
        write_atomic(path, _text(kept).encode())


def _text(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
