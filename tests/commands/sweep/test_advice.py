"""A sweep in which no score falls says which sparsities to add."""

from types import SimpleNamespace

import pytest

from causalprune.commands.sweep.command import _without_a_shift


def rows_of(scores, **settings):
    return [
        {"sparsity": s, "criterion": c, "seed": 0, **settings, "score": score, "dense": 0.9, "guessing": 0.1,
         "metric": "top1"}
        for c, curve in scores.items() for s, score in curve.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"effect": {0.5: 0.9, 0.7: 0.8, 0.8: 0.7}},
         ["no phase shift of effect: beyond 80 %; add sparsities, such as `sparsity` 0.5,0.7,0.8,0.9,0.95,0.975"]),
        ({"effect": {0.4: 0.2, 0.7: 0.1, 0.8: 0.1}},
         ["no phase shift of effect: below 40 %; add sparsities, such as `sparsity` 0.1,0.2,0.3,0.4,0.7,0.8"]),
        ({"effect": {0.5: 0.9, 0.7: 0.5, 0.8: 0.1}}, []),
        ({"effect": {0.5: 0.9}, "random": {0.5: 0.8}},
         ["no phase shift of effect, random: fewer than three sparsities; add sparsities, such as `sparsity` "
          "0.5,0.75,0.875,0.9375"]),
    ],
)  # fmt: skip
def test_what_to_add(scores, expected):
    rows = rows_of(scores)
    settings = {name: rows[0][name] for name in ("sparsity", "criterion", "seed")}
    assert _without_a_shift(SimpleNamespace(points=[SimpleNamespace(settings=settings)]), rows) == expected


def test_further_settings_are_named():
    rows = rows_of({"effect": {0.5: 0.9}}, **{"record.lr": 0.01})
    settings = {name: rows[0][name] for name in ("sparsity", "criterion", "seed", "record.lr")}
    (line,) = _without_a_shift(SimpleNamespace(points=[SimpleNamespace(settings=settings)]), rows)
    assert line.startswith("no phase shift of effect record.lr=0.01: ")
