"""Runs ``python -m causalprune`` in children of a process that has imported the libraries, but nothing of causalprune.

Most of the time of a short command is the import of PyTorch. A line of JSON on stdin is ``{"folder": …, "package": …,
"arguments": […], "output": …}``; the answer on stdout is the exit code. ``output`` gets stdout, ``output.err`` stderr.
"""

import json
import os
import runpy
import sys

import numpy  # noqa: F401
import rich.console  # noqa: F401
import safetensors.torch  # noqa: F401
import scipy.sparse  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch  # noqa: F401
import typer  # noqa: F401


def child(request):
    """Run the command; never returns."""
    for descriptor, name in ((1, request["output"]), (2, f"{request['output']}.err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(request["folder"])
    # As `python -m` with this PYTHONPATH.
    sys.path[:1] = [request["folder"], request["package"]]
    sys.argv[1:] = request["arguments"]
    sys.dont_write_bytecode = False
    code = 1
    try:
        runpy.run_module("causalprune", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


for line in sys.stdin:
    assert "causalprune" not in sys.modules
    pid = os.fork()
    if pid == 0:
        child(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
