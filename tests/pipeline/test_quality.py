"""A gate: the default criterion is not worse than magnitude, so that no change makes networks worse unnoticed."""

import json
from collections import defaultdict
from statistics import mean

from causalprune_cli.main import main

TOLERANCE = 1.5
"""Points of accuracy. Of 360 test images one is 0.3 points; seeds differ by about 1 point at these sparsities."""


def test_the_default_criterion_is_level_with_magnitude(tmp_path):
    run = ["--run", str(tmp_path / "run"), "--sparsity", "0.8,0.9,0.95", "--seeds", "2", "--quiet"]
    assert main(["sweep", "--criterion", "effect,magnitude", *run]) == 0
    table = (tmp_path / "run" / "sweep" / "results.jsonl").read_text().splitlines()
    found = defaultdict(list)
    for row in map(json.loads, table):
        if row["sparsity"]:
            found[row["criterion"], row["sparsity"]].append(100 * row["score"])
    assert {len(values) for values in found.values()} == {2}
    for sparsity in (0.8, 0.9, 0.95):
        ours, theirs = mean(found["effect", sparsity]), mean(found["magnitude", sparsity])
        assert ours >= theirs - TOLERANCE, f"{sparsity:.0%} pruned: effect {ours:.1f} %, magnitude {theirs:.1f} %"
        # Level with it because both are broken doesn't count.
        assert ours > 85
