"""The network in a run's last checkpoint."""

import torch

from causalprune.checkpoint import load_checkpoint
from causalprune.stages.loading import load_network


def final_network(run):
    """In evaluation mode, on the CPU."""
    path = run / "final.safetensors"
    model, _ = load_network(load_checkpoint(path), path, torch.device("cpu"), trust_code=False)
    return model.eval()
