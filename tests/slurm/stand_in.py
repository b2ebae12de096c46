"""A stand-in for SLURM: ``sbatch`` and ``scontrol`` on the PATH, and a queue that runs the scripts for real.

It knows what the examples use: ``#SBATCH`` lines, ``--dependency afterok``, ``--array``, ``--signal B:…``, requeueing,
and the environment that jobs see, as in SLURM 22.05. What ends a job is given by the test, for each of its starts.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import torch

SBATCH = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
arguments, options = sys.argv[1:], {{}}
while arguments and arguments[0].startswith("--"):
    name, equals, value = arguments.pop(0)[2:].partition("=")
    options[name] = value if equals or name == "parsable" else arguments.pop(0)
script = Path(arguments.pop(0))
for line in script.read_text().splitlines():
    if line.startswith("#SBATCH --"):
        name, _, value = line.removeprefix("#SBATCH --").partition("=")
        options.setdefault(name, value)
home = Path(os.environ["STAND_IN_HOME"])
number = len(list(home.glob("*.job"))) + 1
job = {{"options": options, "script": script.read_text(), "arguments": arguments, "environment": dict(os.environ)}}
(home / f"{{number}}.job").write_text(json.dumps(job))
print(number)
"""

SCONTROL = """#!/bin/sh
case "$1" in
  requeue) touch "$STAND_IN_HOME/$2.requeue" ;;
  show) echo "   JobState=COMPLETING Reason=$(cat "$STAND_IN_HOME/$3.reason" 2>/dev/null) Dependency=(null)"
    echo "   StartTime=2026-01-01T00:00:00 EndTime=$STAND_IN_END Deadline=N/A" ;;
esac
"""

CANCEL, TIME_LIMIT = "None", "TimeLimit"
"""Reasons why SLURM sends SIGTERM to a job, as ``scontrol show job`` has them."""


class Cluster:
    """One node that runs one job at a time.

    Args:
        home: Where the queue lives.
        time_limits: Seconds until each start of a job is warned by its own ``--signal``, by its stage; none where the
            list ends.
        ends: What then comes: for each start of a job, the reason why it gets SIGTERM.
        warns: Whether the warning is sent at all; else only SIGTERM is.
        left: Seconds until the time limit as ``scontrol`` tells them; None for a job without one.
    """

    def __init__(self, home, time_limits, *, ends=(), warns=True, left=120):
        self.home, self.time_limits = home, {stage: list(limits) for stage, limits in time_limits.items()}
        self.ends, self.warns = list(ends), warns
        self.history = []
        bin_directory = home / "bin"
        bin_directory.mkdir(parents=True)
        programs = {"sbatch": SBATCH, "scontrol": SCONTROL}
        programs["causalprune"] = f'#!/bin/sh\nexec {sys.executable} -m causalprune "$@"\n'
        for name, text in programs.items():
            (bin_directory / name).write_text(text)
            (bin_directory / name).chmod(0o755)
        root = str(Path(__file__).parents[2])
        self.environment = {
            **{n: v for n, v in os.environ.items() if not n.startswith("SLURM_")},
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
            "STAND_IN_HOME": str(home),
            "STAND_IN_END": "Unknown" if left is None else f"{datetime.now() + timedelta(seconds=left):%FT%T}",
            "PYTHONPATH": root,
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        }

    def submit(self, *command):
        """Run a command that calls sbatch; returns what it prints."""
        done = subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True, check=True)
        return done.stdout

    def run(self):
        """Run all jobs in the order of their numbers, each until it isn't queued again."""
        codes = {}
        for path in sorted(self.home.glob("*.job"), key=lambda p: int(p.stem)):
            job = json.loads(path.read_text())
            kind, _, needed = job["options"].get("dependency", "").partition(":")
            if needed and codes.get(int(needed)) != 0:
                continue
            assert kind in ("", "afterok")
            tasks = tasks_of(job["options"].get("array", "0"))
            codes[int(path.stem)] = max(self._run_task(int(path.stem), job, task, tasks) for task in tasks)
        return codes

    def _run_task(self, number, job, task, tasks):
        unique = name = str(number)
        array = {}
        if "array" in job["options"]:
            # The last task keeps the number of the array.
            unique, name = unique if task == tasks[-1] else f"{number}{task:03d}", f"{number}_{task}"
            array = {"JOB_ID": number, "TASK_ID": task, "TASK_COUNT": len(tasks)}
            array |= {"TASK_MIN": tasks[0], "TASK_MAX": tasks[-1], "TASK_STEP": getattr(tasks, "step", 1)}
        for restarts in range(20):
            environment = {**job["environment"], "SLURM_JOB_ID": unique, "SLURM_SUBMIT_DIR": str(self.home)}
            environment |= {"SLURM_CPUS_PER_TASK": job["options"]["cpus-per-task"]}
            environment |= {f"SLURM_ARRAY_{key}": str(value) for key, value in array.items()}
            if restarts:
                environment["SLURM_RESTART_COUNT"] = str(restarts)
            code = self._run_once(name, job, environment)
            assert not array or not (self.home / f"{number}.requeue").exists(), "the whole array is queued again"
            requeue = self.home / f"{name}.requeue"
            self.history.append((job["options"]["job-name"].removeprefix("causalprune-"), code, requeue.exists()))
            if not requeue.exists():
                return code
            requeue.unlink()
        raise AssertionError("queued again for ever")

    def _run_once(self, name, job, environment):
        # SLURM runs a copy of the script, from elsewhere.
        spooled = self.home / "spool" / f"job{name}" / "slurm_script"
        shutil.rmtree(spooled.parent, ignore_errors=True)
        spooled.parent.mkdir(parents=True)
        spooled.write_text(job["script"])
        limits = self.time_limits.get(job["options"]["job-name"].removeprefix("causalprune-"), [])
        output = self.home / f"{name}.out"
        with output.open("a") as file:
            steps = _steps(output)
            process = subprocess.Popen(
                ["bash", str(spooled), *job["arguments"]],
                env=environment, cwd=self.home, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        try:
            if limits:
                # Python takes seconds to start; limits count from the first line of progress.
                _wait_for_steps(output, process, steps)
                time.sleep(limits.pop(0))
                self._end(name, job, process)
            return process.wait(timeout=120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _end(self, name, job, process):
        """Warn the script, which alone is sent that signal; then end it and all that it started."""
        output = self.home / f"{name}.out"
        steps = _steps(output)
        who, _, rest = job["options"]["signal"].partition(":")
        assert who == "B"
        if process.poll() is None and self.warns:
            os.kill(process.pid, signal.Signals[f"SIG{rest.partition('@')[0]}"])
            if self.ends:
                _wait_for_steps(output, process, steps)
        if self.ends:
            (self.home / f"{name}.reason").write_text(self.ends.pop(0))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _steps(output):
    return len(re.findall(r" steps\)?\n", output.read_text()))


def _wait_for_steps(output, process, before):
    while process.poll() is None and _steps(output) == before:
        time.sleep(0.02)


def tasks_of(array):
    """The tasks of ``0-7``, ``3``, ``0-8:2`` or ``1,2,9``."""
    if "," in array:
        return [int(task) for task in array.split(",")]
    ends, _, step = array.partition(":")
    first, _, last = ends.partition("-")
    return range(int(first), int(last or first) + 1, int(step or 1))
