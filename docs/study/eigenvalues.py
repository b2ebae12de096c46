"""Print the largest Hessian eigenvalue of each line of a sweep: ``eigenvalues.py run/sweep/results.jsonl``."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev


def main(path: str) -> None:
    """Mean and sample standard deviation over the seeds, over the unpruned and over all parameters."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    values: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        name = f"{row['criterion']}, {100 * row['sparsity']:g} % pruned"
        for what, key, of in (
            ("not pruned", "dense_hessian", "all"),
            (name, "hessian", "unpruned"),
            (name, "hessian", "all"),
        ):
            values[what][of][row["seed"]] = row[key][of]["eigenvalues"][0]
    print(f"{'':26}{'unpruned':>16}{'all parameters':>16}")
    for what, spaces in values.items():
        cells = [_spread(list(spaces[of].values())) for of in ("unpruned", "all")]
        print(f"{what:26}{cells[0]:>16}{cells[1]:>16}")


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.1f} ±{stdev(values):.1f}" if len(values) > 1 else f"{mean(values):.1f}"


if __name__ == "__main__":
    main(sys.argv[1])
