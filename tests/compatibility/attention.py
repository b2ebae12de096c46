"""The network of ``files/attention``, and how an earlier version recorded and pruned it: ``main`` writes the folder."""

import sys

import torch
from torch import nn

import causalprune as cp


def network():
    encoder = nn.TransformerEncoderLayer(4, 1, 8, dropout=0.0, batch_first=True)
    return nn.Sequential(encoder, nn.Flatten(), nn.Linear(12, 3))


def main(folder):
    torch.manual_seed(0)
    model = network()
    x, y = torch.randn(32, 3, 4), torch.randint(0, 3, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss():
        return nn.functional.cross_entropy(model(x), y)

    with cp.Recorder(model, optimizer, f"{folder}/trajectory.zarr") as recorder:
        for _ in range(20):
            value = loss()
            optimizer.zero_grad()
            value.backward()
            recorder.step(value, loss)
    torch.save(model.state_dict(), f"{folder}/weights.pt")
    cp.fit(f"{folder}/trajectory.zarr")
    cp.prune(model, f"{folder}/trajectory.zarr", sparsity=0.6).save(f"{folder}/mask.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
