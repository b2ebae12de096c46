"""The page of one run: what pruning cost, where, and how each stage went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.histograms import gamma_histogram, kkt_histogram, layer_map
from causalprune.analysis.plots.stages import history_chart, loss_change_chart
from causalprune.analysis.report.findings import change_text, difference_text
from causalprune.analysis.report.page import Cell, Page, csv_of
from causalprune.analysis.report.section import Pictures
from causalprune.base.specs import COMPARED, Headline
from causalprune.base.units import format_bytes, percent, scientific

MAX_RECORDINGS = 6


@dataclass(frozen=True)
class Stage:
    """A network of a run, in the order in which they were made.

    Attributes:
        name: What made it, such as ``pretrain`` or ``2/5 record``.
        layers: ``name``, ``total`` and ``kept`` of each prunable tensor.
        validation: Its metrics on the validation split, if they were measured.
        history: The epochs of the training that made it.
        masked: Whether weights were pruned by this stage.
    """

    name: str
    layers: Sequence[Mapping[str, Any]]
    validation: Mapping[str, Any] | None
    history: Sequence[Mapping[str, Any]]
    masked: bool

    @property
    def sparsity(self) -> float:
        """Fraction of prunable weights that are pruned."""
        total, kept = (sum(layer[name] for layer in self.layers) for name in ("total", "kept"))
        return float(1 - kept / total)


@dataclass(frozen=True)
class Recorded:
    """A recording of a run and its fit.

    Attributes:
        name: Which one, such as ``2/5``.
        loss_change: (T,) ΔL.
        evidence: The evidence of its fit; None without one.
        gamma: Histograms of the fit, see :func:`causalprune.analysis.plots.histograms.gamma_summary`; None without one.
    """

    name: str
    loss_change: npt.NDArray[np.floating]
    evidence: Mapping[str, Any] | None = None
    gamma: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Run:
    """What a run directory has.

    Attributes:
        model: Name of the model.
        dataset: Name of the data set.
        criterion: The criterion of the last mask; empty if there is none.
        stages: At least one.
        recordings: In their order.
        evaluation: What ``evaluate`` measured of the last network; None if it wasn't.
    """

    model: str
    dataset: str
    criterion: str
    stages: Sequence[Stage]
    recordings: Sequence[Recorded] = ()
    evaluation: Mapping[str, Any] | None = None


def run_findings(run: Run) -> list[str]:
    """A sentence on what was pruned, and what that did to the score."""
    last = run.stages[-1]
    total = sum(layer["total"] for layer in last.layers)
    by = f" by {run.criterion}" if run.criterion else ""
    if not last.sparsity:
        return [f"Nothing is pruned yet: {run.model} on {run.dataset} has all of its {total:,} prunable weights."]
    said = f"{percent(round(last.sparsity, 4))} % of the {total:,} prunable weights of {run.model} are pruned{by}"
    evaluated = run.evaluation
    if evaluated is not None and evaluated.get("reference"):
        headline = Headline.of(evaluated)
        before, after = evaluated["reference"].get(headline.metric), evaluated.get(headline.metric)
        if before is not None and after is not None:
            change = change_text(before, after, headline)
            return [f"{said}, and the {headline.label} on the test split went {change}."]
    first = run.stages[0].validation
    if first and last.validation:
        headline = Headline.of(last.validation)
        before, after = first.get(headline.metric), last.validation.get(headline.metric)
        if before is not None and after is not None:
            change = change_text(before, after, headline)
            return [f"{said}, and the {headline.label} on the validation split went {change}."]
    return [f"{said}; what that costs wasn't measured, which `causalprune evaluate` does."]


def show_run(page: Page, run: Run, pictures: Pictures) -> None:
    """Fill a page; what the run lacks is left out."""
    if run.evaluation is not None:
        _comparison(page, run.evaluation)
    _layers(page, run, pictures)
    _training(page, run, pictures)
    _iterations(page, run)
    _recordings(page, run, pictures)


def _comparison(page: Page, evaluation: Mapping[str, Any]) -> None:
    """A table of the dense and of the pruned network."""
    dense, headline = evaluation.get("reference") or {}, Headline.of(evaluation)
    total, kept = (sum(layer[name] for layer in evaluation["layers"]) for name in ("total", "kept"))
    rows: list[list[str | Cell]] = []

    def line(name: str, before: float | None, after: float | None, form: str, change: str) -> None:
        cells = [Cell("–" if v is None else format(v, form), value=v) for v in (before, after)]
        rows.append([name, *cells, change])

    before, after = dense.get(headline.metric), evaluation.get(headline.metric)
    scale, form = (100, ".2f") if headline.percent else (1, ".4g")
    change = "" if before is None or after is None else difference_text(before, after, headline)
    line(
        headline.label + (" (%)" if headline.percent else ""),
        None if before is None else scale * before,
        None if after is None else scale * after,
        form,
        change,
    )
    before, after = dense.get("loss"), evaluation["loss"]
    line("loss", before, after, ".4f", "" if before is None else f"{after - before:+.4f}".replace("-", "−"))
    line("nonzero prunable weights", total, kept, ",", _share(kept, total))
    flops = (evaluation["flops_dense"], evaluation["flops_theoretical"])
    line(COMPARED["flops"], *flops, ",", _share(flops[1], flops[0]))
    stored = (evaluation["bytes_dense"], evaluation["bytes_csr"])
    rows.append(
        [
            COMPARED["csr"],
            *(Cell(format_bytes(size), value=size) for size in stored),
            _share(stored[1], stored[0]),
        ]
    )
    page.heading("Before and after")
    page.table(["on the test split", "dense", "pruned", "change"], rows, "comparison.csv")
    page.text("Zeros make a network smaller, not faster: dense kernels compute with them all the same.", "note")


def _share(after: float, before: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %".replace("-", "−") if before else ""


def _layers(page: Page, run: Run, pictures: Pictures) -> None:
    """The sparsity of each layer after each mask."""
    masked = [stage for stage in run.stages if stage.masked] or [run.stages[-1]]
    if not masked[-1].sparsity:
        return
    layers = masked[-1].layers
    values = [[1 - stage.layers[at]["kept"] / layer["total"] for stage in masked] for at, layer in enumerate(layers)]
    numbers = [
        name.partition("/")[0] if "/" in name else f"{number}"
        for number, name in enumerate((stage.name for stage in masked), start=1)
    ]
    names = [f"{number} ({percent(stage.sparsity, 1)} %)" for number, stage in zip(numbers, masked, strict=True)]
    page.heading("Sparsity per layer")
    chart = layer_map("pruned per layer (%)", "after the mask of iteration", names, layers, values, numbers)
    page.pictures([pictures.of("layers", chart, "Percent pruned of every layer after each mask")])
    rows: list[list[str | Cell]] = []
    for at, layer in enumerate(layers):
        left = masked[-1].layers[at]["kept"]
        sparsity = 1 - left / layer["total"]
        counts = [Cell(f"{number:,}", value=number) for number in (layer["total"], left)]
        rows.append([str(layer["name"]), *counts, Cell(percent(sparsity, 2), value=100 * sparsity)])
    page.table(["layer", "weights", "kept", "pruned (%)"], rows, "layers.csv")


def _training(page: Page, run: Run, pictures: Pictures) -> None:
    """Training loss and validation over the epochs of all stages."""
    trained = [(stage.name, stage.history) for stage in run.stages if stage.history]
    if not trained:
        return
    measured = next(stage.validation for stage in reversed(run.stages) if stage.history)
    label = Headline.of(measured).label if measured else "validation"
    page.heading("Training")
    page.pictures(
        [
            pictures.of("training-loss", history_chart(trained, "train_loss", "training loss"), "Training loss"),
            pictures.of(
                "validation",
                history_chart(trained, "validation", f"{label} on the validation split"),
                f"{label} on the validation split of each epoch",
            ),
        ]
    )
    page.text("Each stage keeps the weights of its best epoch on the validation split.", "note")
    rows = [
        [Cell(name), *(Cell(f"{line[key]}", value=line[key]) for key in ("epoch", "train_loss", "validation"))]
        for name, history in trained
        for line in history
    ]
    page.tables["history.csv"] = csv_of(["stage", "epoch", "training loss", label], rows)


def _iterations(page: Page, run: Run) -> None:
    """A line for each network."""
    rows: list[list[str | Cell]] = []
    for stage in run.stages:
        headline = Headline.of(stage.validation) if stage.validation else None
        value = stage.validation.get(headline.metric) if headline and stage.validation else None
        shown = "–" if headline is None or value is None else headline.shown(value)
        sparsity = Cell(percent(stage.sparsity, 2), value=100 * stage.sparsity)
        rows.append([stage.name, sparsity, Cell(shown, value=value), f"{len(stage.history) or ''}"])
    page.heading("Stages")
    page.table(["stage", "pruned (%)", "validation", "epochs"], rows, "stages.csv")


def _recordings(page: Page, run: Run, pictures: Pictures) -> None:
    """ΔL of each recording, γ and its evidence."""
    if not run.recordings:
        return
    page.heading("Recordings and γ")
    last = run.recordings[-MAX_RECORDINGS:]
    drawn = [
        pictures.of(
            f"loss-change-{recorded.name.partition('/')[0]}",
            loss_change_chart(recorded.loss_change, f"{recorded.name}: " if len(last) > 1 else ""),
            f"Loss change of each step of recording {recorded.name}",
        )
        for recorded in last
    ]
    summaries = [recorded.gamma for recorded in run.recordings if recorded.gamma]
    if summaries:
        drawn.append(pictures.of("gamma", gamma_histogram(summaries), "Histogram of γ"))
        drawn.append(pictures.of("correlation", kkt_histogram(summaries), "Histogram of the KKT scores of zero γ"))
    page.pictures(drawn)
    if len(last) < len(run.recordings):
        page.text(f"ΔL of the last {len(last)} of {len(run.recordings)} recordings.", "note")
    rows: list[list[str | Cell]] = []
    for recorded in run.recordings:
        steps, change = len(recorded.loss_change), float(recorded.loss_change.mean())
        cells = [Cell(f"{steps:,}", value=steps), Cell(scientific(change), value=change)]
        for key, form in (("r2", ".3f"), ("num_nonzero", ",.0f"), ("relative_gap", "")):
            value = (recorded.evidence or {}).get(key)
            text = "–" if value is None else format(value, form) if form else scientific(value, 2)
            cells.append(Cell(text, value=value))
        rows.append([recorded.name, *cells])
    head = ["recording", "steps", "mean ΔL", "R² in sample", "nonzero γ", "relative duality gap"]
    page.table(head, rows, "recordings.csv")
