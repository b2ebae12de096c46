"""Train a ResNet20 on 32×32 images in minutes of one core, and save its state dict.

    python train_resnet20.py imagefolder:cifar10-jpeg resnet20.pt --amp bf16

`pretrain --dataset … --model resnet20 --init-from resnet20.pt --epochs 0` makes a checkpoint of it. Small images come
first (16×16, 24×24, then 32×32), which saves half of the time and costs little accuracy. ``--amp bf16`` computes in
bfloat16, faster where the processor multiplies that. The training split is that of `pretrain --seed SEED`, so that
neither validation nor test images are seen.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.nn.functional import cross_entropy, interpolate

from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.data.splits import Split
from causalprune.models.networks import ResNet20

SIZES = (16,) * 4 + (24,) * 5 + (32,) * 8
"""Height and width of the images of each epoch."""


def pixels(split: Split) -> torch.Tensor:
    """(N, C, H, W) uint8 images of a split in memory or in files."""
    return split.inputs if isinstance(split.inputs, torch.Tensor) else split.inputs.read(torch.arange(len(split)))


def crop_and_flip(images: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) images, each moved by up to 4 pixels, and half of them mirrored."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    top, left = torch.randint(9, (2, count, 1))
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns) + left
    rows = torch.arange(height) + top
    return padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def main() -> None:
    """Train, print a line for each epoch, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--amp", choices=("none", "bf16"), default="none")
    parser.add_argument("--init", help="a state dict to go on from")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="height and width of each epoch's images")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    data = load_data(DataSpec(arguments.dataset, split_seed=arguments.seed))
    splits = {
        name: (data.normalization(pixels(split)), split.targets)
        for name, split in (("train", data.train), ("validation", data.validation))
    }
    images, labels = splits["train"]
    model = ResNet20(data.input_shape, data.num_outputs).to(memory_format=torch.channels_last)
    if arguments.init:
        model.load_state_dict(torch.load(arguments.init, weights_only=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(images) // arguments.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.lr, total_steps=steps * len(arguments.sizes))
    mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.amp == "bf16")
    for epoch, size in enumerate(arguments.sizes):
        model.train()
        begun, total = time.process_time(), 0.0
        for batch in torch.randperm(len(images))[: steps * arguments.batch_size].split(arguments.batch_size):
            inputs = crop_and_flip(images[batch])
            if size < inputs.shape[-1]:
                inputs = interpolate(inputs, size=(size, size), mode="area")
            with mixed:
                outputs = model(inputs.contiguous(memory_format=torch.channels_last))
            loss = cross_entropy(outputs.float(), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        model.eval()
        with torch.no_grad(), mixed:
            inputs, targets = splits["validation"]
            parts = zip(inputs.split(500), targets.split(500), strict=True)
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in parts)
        print(
            f"epoch {epoch + 1}: size {size}, loss {total / steps:.3f}, validation {right / len(targets):.2%}, "
            f"{time.process_time() - begun:.0f} CPU s",
            flush=True,
        )
    torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, arguments.output)


if __name__ == "__main__":
    main()
