"""The same scripts under a real SLURM of one node, where Debian's slurm-wlm is installed and this process is root."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
SlurmUser=root
SlurmctldPort={port}
SlurmdPort={port_of_node}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=30
OverTimeLimit=0
SlurmdTimeout=10
ReturnToService=2
SchedulerParameters=sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL State=UP PriorityTier=10 PreemptMode=OFF
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def end(pid_file):
    """End the daemon that wrote this file; the test started it."""
    if pid_file.exists():
        os.kill(int(pid_file.read_text()), 15)


class OneNode:
    """A cluster of this host alone, and the example scripts without the resources that it lacks."""

    def __init__(self, home):
        self.home = home
        for name in ("state", "spool", "bin"):
            (home / name).mkdir(parents=True)
        (home / "key").write_bytes(os.urandom(1024))
        (home / "key").chmod(0o600)
        names = {"home": home, "host": socket.gethostname(), "port": free_port(), "port_of_node": free_port()}
        (home / "slurm.conf").write_text(CONFIGURATION.format(**names))
        (home / "bin/causalprune").write_text(f'#!/bin/sh\nexec {sys.executable} -m causalprune "$@"\n')
        (home / "bin/causalprune").chmod(0o755)
        self.scripts = shutil.copytree(Path(__file__).parents[2] / "examples/slurm", home / "scripts")
        for path in self.scripts.glob("*.sbatch"):
            lines = [line for line in path.read_text().splitlines() if not line.startswith("#SBATCH --mem")]
            path.write_text("\n".join(lines).replace("--cpus-per-task=4", "--cpus-per-task=1") + "\n")
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("SLURM_", "OMP_"))}
        path = f"{home}/bin:{os.environ['PATH']}:/usr/sbin"
        self.environment = {**kept, "SLURM_CONF": f"{home}/slurm.conf", "PATH": path}
        self.environment |= {"CAUSALPRUNE_SLURM": str(self.scripts), "PYTHONPATH": str(Path(__file__).parents[2])}

    def start(self):
        options = [f"--{n}={self.home}/{f}" for n, f in (("key-file", "key"), ("pid-file", "munged.pid"))]
        options += [f"--socket={self.home}/munge.socket", f"--seed-file={self.home}/seed", "--force"]
        options += [f"--log-file={self.home}/munged.log"]
        for command in (["munged", *options], ["slurmctld", "-c"], ["slurmd", "-c"]):
            subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def stop(self):
        for daemon in reversed(DAEMONS):
            end(self.home / f"{daemon}.pid")
        time.sleep(1)
        shutil.rmtree(self.home, ignore_errors=True)

    def __call__(self, *command, **environment):
        """What a command of SLURM prints."""
        done = subprocess.run(
            command, env=self.environment | environment, cwd=self.home, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def state(self, job):
        return re.search(r"JobState=(\w+)", self("scontrol", "show", "job", job)).group(1)

    def wait_until(self, reached, job, *, hurry=True, seconds=1000):
        """Wait for something; a job that was queued again, for which SLURM waits two minutes, is started at once."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, self("scontrol", "show", "job", job)
            time.sleep(0.5)
            if hurry and "Reason=BeginTime" in self("scontrol", "show", "job", job):
                self("scontrol", "update", f"JobId={job}", "StartTime=now")

    def ended(self, job, state="COMPLETED"):
        self.wait_until(lambda: self.state(job) == state, job)


@pytest.fixture(scope="module")
def slurm():
    missing = [d for d in DAEMONS if shutil.which(d, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.geteuid() != 0:
        pytest.skip("needs root and Debian's slurm-wlm and munge")
    node = OneNode(Path("/tmp") / f"one-node-{os.getpid()}")
    try:
        node.start()
        yield node
    finally:
        node.stop()


pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

CANCELED = "CANCELLED"  # codespell:ignore
"""As SLURM spells it."""

SMALL = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "8"]
LONG = [*SMALL, "--epochs", "1500", "--checkpoint-every", "never"]


def events(run):
    """What the stages logged: the event, and how often their job had been restarted."""
    log = run / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [(line["event"], line.get("restart_count")) for line in lines]


def submit(slurm, script, *options, to=()):
    return slurm("sbatch", "--parsable", *to, str(slurm.scripts / script), *map(str, options))


def at_work(slurm, job):
    """Wait until the stage listens to signals."""
    output = slurm.home / f"slurm-{job}.out"
    slurm.wait_until(lambda: output.exists() and " steps" in output.read_text(), job)


@pytest.fixture(scope="module")
def quiet(slurm, tmp_path_factory):
    """The bytes of an undisturbed stage of the options LONG."""
    run = tmp_path_factory.mktemp("quiet")
    slurm.ended(submit(slurm, "pretrain.sbatch", *LONG, "--run", run))
    return (run / "pretrained.safetensors").read_bytes()


def test_the_chain_of_jobs_ends_with_an_evaluation(slurm, tmp_path):
    printed = slurm("bash", str(slurm.scripts / "pipeline.sh"), str(tmp_path / "run"))
    jobs = re.findall(r"job (\d+)", printed)
    assert len(jobs) == 6
    slurm.ended(jobs[-1])
    assert (tmp_path / "run/results/evaluate.json").exists()


def test_a_job_warned_before_its_end_is_queued_again(slurm, tmp_path):
    # A minute is SLURM's shortest limit, and the signal comes up to a minute early.
    to = ["--time=1", "--signal=B:USR1@30"]
    job = submit(slurm, "pretrain.sbatch", *LONG, "--epochs", 10**6, "--run", tmp_path, to=to)
    slurm.wait_until(lambda: events(tmp_path) == [("interrupted", None), ("interrupted", "1")], job)
    slurm("scancel", job)
    slurm.ended(job, CANCELED)


def test_a_preempted_job_is_queued_again_and_ends_with_the_same_bytes(slurm, quiet, tmp_path):
    job = submit(slurm, "pretrain.sbatch", *LONG, "--run", tmp_path)
    at_work(slurm, job)
    urgent = slurm("sbatch", "--parsable", "--partition=urgent", "--wrap", "true")
    slurm.ended(urgent)
    slurm.ended(job)
    assert events(tmp_path) == [("interrupted", None), ("finished", "1")]
    assert (tmp_path / "pretrained.safetensors").read_bytes() == quiet


def test_a_canceled_job_stays_canceled_and_a_new_one_goes_on(slurm, quiet, tmp_path):
    job = submit(slurm, "pretrain.sbatch", *LONG, "--run", tmp_path)
    at_work(slurm, job)
    slurm("scancel", job)
    slurm.wait_until(lambda: events(tmp_path) == [("interrupted", None)], job)
    slurm.ended(job, CANCELED)
    slurm.ended(submit(slurm, "pretrain.sbatch", *LONG, "--run", tmp_path))
    assert events(tmp_path) == [("interrupted", None), ("finished", None)]
    assert slurm.state(job) == CANCELED
    assert (tmp_path / "pretrained.safetensors").read_bytes() == quiet


def test_one_task_of_an_array_is_queued_again_alone_and_together_they_do_all_cells(slurm, tmp_path):
    grid = tmp_path / "grid.toml"
    epochs = "pretrain-epochs = 1500\nrecord-epochs = 1\n"
    grid.write_text(f'sparsity = [0.5]\ncriterion = ["magnitude"]\nseeds = 2\n{epochs}')
    job = submit(slurm, "sweep.sbatch", grid, *SMALL, "--run", tmp_path, to=["--array=1-2"])
    output = slurm.home / f"slurm-{job}_1.out"
    slurm.wait_until(lambda: output.exists() and " steps" in output.read_text(), job)
    slurm("scancel", "--batch", "--signal=USR1", f"{job}_1")
    slurm.wait_until(lambda: "Restarts=1" in slurm("scontrol", "show", "job", f"{job}_1"), job, hurry=False)
    assert "Restarts=0" in slurm("scontrol", "show", "job", f"{job}_2")
    for task in (f"{job}_1", f"{job}_2"):
        slurm.ended(task)
    assert len((tmp_path / "sweep/results.jsonl").read_text().splitlines()) == 2


def test_a_job_whose_node_died_goes_on(slurm, quiet, tmp_path):
    job = submit(slurm, "pretrain.sbatch", *LONG, "--checkpoint-every", "500steps", "--run", tmp_path)
    at_work(slurm, job)
    slurm.wait_until((tmp_path / "pretrained.safetensors.progress").exists, job)
    # The daemon first, then all that it started, as when the power fails.
    daemon = int((slurm.home / "slurmd.pid").read_text())
    for process in [
        daemon,
        *(int(pid) for pid in slurm("pgrep", "-f", rf"slurmstepd: \[{job}\.batch\]|{tmp_path}").split()),
    ]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    slurm.wait_until(lambda: slurm.state(job) == "PENDING", job, hurry=False)
    slurm("slurmd", "-c")
    slurm.ended(job)
    assert events(tmp_path) == [("finished", "1")]
    assert (tmp_path / "pretrained.safetensors").read_bytes() == quiet
