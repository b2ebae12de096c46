"""The grid of a sweep: its points in the order of the table, each with the cell in which it is measured."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.base.json_files import seal, write_json
from causalprune.base.options import setting_texts
from causalprune.base.paths import RunPaths, SweepPaths
from causalprune.commands._plan import PipelinePlan
from causalprune.commands._said import difference
from causalprune.commands.names import in_errors, with_axes
from causalprune.commands.pipeline.beforehand import Beforehand, start_of
from causalprune.commands.provenance.sources import changed_sources
from causalprune.commands.sweep.files import FORMAT, FORMAT_VERSION, read_grid
from causalprune.commands.sweep.steps import Recorded, Sources, Step, last_step
from causalprune.config.sweep import SweepConfig
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.network.pattern import Pattern


@dataclass(frozen=True)
class Point:
    """One row of the table.

    Attributes:
        settings: ``sparsity`` unless γ = 0 decides it, ``criterion``, ``seed`` and the value on each other axis.
        last: The last step of the cell. Points whose settings make no difference (the α of a fit with ``magnitude``)
            have equal ones and are measured once.
    """

    settings: dict[str, Any]
    last: Step

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return self.last.key.removeprefix("evaluate-")

    @property
    def label(self) -> str:
        """The settings in one line."""
        return " ".join(setting_texts(self.settings))


@dataclass(frozen=True)
class Grid:
    """All points of a sweep; the further axes vary slowest, then seeds, criteria, sparsities.

    Attributes:
        config: The options that decide the results.
        points: At least one.
    """

    config: dict[str, Any]
    points: tuple[Point, ...]

    @classmethod
    def of(cls, config: SweepConfig) -> Grid:
        """Configure all cells, so that what can't be used is refused before the first cell is measured.

        Raises:
            UsageError: An option that doesn't exist, or a value that can't be used.
            DataError: A given recording doesn't exist.
            MismatchError: A given recording doesn't meet the needs of a criterion.
            CausalpruneError: What else is known before the first step, see
                :mod:`causalprune.commands.pipeline.beforehand`.
        """
        points = tuple(_points(config))
        sources = {
            what: digest for point in points for s in point.last.ancestry() for what, digest in s.sources.items()
        }
        said = config.identity_fields() | ({"sources": sources} if sources else {})
        return cls(json.loads(json.dumps(said)), points)

    def claim(self, paths: SweepPaths, others: Callable[[], str]) -> None:
        """Write the grid, unless an earlier one has a cell that this one lacks and that is measured.

        Args:
            paths: The files of the sweep.
            others: Says who else works there, and may be about to measure such a cell; nothing if nobody does.

        Raises:
            MismatchError: It lacks others; nothing was changed.
            CorruptError: The file is not a grid.
        """
        path = paths.grid
        cells = [{"cell": point.cell, "settings": point.settings} for point in self.points]
        value = seal({"format": FORMAT, "format_version": FORMAT_VERSION, "config": self.config, "cells": cells})
        if path.exists():
            earlier = read_grid(path)
            lost = {entry["cell"] for entry in earlier["cells"]} - {point.cell for point in self.points}
            # Before it is looked what they have measured.
            other = others() if lost else ""
            measured = lost & paths.measured()
            if measured or other:
                raise self._without(len(measured or lost), "" if measured else other, earlier, path)
            if earlier == json.loads(json.dumps(value)):
                return
        write_json(path, value)

    def _without(self, count: int, other: str, earlier: dict[str, Any], path: Path) -> MismatchError:
        """The error about a grid that lacks cells of an earlier one, because they are measured or another may do so."""
        changed = self._difference(earlier["config"])
        kept = f"that {other} may be measuring" if other else "that is measured"
        return MismatchError(
            f"{path}",
            expected=f"a sweep with every cell {kept}, and perhaps more",
            found=f"one without {count} of them" + (f" ({changed})" if changed else ""),
            remedy=f"undo the change (lists may only grow), choose another --run, or remove {path.parent}",
        )

    def _difference(self, earlier: dict[str, Any]) -> str:
        """In which options, or in which code and data, another grid differs from this one."""
        then, now = ({"sources": {}} | config for config in (earlier, self.config))
        sources = [f"the {what} changed" for what in changed_sources(then.pop("sources"), now.pop("sources"))]
        return ", ".join(sources) or difference(SweepConfig, then, now)


def _points(config: SweepConfig) -> list[Point]:
    axes = config.axes()
    recorded = None if config.recorded is None else Recorded.read(config.recorded)
    listed = [name for name in ("sparsity", "criterion", "seed") if name in {axis.key for axis in axes}]
    further = [axis.key for axis in axes if axis.key not in listed]
    sources: Sources = {}
    varied = [axis.key for axis in config.vary]
    criteria = [load_criterion(name) for name in config.criterion]
    # What some of the criteria have, and others don't, is meant for the former.
    owners = {
        "apply-mask.exponent": {criterion.name for criterion in criteria if criterion.exponent is not None},
        "apply-mask.first_order": {criterion.name for criterion in criteria if criterion.first_order},
    }
    points: list[Point] = []
    plans: list[tuple[PipelinePlan, dict[str, Any]]] = []
    measured = RunPaths(config.run).sweep.measured()
    for chosen in itertools.product(*(zip(axis.values, axis.settings, strict=True) for axis in axes)):
        values = {axis.key: value for axis, (value, _) in zip(axes, chosen, strict=True)}
        settings = {name: values[name] for name in (*listed, *further)}
        where = {key: settings[key] for key in further}
        with _at(where, varied):
            cell = config.cell(setting for _, setting in chosen)
            foreign = {key for key, names in owners.items() if names and values["criterion"] not in names}
            cell = replace(cell, set=tuple(one for one in cell.set if one.key not in foreign))
            if cell.pattern is not None:
                settings["sparsity"] = Pattern.parse(cell.pattern).sparsity
            plan = PipelinePlan(cell)
            points.append(Point(settings, last_step(plan, recorded, sources)))
        if points[-1].cell not in measured:
            plans.append((plan, where))
    beforehand = Beforehand()
    # Those with the same data and network follow each other, so that none is loaded twice.
    starts = list(dict.fromkeys(start_of(plan.pretrain()) for plan, _ in plans))
    plans.sort(key=lambda pair: starts.index(start_of(pair[0].pretrain())))
    for plan, where in plans:
        with _at(where, varied):
            _require(plan, recorded, beforehand)
    return points


@contextmanager
def _at(where: Mapping[str, Any], varied: Collection[str]) -> Iterator[None]:
    """Errors of a cell, with the values that only it has, and options as the sweep varies them."""
    try:
        with in_errors(partial(with_axes, varied=varied)):
            yield
    except (UsageError, MismatchError, DataError) as error:
        if not where:
            raise
        raise type(error)(f"{error} (at {' '.join(setting_texts(where))})") from error


def _require(plan: PipelinePlan, recorded: Recorded | None, beforehand: Beforehand) -> None:
    """Check that no step of a cell will be refused, as far as that is known before the first."""
    beforehand.require_machine(plan)
    if recorded is None:
        beforehand.require(plan, of_sweep=True)
    elif (fit := plan.iterations[0].fit) is not None:
        beforehand.require_fit(plan, fit, recorded.size)
