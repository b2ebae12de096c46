"""The table behind the default criterion: how far each candidate is behind the best, where training follows the mask.

    python docs/study/default_criterion.py study/mlpnet-iterated study/breast-cancer-iterated …

Of every sparsity of each grid: the best candidate's mean score minus the candidate's, as a share of what the dense
networks score above guessing. The rule looks at the worst line of each candidate.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

CANDIDATES = ("gamma", "effect", "magnitude")
"""What every recording and every way to rewind can serve."""


def main() -> None:
    """Print a line a sparsity of each grid, and the two summaries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    behind: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    print("behind the best, % of dense − guessing".ljust(40), *(name.rjust(10) for name in CANDIDATES))
    for run in parser.parse_args().runs:
        rows = [json.loads(line) for line in (run / "sweep/results.jsonl").read_text().splitlines()]
        height = mean(row["dense"] for row in rows) - rows[0]["guessing"]
        for sparsity in dict.fromkeys(row["sparsity"] for row in rows):
            scores = {
                name: mean(r["score"] for r in rows if r["sparsity"] == sparsity and r["criterion"] == name)
                for name in CANDIDATES
            }
            shares = {name: (max(scores.values()) - score) / height for name, score in scores.items()}
            print(f"{run.name}, {100 * sparsity:g} %".ljust(40), *(f"{100 * v:.1f}".rjust(10) for v in shares.values()))
            for name, share in shares.items():
                behind[name].append(share)
    for label, summary in (("worst line", max), ("mean of the lines", mean)):
        print(label.ljust(40), *(f"{100 * summary(v):.1f}".rjust(10) for v in behind.values()))


if __name__ == "__main__":
    main()
