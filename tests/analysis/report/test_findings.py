"""Sentences on sweeps whose curves are known: logistic falls at places of our choice."""

import math

import pytest

from causalprune.analysis.plots.colors import looks_of
from causalprune.analysis.report.findings import change_text, sweep_findings
from causalprune.analysis.report.page import Page
from causalprune.analysis.report.section import Pictures, Section
from causalprune.analysis.report.sections import phase_shift
from causalprune.analysis.report.series import blocks_of
from causalprune.base.specs import ACCURACY, R2

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998)


def rows(places, *, seeds=3, wobble=0.01, sparsities=SPARSITIES, **settings):
    """Accuracy of 90 % over guessing 10 %, of which half is lost at ``places`` decades."""
    return [
        {
            **settings,
            "criterion": criterion,
            "seed": seed,
            "sparsity": s,
            "metric": "top1",
            "score": 0.1 + 0.8 / (1 + math.exp((-math.log10(1 - s) - place - wobble * seed) / 0.05)),
            "dense": 0.9,
            "guessing": 0.1,
        }
        for criterion, place in places.items()
        for seed in range(seeds)
        for s in sparsities
    ]


def said(found, names=()):
    return sweep_findings(blocks_of(found, names))


def test_the_one_that_falls_last_is_named_with_its_place():
    free, out = said(rows({"magnitude": 1.2, "effect": 2.0, "random": 0.5}))
    # 10^-2.01 of the weights are left at the mean place.
    assert out.startswith("effect holds out longest: half of the accuracy above guessing is lost at 99.02 % pruned")
    assert "magnitude at 93.8" in out
    assert "standard deviation" not in out
    assert free.startswith("effect prunes 98 % of the weights and the accuracy goes from 90.00 % to 89.")


def test_near_falls_are_not_told_apart():
    assert "within one standard deviation" in said(rows({"magnitude": 2.0, "effect": 2.005}))[1]
    assert "nobody knows the spread" in said(rows({"magnitude": 1.9, "effect": 2.0}, seeds=1))[1]


def test_who_doesnt_fall_is_said_first():
    out = said(rows({"random": 0.5, "effect": 9.0}))[1]
    assert out.startswith("Up to 99.8 % pruned, half of the accuracy above guessing is kept by effect; random loses it")


def test_settings_are_named_where_there_are_several():
    found = rows({"effect": 1.5}, **{"record.lr": 0.1}) + rows({"effect": 2.0}, **{"record.lr": 0.2})
    assert said(found, ["record.lr"])[1].startswith("effect with record.lr=0.2 holds out longest")


@pytest.mark.parametrize("sparsities", [SPARSITIES, SPARSITIES[:2]])
def test_a_phase_shift_needs_three_sparsities(sparsities, tmp_path):
    pytest.importorskip("matplotlib")
    (block,) = blocks_of(rows({"magnitude": 1.2, "effect": 2.0}, sparsities=sparsities), ())
    page = Page("title")
    section = Section(page, block, looks_of(["magnitude", "effect"]), lambda _: None, Pictures(tmp_path), 2)
    phase_shift(section)
    enough = len(sparsities) > 2
    assert (list(page.tables), section.missing) == ((["phase-shift.csv"], []) if enough else ([], ["phase-shift"]))
    assert ((tmp_path / "phase-shift.png").exists(), "Phase shift</h2>" in page.html()) == (enough, enough)


def test_where_every_sparsity_hurts_the_least_loss_is_said():
    (free,) = said(rows({"effect": 0.3, "random": 0.2}, sparsities=(0.5, 0.9)))
    assert free.startswith("No setting keeps the accuracy; best: effect at 50 % pruned, 90.00 % → ")
    assert free.endswith(" points).")


@pytest.mark.parametrize(
    ("headline", "text"),
    [(ACCURACY, "from 90.00 % to 88.50 % (−1.50 points)"), (R2, "from 0.9 to 0.885 (−0.015)")],
)
def test_a_change_is_said_in_the_units_of_the_score(headline, text):
    assert change_text(0.9, 0.885, headline) == text
