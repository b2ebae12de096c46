"""Commands under faults, and the run directories between the stages."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from stage_cases import BEFORE, artifacts, command_of

HERE = Path(__file__).parent


class Runner:
    """Talks to ``driver.py``.

    Attributes:
        output: What the last command wrote on stdout.
    """

    def __init__(self):
        environment = {n: v for n, v in os.environ.items() if not n.startswith(("CAUSALPRUNE_", "SLURM_"))}
        # No threads and no GPU: neither survives a fork.
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment |= {"TORCH_CPP_LOG_LEVEL": "ERROR", "SOURCE_DATE_EPOCH": "0"}
        environment |= {"PYTHONPATH": str(HERE.parents[1])}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "driver.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE,
        )  # fmt: skip
        # What the driver still has to say: that it is ready, a command's process number, how it ended.
        self._awaited = ["ready"]

    def _hear(self):
        answer = json.loads(self._process.stdout.readline())
        if self._awaited.pop(0) == "pid":
            self._child = answer["pid"]
        return answer

    def _hear_out(self):
        """Be ready for a command, even if a test that failed left one running."""
        while self._awaited:
            if self._awaited[0] == "end":
                self.signal(signal.SIGKILL)
            self._hear()

    def start(self, *args, **limits):
        """Begin a command; ``fault`` and ``fail_at``, ``folder``, ``memory`` (bytes) and ``seconds`` are for
        ``driver.py``."""
        self._hear_out()
        self._awaited += ["pid", "end"]
        request = {"args": [str(a) for a in args], **limits}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        self._hear()

    def signal(self, number):
        """Signal the command, if it hasn't ended."""
        with suppress(ProcessLookupError):
            os.kill(self._child, number)

    def finish(self):
        """Wait for the command: exit code, changes to the disk (None when killed), stderr."""
        result = self._hear()
        self.output = result["output"]
        return result["code"], result["changes"], result["error"]

    def __call__(self, *args, **limits):
        self.start(*args, **limits)
        return self.finish()

    def close(self):
        with self._process:
            try:
                self._hear_out()
                self._process.stdin.close()
                assert self._process.wait(timeout=30) == 0
            except BaseException:
                self._process.kill()
                raise


class Stages:
    """The run directory before each stage, and what a stage leaves there when nothing fails."""

    def __init__(self, runner, folder):
        self._runner, self._folder = runner, folder
        self._expected = {}

    def copy(self, stage, target):
        """A fresh run directory that is ready for the stage."""
        if BEFORE[stage] is None:
            target.mkdir()
            return target
        self.expected(BEFORE[stage])
        return shutil.copytree(self._folder / f"after {BEFORE[stage]}", target)

    def command(self, stage, run):
        return (*command_of(stage, run), "--quiet")

    def expected(self, stage):
        """Artifacts after the stage without a fault, and the changes to the disk that it made."""
        if stage not in self._expected:
            run = self.copy(stage, self._folder / f"after {stage}")
            code, changes, error = self._runner(*self.command(stage, run))
            assert code == 0, error
            self._expected[stage] = artifacts(run), changes
        return self._expected[stage]


class Pair:
    """Runs one command as two processes that torchrun might have started."""

    def __init__(self, first, second):
        self.runners = (first, second)

    def start(self, *args):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for rank, runner in enumerate(self.runners):
            runner.start(*args, environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})

    def finish(self):
        """Exit codes and what both said on stderr."""
        ended = [runner.finish() for runner in self.runners]
        return [code for code, _, _ in ended], "".join(error for _, _, error in ended)

    def __call__(self, *args):
        self.start(*args)
        return self.finish()
