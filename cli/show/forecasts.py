"""What people see of a run that hasn't begun."""

from __future__ import annotations

from typing import Any

from causalprune.base.units import format_bytes

from .tables import notes, pairs, records, spaced

_COLUMNS = {
    "stage": "name",
    "steps": "steps:,",
    "rows": "rows:,",
    "columns": "columns:,",
    "files": "bytes:bytes",
    "time": "time",
}
_MINUTE, _HOUR = 60, 3600


def forecast(result: Any) -> Any:
    """One line per stage, then the disk and the time that all of them take."""
    rows = [
        row
        | {
            "name": f"{row['iteration']} {row['stage']}" if row["iteration"] else row["stage"],
            "time": _duration(row["seconds"]),
            "bytes": row["bytes"] or None,
        }
        for row in result.stages
    ]
    peak = f"at most {format_bytes(result.peak_bytes)}, with states to resume from"
    there = f", {format_bytes(result.existing_bytes)} of it there already" if result.existing_bytes else ""
    lines = {
        "files at the end": format_bytes(result.total_bytes) + there,
        "peak disk": f"{peak} ({format_bytes(result.free_bytes)} free)",
        "time": f"roughly {_duration(result.predicted_seconds)}, without the stages that have none here",
        "dry run": "nothing was written",
    }
    return spaced(
        records(_COLUMNS, rows, no_wrap=True),
        pairs(lines),
        notes("Steps and rows are exact, sizes of recordings within a third, times rough."),
    )


def _duration(seconds: float | None) -> str:
    """Seconds for people; a dash if nobody knows."""
    if seconds is None:
        return "–"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
