"""A run directory whose name is no UTF-8, as one in Latin-1."""

import os
import subprocess
import sys

SMALL = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--epochs", "0"]


def test_it_works_or_is_refused_before_training(folder):
    run = os.fsencode(folder) + b"/r\xe9n"
    command = [sys.executable, "-m", "causalprune", "pretrain", *SMALL, "-q", "--run", run]
    done = subprocess.run(command, capture_output=True, check=False, timeout=200)
    written = os.path.exists(run + b"/pretrained.safetensors")  # noqa: PTH110 - a path of bytes
    assert (done.returncode, written) in [(0, True), (2, False)], done.stderr[-500:]


def test_every_stage_works_in_it(causalprune, folder):
    run = folder / os.fsdecode(b"r\xe9n")
    stages = [
        ["pretrain", *SMALL],
        ["record", "--steps", "4"],
        ["fit-gamma"],
        ["apply-mask", "--sparsity", "0.5"],
        ["posttrain", "--epochs", "1"],
        ["evaluate"],
        *(["export", "--format", name] for name in ("torch", "safetensors", "csr")),
        ["pretrain", *SMALL, "--init-from", run / "exported.safetensors", "--output", run / "again.safetensors"],
    ]
    for stage in stages:
        result = causalprune(*stage, "--run", run, "-q", "--json")
        assert result.code == 0, result.error
        (output,) = list(result.json["outputs"].values())[:1]
        assert os.fsencode(output).startswith(os.fsencode(run))
    assert causalprune("info", "--run", run).code == 0
