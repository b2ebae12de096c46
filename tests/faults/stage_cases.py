"""Each command as small as it can be, saving at every step, and what must be true whatever happened to it."""

import json
import zipfile

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from causalprune.base.errors import LockedError
from causalprune.base.files import PARTIAL
from causalprune.base.json_files import is_sealed
from causalprune.base.leases import Lease
from causalprune.base.locks import FileLock
from causalprune.base.paths import is_mask_path
from causalprune.models.checkpoint import load_checkpoint
from causalprune.models.mask_file import load_mask
from causalprune.trajectory import Store

_TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
_SAVE = ["--checkpoint-every", "1steps"]
_STORE = "{run}/trajectory.zarr"

STAGE_OPTIONS = {
    "pretrain": [*_TINY, "--epochs", "2", "--batch-size", "256", *_SAVE],
    "record": ["--steps", "5", "--batch-size", "128", "--checkpoint-every", "2steps"],
    "fit-gamma": [],
    "apply-mask": ["--sparsity", "0.5"],
    "posttrain": ["--epochs", "1", "--batch-size", "256", *_SAVE],
    "evaluate": [],
    "diagnose": ["--placebo", "1", "--interventions", "2"],
    "export": [],
    "store export": [_STORE, "--output", "{run}/delta.npz", "--overwrite"],
    "store compact": [_STORE, "--codec", "small"],
    "store merge": [_STORE, _STORE, "--output", "{run}/merged.zarr"],
    "run": [
        *_TINY, "--iterations", "1", "--sparsity", "0.5", "--pretrain-epochs", "1", "--train-epochs", "1",
        "--record-epochs", "1", "--posttrain-epochs", "1", "--batch-size", "256", "--checkpoint-every", "never",
    ],
    "sweep": ["--sparsity", "0.5", "--criterion", "gamma,magnitude", "--seeds", "1", "--recorded", "{run}"],
    "report": [],
    "apply-mask --overwrite": ["--sparsity", "0.7"],
}  # fmt: skip

_PREPARATIONS = {
    "small sweep": ["sweep", "--sparsity", "0.5", "--criterion", "magnitude", "--seeds", "1", "--recorded", "{run}"],
}
"""Commands that only prepare others: a report of this sweep has few pictures."""

BEFORE = {
    "pretrain": None,
    "record": "pretrain",
    "fit-gamma": "record",
    "apply-mask": "fit-gamma",
    "posttrain": "apply-mask",
    "evaluate": "posttrain",
    "diagnose": "fit-gamma",
    "export": "posttrain",
    "store export": "record",
    "store compact": "fit-gamma",
    "store merge": "record",
    "run": None,
    "small sweep": "record",
    "sweep": "record",
    "report": "small sweep",
    "apply-mask --overwrite": "apply-mask",
}
"""The stage whose run directory a stage starts from."""


def command_of(stage, run):
    """The command line of a stage in a run directory."""
    command = _PREPARATIONS.get(stage) or [*stage.split(), *STAGE_OPTIONS[stage]]
    return [*(part.format(run=run) for part in command), "--run", str(run)]


def without_times(value):
    """A JSON value without what a stage measured of its own time."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if not key.endswith("seconds")}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def _in_a_store(path):
    return any(parent.suffix == ".zarr" for parent in path.parents)


def artifacts(run):
    """Every file that must come out the same, by name, as bytes; results and tables without their times and paths."""
    found = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file() and p.name != "log.jsonl" and "lock" not in p.name):
        content = path.read_bytes()
        if path.name == "results.jsonl":
            content = [without_times(json.loads(line)) for line in content.splitlines()]
        elif path.suffix == ".json" and not _in_a_store(path):
            value = json.loads(content)
            if "stage" in value:
                value = [value["stage"], value["inputs"], value["metrics"]]
            elif "measured" in value:
                # The seal of a cell covers its times.
                assert is_sealed(value)
                value = value["measured"]
            content = without_times(value)
        found[str(path.relative_to(run))] = content
    return found


def leftovers(run):
    """What only an interrupted command has: temporary files, saved states, locks that somebody living holds."""
    marks = (".partial-", ".progress", "lock", ".replaced", ".previous")
    found = [p for p in run.rglob("*") if any(mark in str(p.relative_to(run)) for mark in marks)]
    return [str(p) for p in found if "lock" not in p.name or PARTIAL in p.name or is_held(p)]


def is_held(lock):
    """Whether anybody living holds a lock or a lease."""
    try:
        with (Lease if lock.read_bytes().startswith(b"filelock") else FileLock)(lock):
            return False
    except LockedError:
        return True


def require_whole(run):
    """Whatever is there under its own name is complete and undamaged."""
    for path in run.rglob("*"):
        if ".partial-" in str(path) or not path.exists() or path.name == "run.json.progress":
            continue
        if path.parent.name == "cells" and path.name.endswith(".mask.safetensors"):
            with safe_open(path, "numpy") as file:
                assert file.get_tensor("keep").size
        elif is_mask_path(path) or path.name.endswith(".mask.safetensors.previous"):
            assert load_mask(path).num_kept
        elif path.name.endswith((".safetensors", ".progress", ".previous")):
            load_checkpoint(path)
        elif path.suffix == ".zarr":
            assert Store.open(path).verify() == []
        elif path.suffix == ".json" and not _in_a_store(path):
            json.loads(path.read_bytes())
        elif path.suffix == ".jsonl":
            # Of a log the line that was being written may be torn; nothing cuts it off.
            lines = path.read_bytes().splitlines(keepends=True)
            torn = [line for line in lines if not line.endswith(b"}\n")]
            assert len(torn) <= (path.name == "log.jsonl")
            assert all(json.loads(line) for line in lines if line not in torn)
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".npz":
            assert zipfile.ZipFile(path).testzip() is None
            assert len(np.load(path)["delta"])
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".html":
            assert path.read_text().endswith("</html>\n")
