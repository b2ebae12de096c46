"""What a sweep wrote, read and compared with its seals without PyTorch: the grid, cells, results of steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causalprune.base.errors import CorruptError, MismatchError
from causalprune.base.json_files import is_sealed, read_json
from causalprune.base.paths import SweepPaths

FORMAT = "causalprune-sweep"
FORMAT_VERSION = 1

DONE = "done.json"
"""The result of a step that is done, in its folder."""


def read_grid(path: Path) -> dict[str, Any]:
    """Read what :meth:`Grid.claim` wrote: ``config``, and ``cells``, each with ``cell`` and ``settings``.

    Raises:
        DataError: Nothing there.
        CorruptError: Something else.
        MismatchError: A newer format.
    """
    value = read_json(path, remedy="run `causalprune sweep` first, or name another --run")
    ours = isinstance(value, dict) and value.get("format") == FORMAT and isinstance(value.get("format_version"), int)
    if ours and value["format_version"] > FORMAT_VERSION:
        raise MismatchError(
            f"{path}",
            expected=f"format version {FORMAT_VERSION} or older",
            found=f"version {value['format_version']}",
            remedy="install a newer causalprune",
        )
    if not ours or not is_sealed(value):
        raise CorruptError(
            f"{path}",
            expected="the grid of a sweep as it was written",
            found="another",
            remedy="restore it, or sweep elsewhere",
        )
    return dict(value)


def read_cell(paths: SweepPaths, cell: str) -> dict[str, Any]:
    """Read what was measured in a cell that is done.

    Raises:
        CorruptError: Something else, or an altered result.
    """
    path = paths.cell(cell)
    value = read_json(path)
    ours = isinstance(value, dict) and value.get("cell") == cell
    if not ours or not is_sealed(value):
        raise CorruptError(
            f"{path}",
            expected="the result of a cell as it was measured",
            found="an altered one" if ours else "something else",
            remedy="delete it and run the same sweep again",
        )
    return dict(value)
