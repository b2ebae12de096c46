"""``--compile`` on a machine without a C++ compiler."""

import os
import subprocess
import sys


def test_compile_without_a_compiler_is_refused_in_a_line(folder):
    nothing = {"PATH": "/nowhere", "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    small = ["--model", "mlp", "--hidden", "4", "--epochs", "1"]
    command = [sys.executable, "-m", "causalprune", "pretrain", *small, "--compile", "-q"]
    done = subprocess.run(
        command, env={**os.environ, **nothing}, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 2, done.stderr[-500:]
    assert "--compile" in done.stderr
    assert "compiler" in done.stderr
