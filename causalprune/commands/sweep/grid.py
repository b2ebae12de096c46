"""The grid of a sweep: its points in the order of the table, each with the cell that it is measured in."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalprune.base.errors import CorruptError, MismatchError, UsageError
from causalprune.base.json_files import is_sealed, read_json, seal, write_json
from causalprune.commands.sweep.steps import Recorded, Step, last_step
from causalprune.config.sweep import SweepConfig

FORMAT = "causalprune-sweep"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Point:
    """One row of the table.

    Attributes:
        settings: ``sparsity``, ``criterion``, ``seed`` and the value on every other axis.
        last: The cell's last step. Points whose settings make no difference (the α of a fit to ``magnitude``) have
            equal ones, and are measured once.
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
        return " ".join(f"{name}={value}" for name, value in self.settings.items())


@dataclass(frozen=True)
class Grid:
    """All points of a sweep, axis by axis: the further axes vary slowest, then seeds, criteria, sparsities.

    Attributes:
        config: The options that decide the results.
        points: At least one.
    """

    config: dict[str, Any]
    points: tuple[Point, ...]

    @classmethod
    def of(cls, config: SweepConfig) -> Grid:
        """Make every cell's configuration, so that what can't be used is said before the first cell is begun.

        Raises:
            UsageError: An option that doesn't exist, or a value that can't be used.
            DataError: A recording that should be there is not.
            MismatchError: It can't serve a criterion.
        """
        return cls(json.loads(json.dumps(config.identity_fields())), tuple(_points(config)))

    def to_json(self) -> dict[str, Any]:
        """What :meth:`claim` writes."""
        cells = [{"cell": p.cell, "settings": p.settings} for p in self.points]
        return seal({"format": FORMAT, "format_version": FORMAT_VERSION, "config": self.config, "cells": cells})

    def claim(self, path: Path) -> None:
        """Write the grid, unless one is there that has a cell which this one lacks.

        Raises:
            MismatchError: It has; nothing was changed.
            CorruptError: What is there is no grid.
        """
        if path.exists():
            earlier = read_grid(path)
            mine = {point.cell for point in self.points}
            lost = [entry for entry in earlier["cells"] if entry["cell"] not in mine]
            if lost:
                changed = [k for k in self.config if earlier["config"].get(k) != self.config[k]]
                values = [f"{k} {_short(earlier['config'].get(k))} → {_short(self.config[k])}" for k in changed[:3]]
                raise MismatchError(
                    f"{path}",
                    expected=f"a sweep with all of its {len(earlier['cells'])} cells, and perhaps more",
                    found=f"one without {len(lost)} of them" + (f" ({', '.join(values)})" if values else ""),
                    remedy="undo the change (lists may only grow), or choose another --run",
                )
            if earlier == json.loads(json.dumps(self.to_json())):
                return
        write_json(path, self.to_json())


def read_grid(path: Path) -> dict[str, Any]:
    """Read what :meth:`Grid.claim` wrote: ``config``, and ``cells``, each with ``cell`` and ``settings``.

    Raises:
        DataError: Nothing there.
        CorruptError: Something else.
        MismatchError: A newer format.
    """
    value = read_json(path, remedy="run `causalprune sweep` first, or name another --run")
    try:
        if value["format"] != FORMAT or type(value["format_version"]) is not int:
            raise ValueError
        if value["format_version"] > FORMAT_VERSION:
            raise MismatchError(
                f"{path}",
                expected=f"format version {FORMAT_VERSION} or older",
                found=f"version {value['format_version']}",
                remedy="install a newer causalprune",
            )
        for entry in value["cells"]:
            name = entry["cell"]
            if not isinstance(name, str) or len(name) != 16 or not set(name) <= set("0123456789abcdef"):
                raise ValueError
            if not isinstance(entry["settings"], dict):
                raise ValueError
        if not isinstance(value["config"], dict) or not is_sealed(value):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(
            f"{path}",
            expected="the grid of a sweep as it was written",
            found="another",
            remedy="restore it, or sweep elsewhere",
        ) from error
    return dict(value)


def _points(config: SweepConfig) -> Iterator[Point]:
    axes = config.axes()
    recorded = None if config.recorded is None else Recorded.read(config.recorded)
    further = [axis.key for axis in axes[:-3]]
    for chosen in itertools.product(*(zip(axis.values, axis.settings, strict=True) for axis in axes)):
        values = {axis.key: value for axis, (value, _) in zip(axes, chosen, strict=True)}
        settings = {name: values[name] for name in ("sparsity", "criterion", "seed", *further)}
        try:
            yield Point(settings, last_step(config.cell(setting for _, setting in chosen), recorded))
        except UsageError as error:
            if not further:
                raise
            where = " ".join(f"{key}={settings[key]}" for key in further)
            raise UsageError(f"{error} (at {where})") from error


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
