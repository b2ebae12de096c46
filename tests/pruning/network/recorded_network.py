"""Record a loop of one's own."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from causalprune import Recorder


@dataclass
class Recorded:
    """A network as its recording ended, and what it was trained on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    store: Path
    inputs: torch.Tensor
    targets: torch.Tensor

    def loss(self):
        return nn.functional.cross_entropy(self.model(self.inputs), self.targets)

    def train(self, optimizer, steps=5):
        """Train on, without a recording."""
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss().backward()
            optimizer.step()


def record(model, store, inputs, steps=12, **options):
    targets = torch.arange(len(inputs)) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recorded = Recorded(model, optimizer, store, inputs, targets)
    with Recorder(model, optimizer, store, **options) as recorder:
        for _ in range(steps):
            loss = recorded.loss()
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, recorded.loss)
    return recorded
