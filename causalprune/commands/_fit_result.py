"""What ``fit-gamma`` says of a fit: its evidence, in a file of the fit's own and in a picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalprune.analysis.plots.figures import require_matplotlib
from causalprune.base.json_files import decode_json, encode_json
from causalprune.base.paths import RunPaths, fit_result_path
from causalprune.commands._output import StageResult, publish, read_result, require_replaceable
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.trajectory import RecordingReader


@dataclass(frozen=True, kw_only=True)
class FitGammaResult(StageResult):
    """Result of fit-gamma.

    Attributes:
        name: Name of the fit in the store.
        recording: Name of the recording.
        evidence: α, alpha_max, objective, duality gap, R², nonzeros and the rest, as JSON.
        layers: The same for each layer of a fit with ``scope="layer"``.
        curvature: Curvature and step size of each group, or why there are none, see
            :func:`causalprune.analysis.group_curvature.group_curvature`; None of a fit to single parameters.
        part_seconds: Where the exact solver's time went: ``read``, ``decode`` and ``product`` summed over threads, and
            ``subproblem``; not in the store, where equal fits are equal bytes.
    """

    name: str
    recording: str
    evidence: dict[str, Any]
    layers: dict[str, Any]
    curvature: dict[str, Any] | None
    part_seconds: dict[str, float]


class FitReport:
    """Where a fit's result goes, and its picture if one is wanted.

    Args:
        config: The fit.
        reader: Its recording.

    Raises:
        UsageError: A picture, and no matplotlib.
        MismatchError: Another file lies where the result goes, and no leave to overwrite it.
    """

    def __init__(self, config: FitGammaConfig, reader: RecordingReader) -> None:
        run = RunPaths(config.run)
        self._config, self._reader = config, reader
        self._store = config.store or run.store
        self._path: Path = fit_result_path(run, config.store, "fit-gamma", config.name, reader.name)
        require_replaceable(self._path, "fit-gamma", overwrite=config.overwrite)
        if config.plot is not None:
            require_matplotlib()

    def result(
        self,
        inputs: dict[str, str],
        attributes: dict[str, Any],
        started: float,
        *,
        already_done: bool = False,
        seconds: dict[str, float] | None = None,
    ) -> FitGammaResult:
        """The result of a fit with these attributes."""
        outputs: dict[str, Any] = {"store": self._store, "result": self._path}
        if self._config.plot is not None:
            outputs["plot"] = self._config.plot
        return FitGammaResult(
            stage="fit-gamma",
            inputs=inputs,
            outputs={role: str(path) for role, path in outputs.items()},
            already_done=already_done,
            seconds=time.monotonic() - started,
            name=self._config.name,
            recording=self._reader.name,
            evidence=attributes["evidence"],
            layers=attributes["layers"],
            curvature=attributes.get("curvature"),
            part_seconds=seconds or {},
        )

    def publish(self, result: FitGammaResult) -> None:
        """Write the result, unless the same fit's is there from the time when it was made, then draw."""
        if not result.already_done or _content(read_result(self._path)) != _content(_as_read(result)):
            publish(self._path, result, overwrite=self._config.overwrite)
        self._draw(result)

    def _draw(self, result: FitGammaResult) -> None:
        if self._config.plot is not None:
            from causalprune.analysis.plots.recording import plot_path

            plot_path(result.evidence, self._config.plot)


def _as_read(result: FitGammaResult) -> Any:
    return decode_json(encode_json(result.to_json()), "result")


def _content(result: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What of a result file the fit in the store decides: all but times and places."""
    return result.get("inputs"), {n: v for n, v in result.get("metrics", {}).items() if n != "part_seconds"}
