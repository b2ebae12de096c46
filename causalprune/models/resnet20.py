"""ResNet-20 for CIFAR (He et al., 2016), with parameter-free shortcuts (their option A)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from causalprune.models.registry import image_shape


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
    """Three stages of three blocks with 16, 32 and 64 channels.

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
