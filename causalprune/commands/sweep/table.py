"""The table of results: one row per point of the grid, in the order of the grid, whatever the order of the work was."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.report.series import COEFFICIENTS
from causalprune.base.errors import CorruptError, storage_errors
from causalprune.base.files import append_line, write_atomic
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import SweepPaths
from causalprune.base.units import grouped, moments
from causalprune.commands.sweep.files import read_cell, read_grid

Row = dict[str, Any]


class ResultTable:
    """The rows of the cells that are done.

    Each cell has a file, which appears complete or not at all; ``results.jsonl`` is made from these files and the grid.
    Each file is read once. While a sweep goes on, the rows of a cell are appended, whose cost doesn't grow with the
    table: so they stand in the order of the work, and those of a process that died between a cell and its rows are
    missing. If another process begins or ends between a cell and its rows, they stand twice. Each process writes all of
    the table when it begins and when it ends, and both are mended.

    Args:
        paths: The sweep's files.
    """

    def __init__(self, paths: SweepPaths) -> None:
        self._paths = paths
        self._cells: dict[str, Row] = {}
        self._settings: dict[str, list[Row]] = {}

    def rows(self) -> list[Row]:
        """The settings and the measurements of each point that is done.

        Raises:
            DataError: There is no sweep.
            CorruptError: A damaged file.
        """
        entries = read_grid(self._paths.grid)["cells"]
        self._settings = {}
        for entry in entries:
            self._settings.setdefault(entry["cell"], []).append(entry["settings"])
        done = [entry for entry in entries if self._is_done(entry["cell"])]
        return [{"cell": e["cell"], **self._cells[e["cell"]], **e["settings"]} for e in done]

    def _is_done(self, cell: str) -> bool:
        if cell not in self._cells and self._paths.cell(cell).exists():
            self._cells[cell] = read_cell(self._paths, cell)["measured"]
        return cell in self._cells

    def write(self) -> list[Row]:
        """Write ``results.jsonl`` atomically, in the order of the grid; returns the rows. One process at a time."""
        rows = self.rows()
        write_atomic(self._paths.table, "".join(map(_line, rows)).encode())
        return rows

    def add(self, cell: str) -> None:
        """Append the rows of a cell that has just been measured, durably. One process at a time, after :meth:`write`.

        A line that a crash cut short, by whichever process, is cut off first.
        """
        if self._is_done(cell):
            rows = [{"cell": cell, **self._cells[cell], **settings} for settings in self._settings[cell]]
            append_line(self._paths.table, "".join(map(_line, rows)).removesuffix("\n"))

    def summary(self) -> list[Row]:
        """The score of each combination of settings over its seeds.

        Returns:
            In the order of the grid: the settings without ``seed``, the ``metric`` (with its ``headline`` unless that
            is a usual one), ``mean`` and ``std`` over the seeds (of the sample; None for one seed), ``dense_mean`` and
            ``dense_std`` of the networks before pruning, and the number of ``seeds``. Where γ = 0 decides how much is
            pruned, also ``coefficient``, the settings that say α, and ``pruned_mean`` and ``pruned_std``.
        """
        names = [n for n in read_grid(self._paths.grid)["cells"][0]["settings"] if n != "seed"]
        lines = []
        found = self.rows()
        said = ["headline"] if found and "headline" in found[0] else []
        for settings, rows in grouped(found, [*names, "metric", *said]):
            scores, dense = ([row[key] for row in rows if row[key] is not None] for key in ("score", "dense"))
            before = {f"dense_{name}": value for name, value in moments(dense).items()}
            pruned: dict[str, Any] = {}
            if "sparsity" not in settings:
                reached = moments([row["sparsity_reached"] for row in rows])
                pruned = {f"pruned_{name}": value for name, value in reached.items()}
                pruned["coefficient"] = {name: settings.pop(name) for name in COEFFICIENTS if name in settings}
            lines.append({**settings, **moments(scores), **before, **pruned, "seeds": len(scores)})
        return lines


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"


def read_mask(paths: SweepPaths, cell: str) -> npt.NDArray[np.bool_] | None:
    """(P,) which weights a cell kept; None if the file was deleted.

    Raises:
        CorruptError: A damaged or altered file.
    """
    from safetensors import safe_open

    from causalprune.models.mask import Mask

    path = paths.mask(cell)
    if not path.exists():
        return None
    if sha256_file(path) != read_cell(paths, cell)["mask_sha256"]:
        raise CorruptError(
            f"{path}",
            expected="the mask of a cell as it was written",
            found="another",
            remedy="delete it (the report then does without), or also its .json and run the same sweep again",
        )
    with storage_errors(path, "read"), safe_open(path, framework="numpy") as file:
        total, packed = int(file.metadata()["parameters"]), file.get_tensor("keep")
    return Mask.unpacked(packed, total)
