import os
import shutil
import subprocess

import pytest

from causalprune.base.compute.launchers import first_host, own_cores, read_launcher, set_meeting_point
from causalprune.base.errors import UsageError

NAMES = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in (*NAMES, *(n for n in os.environ if n.startswith("SLURM_"))):
        # Set first, so that what the tests set is removed afterwards.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("sharing", "own"), [(None, 6), ("1", 6), ("2", 3), ("4", 1), ("9", 1)])
def test_processes_of_one_host_share_its_cores(monkeypatch, sharing, own):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(10, 16)))
    if sharing is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", sharing)
    assert own_cores() == own


def test_a_number_of_processes_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="LOCAL_WORLD_SIZE"):
        own_cores()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, (1, 2, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2, 0)),
        ({"RANK": " 1 ", "WORLD_SIZE": "2", "LOCAL_RANK": " "}, (1, 2, 0)),
        ({"RANK": "3"}, (0, 1, 0)),
        ({"RANK": "0", "WORLD_SIZE": ""}, (0, 1, 0)),
        ({"RANK": "", "WORLD_SIZE": "2"}, (0, 1, 0)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, (5, 8, 1)),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, (0, 1, 0)),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": ""}, (0, 1, 0)),
    ],
)
def test_what_the_environment_says(monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert read_launcher() == expected


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE: expected a whole number of at least 1, found 'two'"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE: expected a whole number of at least 1, found '0'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK: expected a whole number from 0 to 1, found '2'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK: expected a whole number from 0 to 1, found '-1'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "x"}, "LOCAL_RANK: expected a whole number of at least 0"),
        ({"TORCHELASTIC_RUN_ID": "none"}, "WORLD_SIZE: expected a whole number of at least 1, found nothing"),
        ({"SLURM_STEP_NUM_TASKS": "2(x2)"}, "SLURM_STEP_NUM_TASKS: expected a whole number"),
        (
            {"SLURM_STEP_NUM_TASKS": "2"},
            "SLURM_PROCID: expected a whole number from 0 to 1, found nothing; start with torchrun or srun, or unset "
            "SLURM_STEP_NUM_TASKS to run alone",
        ),
    ],
)
def test_a_variable_that_says_nothing_is_named(monkeypatch, environment, says):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        read_launcher()
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[01-04,07],m2", "n01"),
        ("n[7],m2", "n7"),
        ("rack[2-3]node[05-06]", "rack2node05"),
        ("gpu-a-[003,005-009]", "gpu-a-003"),
    ],
)
def test_the_first_host_of_a_list(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.skipif(not shutil.which("scontrol"), reason="no SLURM")
@pytest.mark.parametrize("nodes", ["n1,n2", "n[01-04,07],m2", "rack[2-3]node[05-06]", "gpu-a-[003,005-009]"])
def test_the_first_host_is_the_one_that_slurm_says(tmp_path, nodes):
    (tmp_path / "slurm.conf").write_text("ClusterName=x\nSlurmctldHost=localhost\n")
    environment = {**os.environ, "SLURM_CONF": str(tmp_path / "slurm.conf")}
    command = ["scontrol", "show", "hostnames", nodes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert first_host(nodes) == done.stdout.split()[0]


def test_the_launcher_says_where_to_meet(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "somewhere")
    monkeypatch.setenv("MASTER_PORT", "29500")
    set_meeting_point()
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("somewhere", "29500")


def test_srun_meets_at_its_first_host(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost,n2")
    monkeypatch.setenv("SLURM_JOB_ID", "41234567")
    set_meeting_point()
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("localhost", "34567")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "MASTER_ADDR: expected the host of the first process, found nothing"),
        ({"MASTER_ADDR": "localhost"}, "MASTER_PORT: expected a whole number from 1 to 65535, found nothing"),
        ({"MASTER_ADDR": "localhost", "MASTER_PORT": "70000"}, "MASTER_PORT: expected a whole number from 1 to 65535"),
        ({"SLURM_STEP_NODELIST": "no.such.host.invalid"}, "SLURM_STEP_NODELIST=no.such.host.invalid: expected hosts"),
        ({"SLURM_STEP_NODELIST": "localhost"}, "MASTER_PORT: expected a whole number"),
        ({"SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "x"}, "SLURM_JOB_ID: expected a whole number"),
    ],
)
def test_what_is_missing_to_meet_is_named(monkeypatch, environment, says):
    monkeypatch.setenv("MASTER_ADDR", "")
    monkeypatch.setenv("MASTER_PORT", "")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        set_meeting_point()
    assert str(caught.value).startswith(says)
