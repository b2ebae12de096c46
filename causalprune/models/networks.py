"""The networks that causalprune defines itself: LeNet, multilayer perceptrons, AlexNet and ResNet-20."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from causalprune.models.registry import image_shape

SMALLEST_UNPADDED = 16
"""Below this height or width, the convolutions are padded by 2, so that they keep the size of their input."""

DEFAULT_HIDDEN = (300, 100)
"""Those of LeNet-300-100."""


class LeNet(nn.Module):
    """LeNet as in the paper.

    Conv 5×5×20, pool 2, conv 5×5×50, pool 2, linear 500, linear classes; ReLU; 656,500 weights on 3×32×32 and 10.

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


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        input_shape: Shape of one sample; it is flattened.
        num_outputs: Number of classes, or 1.
        hidden: Sizes of the hidden layers.
        bias: Whether the layers have biases.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        hidden: tuple[int, ...] = DEFAULT_HIDDEN,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        sizes = (math.prod(input_shape), *hidden, num_outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairwise(sizes))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (N, …) to (N, outputs)."""
        hidden = inputs.flatten(1)
        for layer in self.layers[:-1]:
            hidden = torch.relu(layer(hidden))
        outputs: torch.Tensor = self.layers[-1](hidden)
        return outputs


def mlpnet(input_shape: tuple[int, ...], num_outputs: int) -> MLP:
    """MLPNet of the pruning literature: 784-40-20-10 on MNIST, without biases."""
    return MLP(input_shape, num_outputs, (40, 20), bias=False)


class AlexNet(nn.Module):
    """AlexNet for 32×32 images.

    Five 3×3 convolutions (64, 192, 384, 256, 256) with three poolings, then 1024 and 1024 neurons with dropout.

    The layers are those of Krizhevsky et al. (2012), with stride and kernels for small images.

    Args:
        input_shape: (channels, height, width), each side at least 16.
        num_outputs: Number of classes.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        channels, _, _ = image_shape("alexnet", input_shape, smallest=16)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 192, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(256 * 4, 1024),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(1024, 1024),
            nn.ReLU(),
            nn.Linear(1024, num_outputs),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, classes)."""
        outputs: torch.Tensor = self.classifier(self.features(images).flatten(1))
        return outputs


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self._stride = stride
        self._added = channels - channels_in

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.bn1(self.conv1(images)))
        hidden = self.bn2(self.conv2(hidden))
        shortcut = images[:, :, :: self._stride, :: self._stride]
        if self._added:
            before = self._added // 2
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, before, self._added - before))
        return torch.relu(hidden + shortcut)


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR (He et al., 2016), with parameter-free shortcuts (their option A).

    Three stages of three blocks have 16, 32 and 64 channels.

    Args:
        input_shape: (channels, height, width).
        num_outputs: Number of classes.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        channels, _, _ = image_shape("resnet20", input_shape)
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks = []
        channels_in = 16
        for stage, channels in enumerate((16, 32, 64)):
            for number in range(3):
                blocks.append(_Block(channels_in, channels, 2 if stage and not number else 1))
                channels_in = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, classes)."""
        hidden = self.blocks(torch.relu(self.bn1(self.conv1(images))))
        outputs: torch.Tensor = self.fc(hidden.mean((2, 3)))
        return outputs
