"""LeNet as in the paper: two 5×5 convolutions with 20 and 50 filters, each followed by pooling, then 500 neurons."""

from __future__ import annotations

import torch
from torch import nn

from causalprune.models.registry import image_shape

SMALLEST_UNPADDED = 16
"""Below this height or width, the convolutions are padded by 2, so that they keep the size of their input."""


class LeNet(nn.Module):
    """Conv 5×5×20, pool 2, conv 5×5×50, pool 2, linear 500, linear classes; ReLU; 656,500 weights on 3×32×32 and 10.

    Args:
        input_shape: (channels, height, width), each side at least 4.
        num_outputs: Number of classes.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        channels, height, width = image_shape("lenet", input_shape, smallest=4)
        padding = 2 if min(height, width) < SMALLEST_UNPADDED else 0
        self.conv1 = nn.Conv2d(channels, 20, 5, padding=padding)
        self.conv2 = nn.Conv2d(20, 50, 5, padding=padding)
        self.pool = nn.MaxPool2d(2)
        sides = []
        for side in (height, width):
            for _ in range(2):
                side = (side - 4 + 2 * padding) // 2
            sides.append(side)
        self.fc1 = nn.Linear(50 * sides[0] * sides[1], 500)
        self.fc2 = nn.Linear(500, num_outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, classes)."""
        hidden = self.pool(torch.relu(self.conv1(images)))
        hidden = self.pool(torch.relu(self.conv2(hidden)))
        outputs: torch.Tensor = self.fc2(torch.relu(self.fc1(hidden.flatten(1))))
        return outputs
