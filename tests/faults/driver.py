"""Runs commands in children of a process that has loaded everything, a tenth of a second each instead of seconds.

It says ``"ready"`` first. A line of JSON on stdin is ``{"args": […], "fault": "EIO", "fail_at": 7}``; the answer on
stdout is ``{"pid": …}`` at once and ``{"code": …, "changes": […], "output": …, "error": …}`` when the child has ended.
A child that was killed has the negative number of the signal as its code. With ``"watch": directory`` the changes are
those below it that the faulty disk doesn't see. With ``"in_storage": true`` it is object storage that fails, not the
disk. With ``"folder": directory`` the command runs in that folder.
"""

import gc
import json
import os
import resource
import signal
import sys
import tempfile
from contextlib import nullcontext, redirect_stdout

import typer
from causalprune_cli import main as command_line
from faulty_disk import FaultyDisk
from faulty_storage import FaultyStorage
from stage_cases import BEFORE, command_of

from causalprune.base import files

# Made of its options once, not by every child.
command_line.app = typer.main.get_command(command_line.app)


def child(request, directory):
    """Run the command; never returns."""
    limit(request.get("memory"), request.get("seconds"))
    os.environ.update(request.get("environment", {}))
    os.chdir(request.get("folder", "."))
    in_storage = request.get("in_storage")
    where = (FaultyStorage if in_storage else FaultyDisk)(request.get("fault", ""), request.get("fail_at", 0))
    if in_storage:
        where.install()
    if "watch" in request:
        where.watch(request["watch"])
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["causalprune", *request["args"]]
    with nullcontext() if in_storage else files.use(where):
        code = command_line.main()
    sys.stdout.flush()
    sys.stderr.flush()
    with open(f"{directory}/changes", "w") as file:  # noqa: PTH123
        json.dump(where.past_it if "watch" in request else where.changes, file)
    os._exit(code)


def limit(memory, seconds):
    """Bound the bytes that this process may still allocate, and its time."""
    if memory:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            pages = int(file.read().split()[0])
        size = pages * os.sysconf("SC_PAGE_SIZE") + memory
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    if seconds:
        signal.alarm(seconds)


def answer(value):
    print(json.dumps(value), flush=True)


# Not as an exception of Python's, which would unwind a child through what follows here.
signal.signal(signal.SIGINT, signal.SIG_DFL)
with tempfile.TemporaryDirectory() as run, redirect_stdout(None):
    # What a stage imports when it first runs stays imported.
    for stage in BEFORE:
        if stage != "run":
            command_line.main([*command_of(stage, run), "--quiet"])
# Nor is it copied, page by page, for the collector's sake.
gc.freeze()
answer("ready")
with tempfile.TemporaryDirectory() as directory:
    for line in sys.stdin:
        changes = f"{directory}/changes"
        if os.path.exists(changes):  # noqa: PTH110
            os.unlink(changes)  # noqa: PTH108
        # A command may be killed before it says anything.
        for name in ("out", "err"):
            with open(f"{directory}/{name}", "w"):  # noqa: PTH123
                pass
        pid = os.fork()
        if pid == 0:
            child(json.loads(line), directory)
        answer({"pid": pid})
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        result = {"code": code, "changes": None}
        if os.path.exists(changes):  # noqa: PTH110
            with open(changes) as file:  # noqa: PTH123
                result["changes"] = json.load(file)
        for name, key in (("out", "output"), ("err", "error")):
            with open(f"{directory}/{name}", errors="surrogateescape") as file:  # noqa: PTH123
                result[key] = file.read()
        answer(result)
