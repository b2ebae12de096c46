"""Launcher variables that are empty or only partly there, as after ssh into a SLURM node, or in a container."""

import os
import subprocess
import sys

import pytest

LAUNCHERS = ("SLURM_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_", "OMPI_", "PMI_")


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0", "WORLD_SIZE": ""},
        {"SLURM_STEP_NUM_TASKS": ""},
        {"SLURM_STEP_NUM_TASKS": "2"},
        {
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "SLURM_STEP_NODELIST": "n1",
            "SLURM_JOB_ID": "7",
            "PATH": "/nowhere",
        },
    ],
    ids=["no world size", "no number of tasks", "no rank", "no scontrol"],
)
def test_it_runs_alone_or_says_which_variable_is_missing(folder, variables):
    environment = {n: v for n, v in os.environ.items() if not n.startswith(LAUNCHERS)} | variables
    command = [sys.executable, "-m", "causalprune", "pretrain", "--epochs", "0", "-q"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    named = any(name in done.stderr for name in ("WORLD_SIZE", "SLURM_", "scontrol"))
    assert done.returncode == 0 or (done.returncode == 2 and named and done.stderr.count("\n") == 1), done.stderr[-500:]
