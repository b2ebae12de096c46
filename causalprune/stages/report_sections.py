"""The sections of a report: each shows one thing of a block of rows, or nothing where it wasn't measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from causalprune.evaluation import sweep_plots
from causalprune.evaluation.figures import GREY
from causalprune.evaluation.overlap import mean_jaccard
from causalprune.evaluation.page import Cell, Page
from causalprune.evaluation.phase import DEFINITION
from causalprune.evaluation.series import Block, spread
from causalprune.paths import SweepPaths
from causalprune.sweep.table import read_mask

MAX_OVERLAPS = 6
MAX_ITERATED = 6
MAX_DENSITIES = 4


@dataclass
class Section:
    """What a section draws from and to.

    Attributes:
        page: To be continued.
        block: The rows.
        colours: By criterion.
        paths: The sweep's files, for the masks.
        folder: Where pictures go.
        prefix: Begins their names.
        level: Of the headings.
        pictures: Names of those that were drawn.
    """

    page: Page
    block: Block
    colours: Mapping[str, str]
    paths: SweepPaths
    folder: Path
    prefix: str
    level: int
    pictures: list[str] = field(default_factory=list)

    def picture(self, name: str, draw: Callable[[Path], None], text: str) -> tuple[Path, str]:
        """Draw a picture; returns what :meth:`Page.pictures` takes."""
        path = self.folder / f"{self.prefix}{name}.png"
        draw(path)
        self.pictures.append(path.name)
        return path, text

    def pictures_at(
        self, most: int, name: str, draw: Callable[[float, Path], None], text: str
    ) -> list[tuple[Path, str]]:
        """The same picture at several sparsities."""
        return [
            self.picture(f"{name}-{100 * s:g}", partial(draw, s), f"{text} at {100 * s:g} % pruned")
            for s in self.sampled(most)
        ]

    def sampled(self, most: int) -> list[float]:
        """At most so many of the block's sparsities above 0 (if there are any), evenly spaced, the last among them."""
        values = [s for s in self.block.sparsities if s > 0] or self.block.sparsities
        if len(values) <= most:
            return values
        return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def scores(section: Section) -> None:
    """Curves of score and loss, and the table of scores."""
    page, block = section.page, section.block
    name = "Accuracy" if block.metric == "top1" else "R²"
    page.heading(f"{name} against percent pruned", section.level)
    draws = []
    for key, what in (("score", name), ("loss", "Loss")):
        draws.append(
            section.picture(
                key,
                lambda path, key=key: sweep_plots.plot_curves(block, key, section.colours, path),  # type: ignore[misc]
                f"{what} on the test split against percent pruned, a line a criterion",
            )
        )
    page.pictures(draws)
    page.text("Lines are means over the seeds, bands one standard deviation, dots the seeds.", "note")
    rows = []
    for sparsity in block.sparsities:
        values = [series.values("score", sparsity) for series in block.series]
        means = [mean(v) for v in values if v]
        # Where all are equal, as at nothing pruned, none stands out.
        best = max(means) if len(set(means)) > 1 else None
        rows.append([f"{100 * sparsity:g}", *(_score(v, block.metric, best) for v in values)])
    head = ["pruned (%)", *(series.criterion for series in block.series)]
    page.table(head, rows)
    dense = block.dense("dense")
    if dense:
        deviation = f" {_spread(dense, block.metric)}" if len(dense) > 1 else ""
        page.text(
            f"Not pruned: {_number(mean(dense), block.metric)}{deviation}. The highest mean of a line is bold.", "note"
        )


def phase_shift(section: Section) -> None:
    """Where the score falls and how sharply."""
    page, block = section.page, section.block
    page.heading("Phase shift", section.level)
    rows: list[list[str | Cell]] = []
    for series in block.series:
        found = series.phase_shift()
        if isinstance(found, str):
            rows.append([series.criterion, found, "", ""])
            continue
        place = f"{100 * found.low:.3g} to {100 * found.high:.3g}" if found.low and found.high else ""
        width = f"± {found.width_spread:.2f}" if found.width_spread is not None else ""
        rows.append(
            [
                series.criterion,
                Cell(_near_all(found.sparsity), spread=f"({place})" if place else ""),
                Cell(f"{found.width:.2f}", spread=width),
                f"{found.inside}",
            ]
        )
    page.table(["criterion", "half is lost at (% pruned)", "width (decades)", "samples on the slope"], rows)
    page.text(
        DEFINITION
        + " Fitted to each seed's curve; the mean over the seeds is given with one standard deviation (of x₀, shown as "
        "the range of sparsities that it spans). With fewer than two samples on the slope the width only says how far "
        "apart the samples are.",
        "note",
    )


def layers(section: Section) -> None:
    """What is pruned of each layer."""
    page, block = section.page, section.block
    page.heading("Sparsity per layer", section.level)
    page.pictures(
        [
            section.picture(
                f"layers-{_file_name(series.criterion)}",
                lambda path, series=series: sweep_plots.plot_layers(series, path),  # type: ignore[misc]
                f"Percent pruned of every layer at every sparsity by {series.criterion}",
            )
            for series in block.series
        ]
    )
    page.text("Means over the seeds; in parentheses the layer's weights.", "note")


def gamma(section: Section) -> None:
    """The histogram of γ of the first iteration's fits."""
    fits: dict[str, dict[str, Any]] = {}
    for row in section.block.rows:
        for line in row["iterations_log"]:
            if line["iteration"] == 1 and "gamma" in line:
                # Criteria and sparsities share a seed's fit.
                fits.setdefault(repr((row["seed"], line["gamma"])), line)
    if not fits:
        return
    page = section.page
    page.heading("Granger coefficients γ", section.level)
    found = list(fits.values())
    summaries = [line["gamma"] for line in found]
    page.pictures(
        [
            section.picture("gamma", lambda p: sweep_plots.plot_gamma(summaries, p), "Histogram of γ"),
            section.picture(
                "correlation",
                lambda p: sweep_plots.plot_correlation(summaries, p),
                "Histogram of the dual correlations of the coefficients that are zero",
            ),
        ]
    )
    r2 = [line["r2"] for line in found if line["r2"] is not None]
    gaps = [line["relative_gap"] for line in found if line["relative_gap"] is not None]
    page.text(
        f"First iteration, summed over {len(found)} fit{'s' if len(found) > 1 else ''}"
        + (f"; R² in sample {min(r2):.3f} to {max(r2):.3f}" if r2 else "")
        + (f"; relative duality gap at most {max(gaps):.1e}" if gaps else "")
        + ".",
        "note",
    )


def overlap(section: Section) -> None:
    """How alike the kept sets of the criteria are."""
    page, block = section.page, section.block
    if len(block.series) < 2:
        return
    draws = []
    for sparsity in section.sampled(MAX_OVERLAPS):
        seeds = set.intersection(*({row["seed"] for row in s.at(sparsity)} for s in block.series))
        masks = [
            [read_mask(section.paths, row["cell"]) for row in series.at(sparsity) if row["seed"] in seeds]
            for series in block.series
        ]
        whole = [[m for m in of_one if m is not None] for of_one in masks]
        if not seeds or any(len(of_one) < len(seeds) for of_one in whole):
            continue
        names, index = [s.criterion for s in block.series], mean_jaccard(whole)
        draws.append(
            section.picture(
                f"overlap-{100 * sparsity:g}",
                lambda p, n=names, j=index, s=sparsity: sweep_plots.plot_overlap(n, j, s, p),  # type: ignore[misc]
                f"Jaccard index of the weights that each two criteria keep at {100 * sparsity:g} % pruned",
            )
        )
    if not draws:
        return
    page.heading("Overlap of the kept weights", section.level)
    page.pictures(draws, small=True)
    page.text(
        "Jaccard index |A ∩ B| / |A ∪ B| of the sets of kept weights, a mean over the seeds; “by chance” is what two "
        "random sets of that size have.",
        "note",
    )


def iterations(section: Section) -> None:
    """The validation loss over the iterations."""
    block = section.block
    if all(len(row["iterations_log"]) < 2 for row in block.rows):
        return
    section.page.heading("Loss of each iteration", section.level)
    section.page.pictures(
        section.pictures_at(
            MAX_ITERATED,
            "iterations",
            lambda sparsity, path: sweep_plots.plot_iterations(block, sparsity, section.colours, path),
            "Validation loss over the iterations",
        )
    )
    section.page.text(
        "Loss on the validation split, which is part of the training data, not of the test split.", "note"
    )


def flatness(section: Section) -> None:
    """Hessian spectra and noise tolerance, where evaluate measured them."""
    page, block = section.page, section.block
    draws = []
    if any(row.get("hessian") for row in block.rows):
        draws += [
            section.picture(
                f"eigenvalues-{space}",
                lambda p, s=space: sweep_plots.plot_eigenvalues(block, s, section.colours, p),  # type: ignore[misc]
                f"Largest Hessian eigenvalue over {space} parameters against percent pruned",
            )
            for space in ("unpruned", "all")
        ]
        draws += _densities(section)
    if any(row.get("noise") for row in block.rows):
        draws += section.pictures_at(
            MAX_DENSITIES,
            "noise",
            lambda sparsity, path: sweep_plots.plot_noise(block, sparsity, section.colours, path),
            "Relative loss under noise",
        )
    if not draws:
        return
    page.heading("Flatness", section.level)
    page.pictures(draws)
    lines = block.eigenvalue_lines()
    if lines:
        page.table(["largest eigenvalue", "unpruned", "all parameters"], [_eigenvalue_row(line) for line in lines])
    samples = {(r["flatness_samples"], r["flatness_split"]) for r in block.rows if r.get("flatness_samples")}
    where = " and ".join(f"{count:,} samples of the {split} split" for count, split in sorted(samples))
    page.text(
        f"On {where}, in evaluation mode. “Unpruned” parameters are all but the pruned weights. Densities are those of "
        "the unpruned parameters of the first seed; noise is added to the unpruned parameters.",
        "note",
    )


def _densities(section: Section) -> list[tuple[Path, str]]:
    block = section.block
    seed = min(row["seed"] for row in block.rows)
    draws = []
    for sparsity in section.sampled(MAX_DENSITIES):
        spectra: list[tuple[str, str, Mapping[str, Any]]] = []
        for series in block.series:
            for row in series.at(sparsity):
                if row["seed"] != seed or not row.get("hessian"):
                    continue
                dense = row.get("dense_hessian")
                if dense and not spectra and dense["all"]["density"]:
                    spectra.append(("not pruned", GREY, dense["all"]))
                if row["hessian"]["unpruned"]["density"]:
                    spectra.append((series.criterion, section.colours[series.criterion], row["hessian"]["unpruned"]))
        if spectra:
            draws.append(
                section.picture(
                    f"density-{100 * sparsity:g}",
                    lambda p, d=spectra, s=sparsity: sweep_plots.plot_density(  # type: ignore[misc]
                        d, f"Hessian spectrum, {100 * s:g} % pruned", p
                    ),
                    f"Spectral density of the Hessian at {100 * sparsity:g} % pruned",
                )
            )
    return draws


SECTIONS: tuple[Callable[[Section], None], ...] = (scores, phase_shift, layers, gamma, overlap, iterations, flatness)
"""In the order of the page."""


def _score(values: Sequence[float], metric: str, best: float | None) -> str | Cell:
    if not values:
        return "–"
    return Cell(_number(mean(values), metric), spread=_spread(values, metric), best=mean(values) == best)


def _eigenvalue_row(line: Mapping[str, Any]) -> list[str | Cell]:
    name = "not pruned" if line["criterion"] is None else f"{line['criterion']}, {100 * line['sparsity']:g} % pruned"
    cells: list[str | Cell] = [name]
    for space in ("unpruned", "all"):
        mean_, deviation = line[space]["mean"], line[space]["std"]
        cells.append(Cell(f"{mean_:.4g}", spread="" if deviation is None else f"± {deviation:.2g}"))
    return cells


def _spread(values: Sequence[float], metric: str) -> str:
    scale, digits = (100, 2) if metric == "top1" else (1, 3)
    deviation = spread(values)
    return "" if deviation is None else f"± {scale * deviation:.{digits}f}"


def _number(value: float, metric: str) -> str:
    return f"{100 * value:.2f}" if metric == "top1" else f"{value:.3f}"


def _near_all(sparsity: float) -> str:
    """Percent with as many digits as tell it from 100 %."""
    return f"{100 * sparsity:.{1 if sparsity < 0.98 else 2 if sparsity < 0.998 else 3}f}"


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
