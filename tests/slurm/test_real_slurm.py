"""The same scripts under a real SLURM of one node, where Debian's slurm-wlm is installed and this process is root."""

import os
import shutil
import socket
import subprocess
import sys
import time
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
KillWait=5
OverTimeLimit=0
NodeName={host} CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def end(pid_file):
    """End the daemon that wrote this file; the test started it."""
    if pid_file.exists():
        os.kill(int(pid_file.read_text()), 15)


@pytest.fixture
def slurm(tmp_path):
    missing = [d for d in DAEMONS if shutil.which(d, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.geteuid() != 0:
        pytest.skip("needs root and Debian's slurm-wlm")
    home = Path("/tmp") / f"one-node-{os.getpid()}"
    for name in ("state", "spool"):
        (home / name).mkdir(parents=True)
    (home / "key").write_bytes(os.urandom(1024))
    (home / "key").chmod(0o600)
    names = {"home": home, "host": socket.gethostname(), "port": free_port(), "port_of_node": free_port()}
    (home / "slurm.conf").write_text(CONFIGURATION.format(**names))
    environment = {**os.environ, "SLURM_CONF": str(home / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    options = [f"--{n}={home}/{f}" for n, f in (("key-file", "key"), ("pid-file", "munged.pid"), ("log-file", "log"))]
    options += [f"--socket={home}/munge.socket", f"--seed-file={home}/seed", "--force"]
    try:
        for command in (["munged", *options], ["slurmctld", "-c"], ["slurmd", "-c"]):
            subprocess.run(command, env=environment, check=True, capture_output=True)
        yield environment
    finally:
        for daemon in reversed(DAEMONS):
            end(home / f"{daemon}.pid")
        time.sleep(1)
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_signalled_before_its_end_is_queued_again_by_slurm(slurm, tmp_path, scripts):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "causalprune").write_text(f'#!/bin/sh\nexec {sys.executable} -m causalprune "$@"\n')
    (programs / "causalprune").chmod(0o755)
    environment = {**slurm, "PATH": f"{programs}:{slurm['PATH']}", "CAUSALPRUNE_SLURM": str(scripts)}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = tmp_path / "run"
    # A minute is SLURM's shortest limit, and the signal comes up to a minute early.
    options = ["--parsable", "--cpus-per-task=1", "--mem=0", "--time=1", "--signal=B:USR1@30"]
    stage = ["--epochs", "20000", "--checkpoint-every", "never", "--run", str(run)]

    def slurm_says(*command):
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    # This node has no GPU to ask for.
    script = tmp_path / "pretrain.sbatch"
    script.write_text((scripts / "pretrain.sbatch").read_text().replace("#SBATCH --gpus=1\n", ""))
    number = slurm_says("sbatch", *options, str(script), *stage)
    deadline = time.monotonic() + 400
    log = run / "log.jsonl"
    while not log.exists() or log.read_text().count("interrupted") < 2:
        assert time.monotonic() < deadline, slurm_says("scontrol", "show", "job", number)
        time.sleep(1)
        if "BeginTime" in slurm_says("squeue", "--noheader", "--format=%r"):
            # SLURM lets a job that was queued again wait for two minutes.
            slurm_says("scontrol", "update", f"JobId={number}", "StartTime=now")
    slurm_says("scancel", number)
    assert '"restart_count": "1"' in log.read_text()
