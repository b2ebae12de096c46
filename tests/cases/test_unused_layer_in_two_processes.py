"""A layer that ``forward`` doesn't use trains in several processes as it does in one."""

import os
import subprocess
import sys

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer, self.unused = nn.Linear(64, classes), nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x.flatten(1))

def net(input_shape, num_outputs):
    return Net(num_outputs)
"""
COMMAND = ["pretrain", "--model", "unused_layer:net", "--epochs", "1", "-q"]


def test_one_process_trains_it(causalprune, folder):
    (folder / "unused_layer.py").write_text(NETWORK)
    assert causalprune(*COMMAND).code == 0


def test_two_processes_train_it_or_refuse_it_in_a_line(folder):
    (folder / "unused_layer.py").write_text(NETWORK)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "causalprune"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launcher, *COMMAND], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    refused = "exitcode  : 2" in done.stderr and "unused" in done.stderr
    assert done.returncode == 0 or refused, done.stderr[-2000:]
