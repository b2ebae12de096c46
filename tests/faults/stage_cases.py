"""Each stage as small as it can be, saving at every step, and what must be true whatever happened to it."""

import json

from causalprune.checkpoint import load_checkpoint
from causalprune.locking import lock_holder
from causalprune.store import TrajectoryStore

_TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
_SAVE = ["--checkpoint-every", "1steps"]

STAGE_OPTIONS = {
    "pretrain": [*_TINY, "--epochs", "2", "--batch-size", "256", *_SAVE],
    "record": ["--steps", "5", "--batch-size", "128", "--checkpoint-every", "2steps"],
    "fit-gamma": [],
    "apply-mask": ["--sparsity", "0.5"],
    "posttrain": ["--epochs", "1", "--batch-size", "256", *_SAVE],
    "evaluate": [],
    "run": [
        *_TINY, "--iterations", "1", "--sparsity", "0.5", "--pretrain-epochs", "1", "--train-epochs", "1",
        "--record-epochs", "1", "--posttrain-epochs", "1", "--batch-size", "256", "--checkpoint-every", "never",
    ],
}  # fmt: skip

BEFORE = {
    "pretrain": None,
    "record": "pretrain",
    "fit-gamma": "record",
    "apply-mask": "fit-gamma",
    "posttrain": "apply-mask",
    "evaluate": "posttrain",
    "run": None,
}
"""The stage whose run directory a stage starts from."""


def without_times(value):
    """A JSON value without what a stage measured of its own time."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if not key.endswith("seconds")}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def artefacts(run):
    """Every file that must come out the same, by name: checkpoints and stores as bytes, results without their times."""
    found = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file() and p.name != "log.jsonl" and "lock" not in p.name):
        content = path.read_bytes()
        if path.parent.name == "results" or path.name.endswith(".safetensors.json"):
            value = json.loads(content)
            content = [value["stage"], value["inputs"], without_times(value["metrics"])]
        found[str(path.relative_to(run))] = content
    return found


def leftovers(run):
    """What only an interrupted command has: temporary files, saved states, locks, unless their process is dead."""
    marks = (".partial-", ".progress", "lock", ".replaced")
    found = [p for p in run.rglob("*") if any(mark in str(p.relative_to(run)) for mark in marks)]
    return [str(p) for p in found if not ("lock" in p.name and lock_holder(p).is_known_dead)]


def require_whole(run):
    """Whatever is there under its own name is complete and undamaged."""
    for path in run.rglob("*"):
        if ".partial-" in str(path) or not path.exists():
            continue
        if path.name.endswith((".safetensors", ".progress", ".previous")) and path.name != "run.json.progress":
            load_checkpoint(path)
        elif path.name == "trajectory.zarr":
            assert TrajectoryStore.open(path).verify() == []
        elif path.suffix == ".json" and ".zarr" not in str(path):
            json.loads(path.read_bytes())
