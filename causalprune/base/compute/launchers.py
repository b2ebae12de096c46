"""What torchrun and srun say in the environment: which process this is, and where the processes meet.

An empty variable counts as one that isn't set. One that is needed and missing, or that is no number, is named.
"""

from __future__ import annotations

import os
import re
import socket

from causalprune.base.errors import UsageError

_START = "start with torchrun or srun, or unset {} to run alone"


def read_launcher() -> tuple[int, int, int]:
    """The number of this process, how many there are, and its number on this host; (0, 1, 0) without a launcher.

    Raises:
        UsageError: A variable is missing, or isn't a number that it can be.
    """
    if _value("TORCHELASTIC_RUN_ID") or (_value("RANK") and _value("WORLD_SIZE")):
        rank, count, local = "RANK", "WORLD_SIZE", "LOCAL_RANK"
    elif _number("SLURM_STEP_NUM_TASKS", 1, default=1) > 1:
        rank, count, local = "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"
    else:
        return 0, 1, 0
    total = _number(count, 1, because_of=count)
    return _number(rank, 0, total - 1, because_of=count), total, _number(local, 0, default=0)


def own_cores() -> int:
    """Cores for this process: those it may use, divided by the processes that torchrun started on this host.

    Raises:
        UsageError: LOCAL_WORLD_SIZE isn't a number.
    """
    # srun gives each task cores of its own, where it is asked to give any.
    sharing = _number("LOCAL_WORLD_SIZE", 1, default=1, because_of="LOCAL_WORLD_SIZE")
    return max(1, len(os.sched_getaffinity(0)) // sharing)


def set_meeting_point() -> None:
    """Set MASTER_ADDR and MASTER_PORT, unless the launcher did: the host of srun's first task, a port of the job's.

    Raises:
        UsageError: They can't be derived, or lead nowhere.
    """
    if not _value("MASTER_ADDR"):
        nodes = _value("SLURM_STEP_NODELIST")
        if not nodes:
            raise UsageError(
                "MASTER_ADDR", expected="the host of the first process", found="nothing", remedy=_START.format("RANK")
            )
        host = first_host(nodes)
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            raise UsageError(
                f"SLURM_STEP_NODELIST={nodes}",
                expected="hosts that this one can find",
                found=f"{host}: {error.strerror or error}",
                remedy="set MASTER_ADDR, or unset SLURM_STEP_NUM_TASKS to run alone",
            ) from error
        os.environ["MASTER_ADDR"] = host
    if not _value("MASTER_PORT"):
        slurm = _value("SLURM_STEP_NODELIST") and _value("SLURM_JOB_ID")
        os.environ["MASTER_PORT"] = str(20000 + _number("SLURM_JOB_ID", 0) % 20000) if slurm else ""
    _number("MASTER_PORT", 1, 65535, because_of="RANK")


def first_host(nodes: str) -> str:
    """The first host of a list of SLURM's: ``n01`` of ``n[01-04,07],m2``."""
    # The comma that ends the first item isn't within brackets.
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes.strip())
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0] if first else "")


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()


def _number(name: str, low: int, high: int | None = None, *, default: int | None = None, because_of: str = "") -> int:
    """A variable as a whole number from ``low`` to ``high``; ``because_of`` is the variable that makes it needed."""
    text = _value(name)
    if not text and default is not None:
        return default
    if re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) and (high is None or int(text) <= high):
        return int(text)
    expected = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    raise UsageError(
        name, expected=expected, found=repr(text) if text else "nothing", remedy=_START.format(because_of or name)
    )
