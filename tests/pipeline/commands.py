"""Run the command line, in this process or another, and compare what it leaves behind."""

import hashlib
import json
import subprocess
import sys

from causalprune_cli.main import main

QUICK = {
    "pretrain": ["--epochs", "3"],
    "record": ["--epochs", "1"],
    "fit-gamma": [],
    "apply-mask": ["--sparsity", "0.9"],
    "posttrain": ["--epochs", "3"],
    "evaluate": [],
}
"""The pipeline on the default data set, shortened."""

QUICK_RUN = ["run", "--iterations", "2", "--sparsity", "0.9", "--pretrain-epochs", "2", "--train-epochs", "1"]
QUICK_RUN += ["--record-epochs", "1", "--posttrain-epochs", "2"]


def call(*args):
    """Exit code of the command in this process."""
    return main([str(a) for a in args])


def call_json(capsys, *args):
    """Result of the command, which has to succeed."""
    capsys.readouterr()
    code = call(*args, "--json", "--quiet")
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def start(*args, cwd):
    """The command as a process of its own."""
    command = [sys.executable, "-m", "causalprune", *map(str, args)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, timeout=200):
    """Wait for a process of :func:`start`; returns its exit code and what it said on stderr."""
    _, error = process.communicate(timeout=timeout)
    return process.returncode, error


def artefact_hashes(run):
    """Hash of every checkpoint and every file of every store below a run directory; results hold times, locks pids."""
    files = (p for p in run.rglob("*") if p.is_file() and p.suffix != ".json" and "lock" not in p.name)
    files = [p for p in files if p.suffix == ".safetensors" or ".zarr" in str(p)]
    stores = list(run.rglob("zarr.json"))
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in [*files, *stores]}
