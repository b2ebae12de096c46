"""AlexNet for 32×32 images."""

from __future__ import annotations

import torch
from torch import nn

from causalprune.models.registry import image_shape


class AlexNet(nn.Module):
    """Five 3×3 convolutions (64, 192, 384, 256, 256) with three poolings, then 1024 and 1024 neurons with dropout.

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
