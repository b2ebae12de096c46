"""Distributions of a sweep: of γ, of the KKT scores, and of the Hessian's eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.figures import CYCLE, label, panel, patch


def plot_gamma(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the histogram of log₁₀|γ| over the nonzero coefficients, by sign, summed over fits."""
    with panel(path) as axes:
        total = sum(s["total"] for s in summaries)
        nonzero = sum(s["nonzero"] for s in summaries)
        bins: dict[float, npt.NDArray[np.int64]] = {}
        for summary in summaries:
            edges = summary.get("log10_edges", [])
            for edge, negative, positive in zip(
                edges, summary.get("negative", []), summary.get("positive", []), strict=False
            ):
                bins.setdefault(round(edge, 3), np.zeros(2, dtype=np.int64))[:] += (negative, positive)
        if bins:
            left = np.array(sorted(bins))
            negative, positive = np.array([bins[e] for e in sorted(bins)]).T
            width = 0.125
            axes.bar(left, negative, width, align="edge", color=CYCLE[0])
            axes.bar(left, positive, width, bottom=negative, align="edge", color=CYCLE[4])
            handles = [patch(CYCLE[0], "γ < 0: the loss falls"), patch(CYCLE[4], "γ > 0: the loss rises")]
            axes.legend(handles=handles, frameon=False, fontsize=9)
            axes.set_ylim(0, 1.25 * float((negative + positive).max()))
        axes.set(xlabel="log₁₀ |γ|", ylabel="coefficients")
        axes.set_title(f"γ: {nonzero:,} of {total:,} coefficients aren't zero")


def plot_correlation(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the KKT scores of the coefficients that are zero: how near each is to entering the fit."""
    with panel(path) as axes:
        edges = np.array(summaries[0]["correlation_edges"])
        counts = np.sum([s["correlation"] for s in summaries], axis=0)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=CYCLE[0])
        if counts.any():
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.7)
        axes.set_xlim(0, 1)
        axes.set(xlabel="|xₖᵀr| / (Tα), 1 where a coefficient enters", ylabel="coefficients with γ = 0")
        axes.set_title("What orders the zeros of γ")


def plot_density(spectra: Sequence[tuple[str, str, Mapping[str, Any]]], title: str, path: Path) -> None:
    """Draw spectral densities on a logarithmic axis, because all but a few eigenvalues are near 0.

    Args:
        spectra: Name, color and spectrum of each network; at least one has a density, and the legend names the others.
        title: Title of the picture.
        path: PNG file to write.
    """
    with panel(path) as axes:
        top = 0.0
        for name, color, spectrum in spectra:
            at, density = np.array(spectrum["density_at"]), np.array(spectrum["density"])
            said = "" if density.size else f": none of {spectrum['dimension']:,} parameters"
            axes.plot(at, density, color=color, linewidth=1.4, label=label(name, 24) + said)
            top = max(top, float(density.max(initial=0)))
        axes.set_yscale("log")
        axes.set_ylim(1e-6 * top, 3 * top)
        # Linear near 0, where most eigenvalues lie, so that one sharp network doesn't flatten the others.
        axes.set_xscale("symlog", linthresh=1)
        axes.set(xlabel="eigenvalue of the Hessian", ylabel="density")
        axes.set_title(title, fontsize=10.5)
        axes.legend(loc="upper right", fontsize=9, frameon=False)
