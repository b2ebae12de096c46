"""A keyboard interrupt before the command listens to signals."""

import os
import signal
import subprocess
import sys

import pytest

INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    "module", ["causalprune_cli.main", "typer", "causalprune.base.errors", "causalprune.config.sources", "torch"]
)
@pytest.mark.parametrize("ignored", [False, True])
def test_it_ends_in_a_line_whatever_is_being_imported(tmp_path, module, ignored):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(module=module))
    command = [sys.executable, "-m", "causalprune", "info", "nothing"]
    if module == "torch":
        command = [sys.executable, "-m", "causalprune", "pretrain", "--epochs", "0", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100,
        # A suite that runs in the background of a script ignores SIGINT, and so would its commands.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL),
    )  # fmt: skip
    if ignored and module != "torch":
        assert (done.returncode, "found nothing" in done.stderr) == (3, True), done.stderr
    else:
        assert done.returncode == 130, done.stderr
        said = "stopped by SIGINT with nothing saved since the start; run the same command again to start over"
        assert done.stderr.startswith(f"causalprune: {said}")
    assert done.stderr.count("\n") == 1
