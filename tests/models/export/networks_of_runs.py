"""The network in a run's last checkpoint."""

import torch

from causalprune.commands._network import load_network
from causalprune.models.checkpoint import load_checkpoint


def final_network(run):
    """In evaluation mode, on the CPU."""
    path = run / "final.safetensors"
    model, _ = load_network(load_checkpoint(path), path, torch.device("cpu"), trust_code=False)
    return model.eval()
