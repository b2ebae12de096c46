"""What people see of a run that hasn't begun."""

from __future__ import annotations

from typing import Any

from causalprune.base.units import format_bytes, format_seconds

from .tables import notes, pairs, records, spaced

_COLUMNS = {
    "stage": "name",
    "steps": "steps:,",
    "rows": "rows:,",
    "columns": "columns:,",
    "files": "bytes:bytes",
    "time": "time",
}


def forecast(result: Any) -> Any:
    """One line per stage, then the disk and the time that all of them take."""
    rows = [
        row
        | {
            "name": f"{row['iteration']} {row['stage']}" if row["iteration"] else row["stage"],
            "time": "–" if row["seconds"] is None else format_seconds(row["seconds"]),
            "bytes": row["bytes"] or None,
        }
        for row in result.stages
    ]
    peak = f"at most {format_bytes(result.peak_bytes)}, with states to resume from"
    there = f", {format_bytes(result.existing_bytes)} of it there already" if result.existing_bytes else ""
    lines = {
        "files at the end": format_bytes(result.total_bytes) + there,
        "peak disk": f"{peak} ({format_bytes(result.free_bytes)} free)",
        "time": f"roughly {format_seconds(result.predicted_seconds)}, without the stages that have none here",
        "dry run": "nothing was written",
    }
    return spaced(
        records(_COLUMNS, rows),
        pairs(lines),
        notes("Steps and rows are exact, sizes of recordings within a third, times rough."),
    )
