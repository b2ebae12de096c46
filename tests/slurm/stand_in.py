"""A stand-in for SLURM: ``sbatch`` and ``scontrol requeue`` on the PATH, and a queue that runs the scripts for real.

It knows what the examples use: ``#SBATCH`` lines, ``--dependency afterok``, ``--array``, ``--signal B:…``, requeueing,
and the environment that jobs see. Time limits are given by the test, for each start of each job.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

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
[ "$1" = requeue ] && touch "$STAND_IN_HOME/$2.requeue"
"""


class Cluster:
    """One node that runs one job at a time.

    Args:
        home: Where the queue lives.
        time_limits: Seconds until each start of a job is signaled, by its stage; no limit where the list ends.
    """

    def __init__(self, home, time_limits):
        self.home, self.time_limits = home, {stage: list(limits) for stage, limits in time_limits.items()}
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
            "PYTHONPATH": root,
            "OMP_NUM_THREADS": "1",
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
            first, _, last = job["options"].get("array", "0-0").partition("-")
            tasks = range(int(first), int(last) + 1)
            codes[int(path.stem)] = max(self._run_task(int(path.stem), job, task, tasks) for task in tasks)
        return codes

    def _run_task(self, number, job, task, tasks):
        unique = str(number) if "array" not in job["options"] else f"{number}{task:03d}"
        for restarts in range(20):
            environment = {**job["environment"], "SLURM_JOB_ID": unique, "SLURM_SUBMIT_DIR": str(self.home)}
            environment |= {"SLURM_CPUS_PER_TASK": job["options"]["cpus-per-task"]}
            if "array" in job["options"]:
                environment |= {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(len(tasks))}
            if restarts:
                environment["SLURM_RESTART_COUNT"] = str(restarts)
            code = self._run_once(unique, job, environment)
            requeue = self.home / f"{unique}.requeue"
            self.history.append((job["options"]["job-name"].removeprefix("causalprune-"), code, requeue.exists()))
            if not requeue.exists():
                return code
            requeue.unlink()
        raise AssertionError("queued again for ever")

    def _run_once(self, unique, job, environment):
        # SLURM runs a copy of the script, from elsewhere.
        spooled = self.home / "spool" / f"job{unique}" / "slurm_script"
        shutil.rmtree(spooled.parent, ignore_errors=True)
        spooled.parent.mkdir(parents=True)
        spooled.write_text(job["script"])
        limits = self.time_limits.get(job["options"]["job-name"].removeprefix("causalprune-"), [])
        with (self.home / f"{unique}.out").open("a") as output:
            process = subprocess.Popen(
                ["bash", str(spooled), *job["arguments"]],
                env=environment, cwd=self.home, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
            if limits:
                who, _, rest = job["options"]["signal"].partition(":")
                assert who == "B"
                self._wait_for_work(unique, process)
                time.sleep(limits.pop(0))
                if process.poll() is None:
                    os.kill(process.pid, signal.Signals[f"SIG{rest.partition('@')[0]}"])
            try:
                return process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise

    def _wait_for_work(self, unique, process):
        """Python takes seconds to start; limits count from the first line of progress."""
        output = self.home / f"{unique}.out"
        before = output.read_text().count(" steps\n")
        while process.poll() is None and output.read_text().count(" steps\n") == before:
            time.sleep(0.02)
