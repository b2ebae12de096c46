"""How far one criterion is ahead of another, network by network.

    python docs/study/differences.py study/mlpnet effect magnitude

Both prune the same networks after the same recordings, so their scores are subtracted seed by seed. A line has the mean
of the differences and their sample standard deviation, and a star where the mean is more than twice that.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev


def main() -> None:
    """Print a table a further setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("first")
    parser.add_argument("second", nargs="+")
    options = parser.parse_args()
    lines = (options.run / "sweep/results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    further = json.loads((options.run / "sweep/grid.json").read_text())["cells"][0]["settings"]
    further = [name for name in further if name not in ("sparsity", "criterion", "seed")]
    places = 1 if rows[0]["metric"] == "top1" else 3
    scale = 100 if rows[0]["metric"] == "top1" else 1
    for setting in dict.fromkeys(tuple((name, row[name]) for name in further) for row in rows):
        print(*(f"{name}={value}" for name, value in setting))
        print(f"{options.first} −".rjust(14), *(name.rjust(16) for name in options.second))
        for sparsity in dict.fromkeys(row["sparsity"] for row in rows):
            here = [r for r in rows if r["sparsity"] == sparsity and all(r[n] == v for n, v in setting)]
            scores = {(row["criterion"], row["seed"]): row["score"] for row in here}
            cells = []
            for other in options.second:
                seeds = [s for c, s in scores if c == options.first and (other, s) in scores]
                gaps = [scale * (scores[options.first, s] - scores[other, s]) for s in seeds]
                spread = stdev(gaps) if len(gaps) > 1 else float("nan")
                star = "*" if abs(mean(gaps)) > 2 * spread else " "
                cells.append(f"{mean(gaps):+.{places}f} ±{spread:.{places}f}{star}".rjust(16))
            print(f"{100 * sparsity:g} % pruned".rjust(14), *cells)
        print()


if __name__ == "__main__":
    main()
