"""A run directory whose name is no UTF-8, as one in Latin-1."""

import os
import subprocess
import sys


def test_it_works_or_is_refused_before_training(folder):
    run = os.fsencode(folder) + b"/r\xe9n"
    command = [sys.executable, "-m", "causalprune", "pretrain", "--epochs", "1", "-q", "--run", run]
    done = subprocess.run(command, capture_output=True, check=False, timeout=100)
    written = os.path.exists(run + b"/pretrained.safetensors")  # noqa: PTH110 - a path of bytes
    assert (done.returncode, written) in [(0, True), (2, False)], done.stderr[-500:]
