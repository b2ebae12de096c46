"""A process in which causalprune can't be imported."""

import subprocess
import sys

BARRED = """
import importlib.abc, sys
class Barred(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("causalprune", "causalprune_cli"):
            raise ImportError(f"{name} is barred")
sys.meta_path.insert(0, Barred())
"""


def run_elsewhere(code, *arguments, cwd=None):
    """Run Python that has no causalprune."""
    done = subprocess.run(
        [sys.executable, "-c", BARRED + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
