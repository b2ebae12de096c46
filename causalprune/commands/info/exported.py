"""What ``info`` says of an exported network, from the record that ``export`` keeps of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from causalprune.base.json_files import sha256_file
from causalprune.base.paths import RunPaths
from causalprune.commands._output import read_result
from causalprune.commands.info.store_description import Problems


def export_record(path: Path) -> dict[str, Any]:
    """The result of the ``export`` that wrote a file; empty if there is none in its folder."""
    beside = read_result(path.with_name(path.name + ".json"))
    for record in (beside, *_records(RunPaths(path.parent))):
        if _is_of(record, path):
            return record
    return {}


def exports(run: RunPaths) -> list[dict[str, Any]]:
    """The exported networks of a run directory: ``name``, ``format`` and ``bytes``, and whether each is as written."""
    found: list[dict[str, Any]] = []
    for record in _records(run):
        path = run.root / Path(str(record.get("outputs", {}).get("model", ""))).name
        if _is_of(record, path) and path.is_file() and path.name not in {line["name"] for line in found}:
            size = path.stat().st_size
            state = "done" if size == record["metrics"]["file_bytes"] else "altered"
            line = {"name": path.name, "format": record["metrics"]["format"], "bytes": size, "state": state}
            found.append(line | {"checkpoint": record["inputs"].get("checkpoint", "")})
    return found


def describe_export(path: Path, record: dict[str, Any], problems: Problems, *, verify: bool) -> dict[str, Any]:
    """Describe an exported network.

    Args:
        path: The file.
        record: The result of the ``export`` that wrote it.
        problems: Problems are added to it.
        verify: Compare all of the file with its hash, and not only its size.
    """
    metrics, size = record["metrics"], path.stat().st_size
    if size != metrics["file_bytes"] or (verify and record.get("sha256") != sha256_file(path)):
        problems.add_damage([f"{path}: expected the file as it was exported, found an altered one; export it again"])
    names = ("format", "parameters", "parameters_before", "verified", "max_difference", "dead_units", "compact")
    return {
        **{name: metrics.get(name) for name in names},
        "classes": metrics.get("classes", []),
        "file_bytes": size,
        "inputs": record["inputs"],
        "versions": record.get("versions", {}),
    }


def _records(run: RunPaths) -> Iterator[dict[str, Any]]:
    for path in sorted((run.root / "results").glob("export*.json"), reverse=True):
        yield read_result(path)


def _is_of(record: dict[str, Any], path: Path) -> bool:
    """Whether a result is that of the export of a file of this name."""
    metrics = record.get("metrics", {})
    named = Path(str(record.get("outputs", {}).get("model", ""))).name == path.name
    return record.get("stage") == "export" and named and {"format", "file_bytes"} <= metrics.keys()
