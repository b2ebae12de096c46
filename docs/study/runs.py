"""A table of finished runs: mean and standard error over those that differ in nothing but their seed.

For example ``python docs/study/runs.py study/stages/*``.
"""

import argparse
import json
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

SHOWN = ("criterion", "repair", "iterations", "posttrain_epochs", "sparsity")


def text(values: list[float]) -> str:
    """Mean and standard error in %; of one run its score."""
    if len(values) == 1:
        return f"{100 * values[0]:.2f}".rjust(12)
    return f"{100 * mean(values):.1f} ±{100 * stdev(values) / sqrt(len(values)):.1f}".rjust(12)


def main() -> None:
    """Print a line for each combination of settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for run in parser.parse_args().runs:
        result = run / "results/evaluate.json"
        if result.exists():
            config = json.loads((run / "run.json").read_text())
            evaluation = json.loads(result.read_text())["metrics"]["evaluation"]
            pair = evaluation["reference"]["top1"], evaluation["top1"]
            rule = next((one.partition("=")[2] for one in config["set"] if "dead-ends" in one), "")
            key = *(str(config[name]) for name in SHOWN), rule
            found.setdefault(key, []).append(pair)
    names = [name.replace("posttrain_epochs", "epochs").ljust(10) for name in SHOWN]
    print(*names, "dead ends ", "runs", "not pruned".rjust(12), "pruned".rjust(12))
    for key, pairs in sorted(found.items()):
        dense, pruned = ([pair[at] for pair in pairs] for at in (0, 1))
        print(*(part.ljust(10) for part in key), str(len(pairs)).rjust(4), text(dense), text(pruned))


if __name__ == "__main__":
    main()
