"""The table of a sweep with standard errors, and how far each criterion is ahead of another, network by network.

    python docs/study/table.py study/mlpnet --against magnitude

First the mean over the seeds and its standard error. Then, since all criteria prune the same networks, the differences
of one seed: their mean, its standard error, and a star where the mean is more than two standard errors from 0. A line
in brackets is one in which the other criterion has lost less than a point (R², perplexity: 0.01) of the dense
network's score. ``--least`` adds the lowest score of the seeds. ``--beside SETTING`` gives each criterion a column for
every value of that setting, by itself for the first.
"""

import argparse
import json
from math import nan, sqrt
from pathlib import Path
from statistics import mean, stdev


def error(values: list[float]) -> float:
    """Standard error of the mean; nan of one value."""
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else nan


def text(values: list[float], form: str) -> str:
    """Mean and standard error; of one value itself."""
    return f"{mean(values):{form}}" + (f" ±{error(values):{form.strip('+')}}" if len(values) > 1 else "")


def main() -> None:
    """Print two tables a further setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--against", default="magnitude", help="criterion that the others are compared with")
    parser.add_argument("--criteria", default="", help="those to compare, separated by commas [all]")
    parser.add_argument("--least", action="store_true", help="also print the lowest score of the seeds")
    parser.add_argument("--beside", help="a setting whose values stand beside each other, not in tables of their own")
    options = parser.parse_args()
    rows = [json.loads(line) for line in (options.run / "sweep/results.jsonl").read_text().splitlines()]
    names = json.loads((options.run / "sweep/grid.json").read_text())["cells"][0]["settings"]
    further = [name for name in names if name not in ("sparsity", "criterion", "seed", options.beside)]
    for row in rows if options.beside else ():
        if row[options.beside] != rows[0][options.beside]:
            row["criterion"] += f":{row[options.beside]}"
    criteria = list(dict.fromkeys(row["criterion"] for row in rows))
    compared = [name for name in options.criteria.split(",") if name] or criteria
    metric, falling = rows[0]["metric"], rows[0]["metric"] == "perplexity"
    places, scale = {"top1": (1, 100), "perplexity": (2, 1)}.get(metric, (3, 1))
    width = max(9 + 2 * places, *map(len, criteria))
    print({"top1": "accuracy %", "r2": "R²"}.get(metric, metric), "on the test split,", end=" ")
    dense = [scale * row for row in {row["seed"]: row["dense"] for row in rows}.values()]
    print(f"seeds: {len(dense)}; not pruned {text(dense, f'.{places}f')}")
    unlike = False
    for setting in dict.fromkeys(tuple((name, row[name]) for name in further) for row in rows):
        here = [row for row in rows if all(row[name] == value for name, value in setting)]
        scores: dict[tuple[float, str], dict[int, float]] = {}
        for row in here:
            scores.setdefault((row["sparsity"], row["criterion"]), {})[row["seed"]] = scale * row["score"]
        print("\n" + " ".join(f"{name}={value}" for name, value in setting) if setting else "")
        print("pruned".ljust(8), *(name.rjust(width) for name in criteria))
        sparsities = list(dict.fromkeys(row["sparsity"] for row in here))
        for sparsity in sparsities:
            cells = []
            for name in criteria:
                found = list(scores.get((sparsity, name), {}).values())
                cells.append(text(found, f".{places}f") if found else "–")
                unlike |= len(found) != len(dense)
            print(f"{100 * sparsity:g} %".ljust(8), *(cell.rjust(width) for cell in cells))
        if options.least:
            print("\nlowest of the seeds")
            for sparsity in sparsities:
                cells = [f"{min(scores[sparsity, name].values()):.{places}f}" for name in criteria]
                print(f"{100 * sparsity:g} %".ljust(8), *(cell.rjust(width) for cell in cells))
        others = [name for name in compared if name != options.against]
        print(f"\nminus {options.against}")
        print("pruned".ljust(8), *(name.rjust(width) for name in others))
        for sparsity in sparsities:
            base = scores.get((sparsity, options.against), {})
            if not base:
                continue
            lost = (mean(base.values()) - mean(dense)) * (1 if falling else -1)
            cells = []
            for name in others:
                found = scores.get((sparsity, name), {})
                gaps = [found[seed] - base[seed] for seed in found if seed in base]
                star = "*" if gaps and abs(mean(gaps)) > 2 * error(gaps) else " "
                cells.append(text(gaps, f"+.{places}f") + star if gaps else "–")
            line = f"{100 * sparsity:g} %"
            line = f"({line})" if lost < scale / 100 else line
            print(line.ljust(8), *(cell.rjust(width) for cell in cells))
    if unlike:
        print("\nNot every seed has all of these: a cell failed, or the sweep isn't finished.")


if __name__ == "__main__":
    main()
