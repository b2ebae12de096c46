"""The default criterion by the rule of docs/study.md, and whether a repair pays.

    python docs/study/choose.py study/choice-mlpnet study/choice-mlpnet-trained …

A folder whose name ends with ``-trained`` trained after its masks, one with ``-trained-repaired`` repaired before that.
Of each network (a data set and a seed) the score of a criterion minus that of ``effect``, as a share of what the dense
network scores above guessing, is averaged over the sparsities; then mean and standard error over the networks. Where
exponents vary, each has a line of its own, which names it where it isn't the criterion's default; so have dead ends
that are pruned first. Folders whose name begins with ``scope-`` or ``lamp-`` have the scope ``lamp``. ``--base``
compares with another line than ``effect``.
"""

import argparse
import json
from collections import defaultdict
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from causalprune.pruning.names import EXPONENTS

INELIGIBLE = ("obs",)
"""What doesn't work with any recording and any rewinding."""

DATA = ("mlpnet", "breast-cancer")

BUDGETS = ("none", "repair", "training")

Network = tuple[str, int]


def shares(runs: list[Path]) -> dict[tuple[str, str], dict[Network, float]]:
    """By budget and criterion, of each network: the mean over sparsities of what is left, in % of dense − guessing."""
    lines = defaultdict(lambda: defaultdict(list))
    for run in runs:
        data = next(name for name in DATA if name in run.name)
        for row in map(json.loads, (run / "sweep/results.jsonl").read_text().splitlines()):
            repaired = row.get("repair", False)
            budget = "repair, training" if "-trained" in run.name else ("repair" if repaired else "none")
            if run.name.endswith("-trained"):
                budget = "training"
            name, default = row["criterion"], EXPONENTS.get(row["criterion"])
            exponent = row.get("apply-mask.exponent", default)
            if exponent != default:
                name = f"p = {exponent:g}" if name == "effect" else f"{name}, p = {exponent:g}"
            name += ", lamp" if run.name.startswith(("scope-", "lamp-")) else ""
            name += ", dead ends first" if row.get("apply-mask.dead_ends") == "first" else ""
            left = (row["score"] - row["guessing"]) / (row["dense"] - row["guessing"])
            lines[budget, name][data, row["seed"]].append(100 * left)
    return {key: {network: mean(found) for network, found in networks.items()} for key, networks in lines.items()}


def moments(values: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    return mean(values), stdev(values) / sqrt(len(values))


def text(values: list[float]) -> str:
    """Mean and standard error, with a star where the mean is more than two standard errors from 0."""
    center, error = moments(values)
    return f"{center:+.1f} ±{error:.1f}{'*' if abs(center) > 2 * error else ' '}".rjust(14)


def main() -> None:
    """Print the comparison, what the rule says, and what a repair is worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--base", default="effect", help="the line that the others are compared with")
    options = parser.parse_args()
    left, against = shares(options.runs), options.base
    criteria = list(dict.fromkeys(criterion for _, criterion in left))
    budgets = [budget for budget in BUDGETS if (budget, against) in left]
    width = max(len(name) for name in (*criteria, f"minus {against}"))
    print(f"minus {against}".ljust(width), *(name.rjust(14) for name in (*budgets, "mean")))
    chosen, best = against, 0.0
    for name in criteria:
        if name == against:
            continue
        gaps = {}
        for budget in budgets:
            base = left[budget, against]
            gaps[budget] = {network: value - base[network] for network, value in left[budget, name].items()}
        whole = [mean(gap[n] for gap in gaps.values()) for n in next(iter(gaps.values()))]
        print(name.ljust(width), *(text(list(gap.values())) for gap in gaps.values()), text(whole))
        if name not in INELIGIBLE:
            center, error = moments(whole)
            behind = any(m + 2 * e < 0 for m, e in (moments(list(gap.values())) for gap in gaps.values()))
            if center >= 1 and center > 2 * error and not behind and center > best:
                chosen, best = name, center
    print(f"\nby the rule: {chosen}\n")
    print("repair minus none".ljust(max(width, 18)), "no training".rjust(14), "then training".rjust(14))
    for name in criteria:
        cells = []
        for without, repaired in (("none", "repair"), ("training", "repair, training")):
            both = left.get((without, name)), left.get((repaired, name))
            cells.append(text([both[1][n] - both[0][n] for n in both[1]]) if all(both) else "–".rjust(14))
        print(name.ljust(max(width, 18)), *cells)


if __name__ == "__main__":
    main()
