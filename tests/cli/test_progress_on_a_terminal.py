"""A run in a real pseudo-terminal: one line at a time, of its own width, that says which step it is at."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios

import pytest
from rich.cells import cell_len

RUN = ["run", "--iterations", "2", "--sparsity", "0.5", "--model", "mlp", "--hidden", "8", "--dataset", "breast-cancer"]
RUN += ["--pretrain-epochs", "2", "--train-epochs", "1", "--record-epochs", "2", "--posttrain-epochs", "1"]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_a_terminal(arguments, cwd, width):
    """What a process wrote to a terminal of this width; stdout goes there as well."""
    outer, inner = os.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "causalprune", *arguments],
        cwd=cwd,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env={**environment, "TERM": "xterm-256color"},
    )
    os.close(inner)
    said = b""
    while True:
        try:
            part = os.read(outer, 65536)
        except OSError:
            # The other end is closed.
            break
        if not part:
            break
        said += part
    os.close(outer)
    assert process.wait() == 0, said.decode()
    return said.decode()


@pytest.mark.parametrize("width", [80, 120])
def test_a_run_has_one_bar(tmp_path, width):
    said = in_a_terminal(RUN, tmp_path, width)
    drawn = [ESCAPE.sub("", line).rstrip() for line in re.split(r"[\r\n]+", said)]
    assert max(map(cell_len, drawn)) <= width
    assert not [line for line in drawn if "…" in line]
    bars = [line.lstrip("━╸╺ ") for line in drawn if re.search(r" · \d+ %", line)]
    shares = [int(re.search(r" · (\d+) %", line)[1]) for line in bars]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    # Every stage is one of one line; a bar that is drawn four times a second doesn't see all of them.
    names = {line.partition(" %")[0].rpartition(" · ")[0] for line in bars}
    stages = {f"prune {n}/2 · {stage}" for n in (1, 2) for stage in ("train", "record", "fit-gamma", "apply-mask")}
    assert names <= stages | {"pretrain", "posttrain", "evaluate", "run"}
    assert bars[-1].startswith("run · 100 % · ")
    # It is drawn over itself, and left once.
    assert said.count("run · 100 %") == 1
    text = "\n".join(drawn)
    assert "run/final.safetensors (its mask: final.mask.safetensors)" in text
    assert "causalprune export" in text
