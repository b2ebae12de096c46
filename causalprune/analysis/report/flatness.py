"""The part of a report about curvature: Hessian spectra and noise tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from causalprune.analysis.plots.colors import GRAY
from causalprune.analysis.plots.curves import eigenvalue_curves, noise_curves
from causalprune.analysis.plots.histograms import density_chart
from causalprune.analysis.report.page import Cell, Picture
from causalprune.analysis.report.section import Section
from causalprune.base.units import mean_and_spread, percent

MAX_DENSITIES = 4


def flatness(section: Section) -> None:
    """Show Hessian spectra and noise tolerance, if they were measured."""
    page, block = section.page, section.block
    draws: list[Picture] = []
    missing = [name for name in ("hessian", "noise") if not any(row.get(name) for row in block.rows)]
    section.missing += missing
    if "hessian" not in missing:
        draws += [
            section.pictures.of(
                f"eigenvalues-{space}",
                eigenvalue_curves(block, space, section.looks),
                f"Largest Hessian eigenvalue over {space} parameters against percent pruned",
            )
            for space in ("unpruned", "all")
        ]
        draws += _densities(section)
    if "noise" not in missing:
        chart = partial(noise_curves, block, section.looks)
        draws += section.pictures_at(MAX_DENSITIES, "noise", chart, "Relative loss under noise")
    if not draws:
        return
    section.show("Flatness", draws)
    lines = block.eigenvalue_lines()
    if lines:
        head = ["largest eigenvalue", "unpruned", "all parameters"]
        section.table(head, [_eigenvalue_row(line) for line in lines], "eigenvalues")
    samples = {(r["flatness_samples"], r["flatness_split"]) for r in block.rows if r.get("flatness_samples")}
    where = " and ".join(f"{count:,} samples of the {split} split" for count, split in sorted(samples))
    page.text(
        f"On {where}, in evaluation mode. “Unpruned” parameters are all but the pruned weights. Densities are those of "
        "the unpruned parameters of the first seed; there is none of a few, whose matrix is formed as a whole. Noise "
        "is added to the unpruned parameters.",
        "note",
    )


def _densities(section: Section) -> list[Picture]:
    block = section.block
    seed = min(row["seed"] for row in block.rows)
    draws = []
    for sparsity in section.sampled(MAX_DENSITIES):
        rows = [r for s in block.series for r in s.at(sparsity) if r["seed"] == seed and r.get("hessian")]
        spectra = [(r["criterion"], section.looks[r["criterion"]].color, r["hessian"]["unpruned"]) for r in rows]
        dense = rows[0].get("dense_hessian") if rows else None
        if dense and dense["all"]["density"]:
            spectra.insert(0, ("not pruned", GRAY, dense["all"]))
        if any(spectrum["density"] for _, _, spectrum in spectra):
            draws.append(
                section.pictures.of(
                    f"density-{percent(sparsity)}",
                    density_chart(spectra, f"Hessian spectrum, {percent(sparsity)} % pruned"),
                    f"Spectral density of the Hessian at {percent(sparsity)} % pruned",
                )
            )
    return draws


def _eigenvalue_row(line: Mapping[str, Any]) -> list[str | Cell]:
    name = "not pruned" if line["criterion"] is None else f"{line['criterion']}, {percent(line['sparsity'])} % pruned"
    cells: list[str | Cell] = [name]
    for space in ("unpruned", "all"):
        middle, deviation = mean_and_spread(line[space]["mean"], line[space]["std"], form=".4g")
        cells.append(Cell(middle, deviation, value=line[space]["mean"], deviation=line[space]["std"]))
    return cells
