"""The findings of a diagnosis as sentences, including the tests that have no power to find anything."""

from __future__ import annotations

from typing import Any

from causalprune.trajectory.steps.rounding import vanished_finding

SIGNIFICANT = 0.05
"""Significance level of all tests."""


def findings(diagnosis: dict[str, Any]) -> list[str]:
    """One or two sentences for each part of a diagnosis."""
    said: list[str] = []
    describers = (_rounding, _placebo, _stable, _agreement, _interventions)
    names = ("rounding", "placebo", "stability", "agreement", "interventions")
    for name, describe in zip(names, describers, strict=True):
        part = diagnosis[name]
        said += [f"{name}: not measured, {part['unavailable']}"] if "unavailable" in part else describe(part)
    return said


def _rounding(part: dict[str, Any]) -> list[str]:
    if "vanished" in part:
        usual = f"{part['vanished']:.1%} of the recorded changes vanished"
        return [f"rounding: {vanished_finding(part['vanished']) or usual}"]
    if part["curvature"] is None:
        return [f"rounding: it decides about the curvature along every gradient; losses are in {part['precision']}"]
    median = part["curvature"][len(part["curvature"]) // 2]
    return [f"rounding: decides about the curvature along {part['noisy']:.1%} of the gradients; median {median:.3g}"]


def _placebo(part: dict[str, Any]) -> list[str]:
    real, p, count = part["r2_held_out"], part["p_value"], part["permutations"]
    if 1 / (1 + count) > SIGNIFICANT:
        least = round(1 / SIGNIFICANT) - 1
        first = f"placebo: no power, {count} permutations can't reach p = {SIGNIFICANT}; {least} can"
    elif p > SIGNIFICANT:
        first = f"placebo: fits to permuted losses predict held-out steps as well (p = {p:.3g}): no evidence of a cause"
    elif real <= 0:
        first = f"placebo: better than permuted losses (p = {p:.3g}), yet worse than the mean of the steps before"
    else:
        first = f"placebo: the fit predicts held-out steps (R² {real:.3g}), permuted losses don't (p = {p:.3g})"
    common = part["r2_held_out_common"]
    if common >= real:
        second = f"one γ for all parameters predicts held-out steps no worse (R² {common:.3g}): the fit shows nothing "
        second += "about single ones"
    else:
        second = f"one γ for all parameters reaches R² {common:.3g}: single γ explain the rest"
    return [first, second]


def _stable(part: dict[str, Any]) -> list[str]:
    return [f"stability: {stability_finding(part)}"]


def stability_finding(part: dict[str, Any]) -> str:
    """What :func:`causalprune.analysis.diagnosis.agreement.fit_stability` found, in words."""
    at = dict(zip(part["thresholds"], part["selected"], strict=True))
    total, resamples = part["nonzero"], part["resamples"]
    if resamples < 20:
        return f"no power, {resamples} resamples are too few to tell 0.5 from 0.9"
    return (
        f"of {total:,} selected, {at[0.5]:,} are in at least half of {resamples} resamples of the steps, "
        f"{at[0.9]:,} in 90 %; {part['ever']:,} were selected at least once"
    )


def _agreement(part: dict[str, Any]) -> list[str]:
    said = []
    if part["seeds"][0] == part["seeds"][1] and part["same_start"]:
        said.append("agreement: the two recordings have the same start and seed, so they are no independent evidence")
    for overlap in part["overlaps"]:
        if overlap["name"] == "nonzero γ":
            beyond = "more than" if overlap["p_value"] <= SIGNIFICANT else "no more than"
            said.append(
                f"agreement: {overlap['share']:.1%} of the {overlap['k']:,} largest |γ| are common, {beyond} chance "
                f"({overlap['chance']:.1%}, p = {overlap['p_value']:.3g})"
            )
    return said or ["agreement: no power, one of the fits has no or only nonzero γ"]


def _interventions(part: dict[str, Any]) -> list[str]:
    said = []
    for kind, what in (("single", "single weights"), ("groups", "random groups")):
        measured = part[kind]
        fit, plain = measured["predictors"]["fit"], measured["predictors"]["magnitude"]
        if fit["spearman"] is None:
            said.append(f"{what} at zero: no power, {measured['count']} interventions, or no differences to rank")
            continue
        rho, p = fit["spearman"], fit["p_value"]
        if p > SIGNIFICANT:
            verdict = "doesn't tell which change the loss"
        elif rho < 0:
            verdict = "orders the loss changes the wrong way round"
        else:
            verdict = "orders the loss changes"
        beside = "–" if plain["spearman"] is None else f"{plain['spearman']:.2f}"
        said.append(f"{what} at zero: γθ² {verdict} (Spearman {rho:.2f}, p = {p:.2g}); θ² alone has {beside}")
    return said
