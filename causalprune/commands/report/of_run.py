"""Reads a run directory and fills a page with how its network was trained, recorded and pruned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalprune.analysis.plots.histograms import gamma_summary
from causalprune.analysis.report.page import Page
from causalprune.analysis.report.section import Pictures
from causalprune.analysis.report.single import Recorded, Run, Stage, run_findings, show_run
from causalprune.base.errors import DataError
from causalprune.base.json_files import read_json
from causalprune.base.paths import DEFAULT_FIT, RunPaths
from causalprune.commands._output import require_unaltered
from causalprune.commands._said import command_line
from causalprune.commands.names import CONFIGS
from causalprune.commands.provenance.lineage import recorded_hash
from causalprune.commands.report.of_sweep import data_name
from causalprune.commands.report.origin import show_origin
from causalprune.models.checkpoint import CheckpointInfo, read_checkpoint_info
from causalprune.trajectory import Store


@dataclass(frozen=True)
class RunFiles:
    """What a run directory has.

    Attributes:
        run: What a page shows of it.
        headers: The header of each network, with the name of what made it.
    """

    run: Run
    headers: list[tuple[str, CheckpointInfo]]


def read_run(paths: RunPaths) -> RunFiles:
    """Read a run directory.

    Raises:
        DataError: Neither a sweep nor a network.
        CorruptError: A damaged or altered file.
    """
    found = list(_headers(paths))
    if not found:
        raise DataError(
            f"{paths.root}",
            expected="a sweep or a run to report on",
            found="neither",
            remedy="run `causalprune run` or `causalprune sweep` first, or name another --run",
        )
    headers = [(name, info) for name, _, info in found]
    stages = [
        Stage(
            name,
            [{"name": e.name, "total": e.size, "kept": info.kept[e.name]} for e in info.index],
            info.metrics.get("validation"),
            info.metrics.get("history", []),
            info.stage == "apply-mask",
        )
        for name, info in headers
    ]
    last = headers[-1][1]
    criteria = [info.config.get("criterion", "") for _, info in headers if info.stage == "apply-mask"]
    run = Run(
        last.model.name,
        data_name(last.data.name),
        criteria[-1] if criteria else "",
        stages,
        list(_recordings(paths)),
        _evaluation(paths, found[-1][1], last),
    )
    return RunFiles(run, headers)


def show_run_directory(page: Page, paths: RunPaths, folder: Path, read: RunFiles) -> None:
    """Fill a page with what :func:`read_run` returned."""
    for sentence in run_findings(read.run):
        page.text(sentence, "found")
    show_run(page, read.run, Pictures(folder))
    options: dict[str, Any] = {}
    if paths.run_config.exists():
        options = read_json(paths.run_config)
        commands = [("run", command_line("run", options))]
    else:
        known = [(name, info) for name, info in read.headers if info.stage in CONFIGS]
        commands = [(name, command_line(info.stage, info.config)) for name, info in known]
        options = {f"{name}.{option}": value for name, info in known for option, value in info.config.items()}
    data = [paths.result("run"), paths.result("evaluate"), paths.run_config, paths.log]
    data += [path for part in (paths, *paths.iterations()) for path in part.artifacts()]
    show_origin(page, folder, commands, options, read.headers[-1][1].versions, data)


def _parts(paths: RunPaths) -> list[tuple[str, RunPaths]]:
    """The run directory with the networks before its iterations, each iteration, and the run directory again."""
    iterations = paths.iterations()
    return [(f"{number}/{len(iterations)} ", part) for number, part in enumerate(iterations, start=1)]


def _headers(paths: RunPaths) -> Iterator[tuple[str, Path, CheckpointInfo]]:
    """The name of what made each network, its file and its header, the last network last."""
    parts = [("", paths.pretrained), ("", paths.trained)]
    for label, part in _parts(paths):
        parts += [(label, path) for path in (part.trained, part.recorded, part.pruned, part.repaired)]
    parts += [("", path) for path in (paths.recorded, paths.pruned, paths.repaired, paths.final)]
    for label, path in parts:
        if path.exists():
            info = read_checkpoint_info(path)
            stage = "train" if label and info.stage == "posttrain" else info.stage
            yield f"{label}{stage}", path, info


def _recordings(paths: RunPaths) -> Iterator[Recorded]:
    for label, part in (*_parts(paths), ("", paths)):
        if not part.store.is_dir():
            continue
        reader = Store.open(part.store).recording()
        if not reader.num_rows:
            continue
        name = label.strip() or "recording"
        if DEFAULT_FIT not in reader.fits:
            yield Recorded(name, reader.loss_change)
            continue
        fit = reader.read_fit(DEFAULT_FIT)
        gamma, scores = fit.arrays["gamma"].ravel(), fit.arrays["dual_correlation"].ravel()
        yield Recorded(name, reader.loss_change, fit.attributes["evidence"], gamma_summary(gamma, scores))


def _evaluation(paths: RunPaths, network: Path, info: CheckpointInfo) -> dict[str, Any] | None:
    """The evaluation of the last network; None if none was made, or if it is of another network."""
    path = paths.result("evaluate")
    if not path.exists():
        return None
    result = require_unaltered(path)
    evaluation = result.get("metrics", {}).get("evaluation")
    if not isinstance(evaluation, dict) or result.get("inputs", {}).get("checkpoint") != recorded_hash(network, info):
        return None
    return evaluation
