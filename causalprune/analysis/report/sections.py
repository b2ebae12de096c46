"""The parts of a report: each shows one aspect of a block of rows, or nothing if the sweep lacks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean
from typing import Any

from causalprune.analysis.plots.curves import fall_chart, iteration_curves, score_curves
from causalprune.analysis.plots.histograms import gamma_histogram, kkt_histogram, layer_map, overlap_map
from causalprune.analysis.report.flatness import flatness
from causalprune.analysis.report.page import Cell
from causalprune.analysis.report.phase import DEFINITION, TOO_FEW
from causalprune.analysis.report.section import Section
from causalprune.analysis.report.series import mean_jaccard
from causalprune.base.specs import Headline
from causalprune.base.units import mean_and_spread, moments, percent

MAX_OVERLAPS = 6
MAX_ITERATED = 6


def scores(section: Section) -> None:
    """Show curves of score and loss, and a table of scores."""
    page, block = section.page, section.block
    headline = block.headline
    name = headline.label[0].upper() + headline.label[1:]
    draws = [
        section.pictures.of(
            key,
            score_curves([block], key, section.looks),
            f"{what} on the test split against percent pruned, one line per criterion",
            # For a README, which is read on light and on dark pages.
            dark=key == "score",
        )
        for key, what in (("score", name), ("loss", "Loss"))
    ]
    note = "Lines are means over the seeds, bands one standard deviation, dots the seeds." if section.seeds else ""
    section.show(f"{name} against percent pruned", draws, note)
    rows: list[list[str | Cell]] = []
    for sparsity in block.sparsities:
        values = [series.values("score", sparsity) for series in block.series]
        means = [mean(v) for v in values if v]
        # If all are equal, as with nothing pruned, none is bold.
        best = max(means, key=headline.height) if len(set(means)) > 1 else None
        rows.append([Cell(percent(sparsity), value=100 * sparsity), *(_cell(v, headline, best) for v in values)])
    head = ["pruned (%)", *(series.criterion for series in block.series)]
    section.table(head, rows, "scores")
    dense = block.dense("dense")
    if dense:
        unpruned = " ".join(filter(None, _score(dense, headline)))
        bold = "lowest" if headline.falling else "highest"
        # Nothing is bold in a column alone.
        which = f" The {bold} {'mean ' if section.seeds else ''}of a line is bold." if len(block.series) > 1 else ""
        page.text(f"Not pruned: {unpruned}.{which}", "note")
    if not section.seeds:
        section.missing.append("seeds")


def coefficients(section: Section) -> None:
    """Show what each L1 coefficient prunes, where every γ = 0 is pruned."""
    page, block = section.page, section.block
    lines = block.coefficient_lines()
    if not lines:
        return
    page.heading("What each L1 coefficient prunes", section.level)
    names = list(lines[0]["coefficient"])
    rows: list[list[str | Cell]] = []
    for line in lines:
        pruned, spread = mean_and_spread(**_named(line["pruned"]), form=".2f", spread_form=".2f", scale=100)
        score, of_score = mean_and_spread(**_named(line["score"]), **score_form(block.headline))
        nonzero, of_nonzero = mean_and_spread(**_named(line["nonzero"]), form=",.0f", spread_form=",.0f")
        cells = [
            Cell(pruned, spread, **_exact(line["pruned"], 100)),
            Cell(nonzero, of_nonzero, **_exact(line["nonzero"])),
            Cell(score, of_score, **_exact(line["score"], 100 if block.headline.percent else 1)),
        ]
        rows.append([*(f"{line['coefficient'][name]:g}" for name in names), *cells])
    head = [
        *(name.replace("_", "-") for name in names),
        "pruned (%)",
        "nonzero γ of the first fit",
        block.headline.label,
    ]
    section.table(head, rows, "coefficients")
    page.text(
        "Every weight with γ = 0 is pruned, so the coefficient sets how much."
        + (" The curves above have the mean over the seeds." if section.seeds else ""),
        "note",
    )


def phase_shift(section: Section) -> None:
    """Show at which sparsity the score falls, and how sharply."""
    page, block = section.page, section.block
    if all(series.phase_shift() == TOO_FEW for series in block.series):
        section.missing.append("phase-shift")
        return
    page.heading("Phase shift", section.level)
    chart = fall_chart([block], section.looks)
    if chart is not None:
        page.pictures([section.pictures.of("phase-shift", chart, "Where the score of each criterion falls")])
    rows: list[list[str | Cell]] = []
    others: list[str] = []
    for series in block.series:
        found = series.phase_shift()
        if isinstance(found, str):
            rows.append([series.criterion, found, "", ""])
            continue
        beside = []
        if found.low is not None and found.high is not None:
            beside.append(f"{percent(found.low, 2)} to {percent(found.high, 2)}")
        if found.undetermined:
            beside.append(f"{found.seeds} of {found.curves} seeds")
            others.append(f"{series.criterion}: {found.undetermined}")
        width, deviation = mean_and_spread(found.width, found.width_spread, form=".2f", spread_form=".2f")
        rows.append(
            [
                series.criterion,
                Cell(
                    percent(found.sparsity, 2),
                    spread=f"({'; '.join(beside)})" if beside else "",
                    value=100 * found.sparsity,
                ),
                Cell(width, deviation, value=found.width, deviation=found.width_spread),
                Cell(f"{found.inside}", value=found.inside),
            ]
        )
    head = ["criterion", "half is lost at (% pruned)", "width (decades)", "samples on the slope"]
    section.table(head, rows, "phase-shift")
    page.text(
        DEFINITION
        + (
            f" The score here is −log {block.headline.label}, and f that of {block.headline.baseline}."
            if block.headline.falling
            else ""
        )
        + (
            " Fitted to each seed's curve; the mean over the seeds is given with one standard deviation (of x₀, shown "
            "as the range of sparsities that it spans, and in the picture as the thin line; the broad bar is the "
            "width)."
            if section.seeds
            else " The broad bar in the picture is the width."
        )
        + " With fewer than two samples on the slope the width only says how far apart the samples are."
        + "".join(f" Not in the mean of {line}." for line in others),
        "note",
    )


def layers(section: Section) -> None:
    """Show how much of each layer is pruned."""
    draws = []
    for series in section.block.series:
        layers = series.rows[0]["layers"]
        values = [
            [mean(row["layers"][at]["sparsity"] for row in series.at(s)) for s in series.sparsities]
            for at in range(len(layers))
        ]
        chart = layer_map(
            f"{series.criterion}: pruned per layer (%)",
            "pruned in all (%)",
            [percent(s) for s in series.sparsities],
            layers,
            values,
        )
        text = f"Percent pruned of every layer at every sparsity by {series.criterion}"
        draws.append(section.pictures.of(f"layers-{_file_name(series.criterion)}", chart, text))
    section.show(
        "Sparsity per layer",
        draws,
        ("Means over the seeds; in" if section.seeds else "In") + " parentheses the layer's weights.",
    )


def gamma(section: Section) -> None:
    """Show the histogram of γ in the fits of the first iteration."""
    fits: dict[str, dict[str, Any]] = {}
    for row in section.block.rows:
        for line in row["iterations_log"]:
            if line["iteration"] == 1 and "gamma" in line:
                # Criteria and sparsities share the fit of a seed.
                fits.setdefault(repr((row["seed"], line["gamma"])), line)
    if not fits:
        section.missing.append("fit")
        return
    found = list(fits.values())
    summaries = [line["gamma"] for line in found]
    zeros = "Histogram of the KKT scores of the coefficients that are zero"
    draws = [
        section.pictures.of("gamma", gamma_histogram(summaries), "Histogram of γ"),
        section.pictures.of("correlation", kkt_histogram(summaries), zeros),
    ]
    r2 = [line["r2"] for line in found if line["r2"] is not None]
    gaps = [line["relative_gap"] for line in found if line["relative_gap"] is not None]
    note = "First iteration" + (f", summed over {len(found)} fits" if len(found) > 1 else "")
    note += f"; R² in sample {' to '.join(dict.fromkeys(f'{r:.3f}' for r in (min(r2), max(r2))))}" if r2 else ""
    note += f"; relative duality gap at most {max(gaps):.1e}" if gaps else ""
    section.show("Granger coefficients γ", draws, f"{note}.")


def overlap(section: Section) -> None:
    """Show how much the kept weights of the criteria overlap."""
    block = section.block
    if len(block.series) < 2:
        section.missing.append("criteria")
        return
    draws = []
    for sparsity in section.sampled(MAX_OVERLAPS):
        seeds = set.intersection(*({row["seed"] for row in s.at(sparsity)} for s in block.series))
        masks = [
            [section.read_mask(row) for row in series.at(sparsity) if row["seed"] in seeds] for series in block.series
        ]
        whole = [[m for m in of_one if m is not None] for of_one in masks]
        if not seeds or any(len(of_one) < len(seeds) for of_one in whole):
            continue
        names = [s.criterion for s in block.series]
        draws.append(
            section.pictures.of(
                f"overlap-{percent(sparsity)}",
                overlap_map(names, mean_jaccard(whole), sparsity),
                f"Jaccard index of the weights that each two criteria keep at {percent(sparsity)} % pruned",
            )
        )
    if not draws:
        section.missing.append("masks")
        return
    note = (
        f"Jaccard index |A ∩ B| / |A ∪ B| of the sets of kept weights{', a mean over the seeds' * section.seeds}; "
        "“by chance” is what two random sets of that size have."
    )
    section.show("Overlap of the kept weights", draws, note, small=True)


def iterations(section: Section) -> None:
    """Show the validation loss over the iterations."""
    block = section.block
    if all(len(row["iterations_log"]) < 2 for row in block.rows):
        section.missing.append("iterations")
        return
    chart = partial(iteration_curves, block, section.looks)
    draws = section.pictures_at(MAX_ITERATED, "iterations", chart, "Validation loss over the iterations")
    note = "Loss on the validation split, which is part of the training data, not of the test split."
    section.show("Loss of each iteration", draws, note)


SECTIONS: tuple[Callable[[Section], None], ...] = (
    scores,
    coefficients,
    phase_shift,
    layers,
    gamma,
    overlap,
    iterations,
    flatness,
)
"""In the order of the page."""


def _cell(values: Sequence[float], headline: Headline, best: float | None) -> Cell:
    middle, deviation = _score(values, headline)
    exact = _exact(moments(values), 100 if headline.percent else 1)
    return Cell(middle, deviation, best=bool(values) and mean(values) == best, **exact)


def _score(values: Sequence[float], headline: Headline) -> tuple[str, str]:
    return mean_and_spread(**_named(moments(values)), **score_form(headline))


def score_form(headline: Headline) -> dict[str, Any]:
    """How a score is written: a share in percent."""
    form, scale = (".2f", 100) if headline.percent else (".3f", 1)
    return {"form": form, "spread_form": form, "scale": scale}


def _exact(found: Mapping[str, float | None], scale: float = 1) -> dict[str, Any]:
    """The numbers behind a cell."""
    value, deviation = found["mean"], found["std"]
    return {
        "value": None if value is None else scale * value,
        "deviation": None if deviation is None else scale * deviation,
    }


def _named(found: Mapping[str, float | None]) -> dict[str, Any]:
    return {"mean": found["mean"], "spread": found["std"]}


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
