"""A small sweep, in this process or another, and what it leaves behind."""

import json
import subprocess
import sys
from collections import Counter

from causalprune_cli.main import main

QUICK = ["--sparsity", "0.5,0.9", "--criterion", "effect,magnitude", "--seeds", "2", "--dataset", "breast-cancer"]
QUICK += ["--model", "mlp", "--hidden", "16", "--pretrain-epochs", "2", "--record-epochs", "2"]


def call(run, *args):
    """Exit code of the command in this process."""
    return main(["sweep", *map(str, args), "--run", str(run), "--quiet"])


def call_json(capsys, run, *args):
    """Result of the command, which has to succeed."""
    capsys.readouterr()
    code = main(["sweep", *map(str, args), "--run", str(run), "--quiet", "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)["metrics"]


def start(run, *args):
    """The command as a process of its own."""
    command = [sys.executable, "-m", "causalprune", "sweep", *map(str, args), "--run", str(run)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def table(run, *, drop=("seconds",)):
    """The rows of the table without what differs between two runs of the same sweep."""
    rows = [json.loads(line) for line in (run / "sweep/results.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in drop} for row in rows]


def stages_finished(run):
    """How often each stage ended in the folders of the shared steps, by what the stages themselves logged."""
    events = Counter()
    for log in (run / "sweep/shared").glob("*/log.jsonl"):
        lines = log.read_text().splitlines()
        assert len(lines) == 1, f"{log} says that a step was done {len(lines)} times"
        events[json.loads(lines[0])["stage"]] += 1
    return events
