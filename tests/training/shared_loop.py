"""A loop over minibatches that one process has for itself, or two share; run as a process of its own for the latter."""

import sys

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from causalprune.base.errors import UsageError
from causalprune.training.ranks import Ranks
from causalprune.training.recorder import Recorder


def minibatches():
    return [torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in range(5)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()


def train(path, model, call, batches, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Recorder(model, optimizer, path, codec="exact", **options) as recorder:
        for batch in batches:
            loss = call(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda batch=batch: call(batch).square().mean())
    return optimizer


def main(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = DistributedDataParallel(network(), broadcast_buffers=False)
    path = f"{folder}/shared.zarr"
    batches = [batch[4 * rank : 4 * rank + 4] for batch in minibatches()]
    optimizer = train(path, model, model, batches)
    again = DistributedDataParallel(network(), broadcast_buffers=False)
    train(f"{folder}/by-rank.zarr", again, again, batches, columns_by_rank=True)
    # Nor are they connected for what is refused.
    Ranks.partners = None
    for by_rank in (False, True):
        try:
            # The store is there already: neither process waits for the other.
            Recorder(model, optimizer, path, columns_by_rank=by_rank)
        except UsageError as error:
            print(error)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
