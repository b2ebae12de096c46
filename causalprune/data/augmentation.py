"""Random crop and horizontal flip of a batch of images in memory, without a loop over images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from causalprune.data.names import Augmentation


@dataclass(frozen=True, eq=False)
class CropFlip:
    """Random choices for a batch of B images of H × W.

    An image is padded with zeros (raw value 0) by ``padding`` on every side, a window of H × W is cut from it at
    (top, left), and it is mirrored left to right where ``flip`` holds; as in He et al., arXiv 1512.03385, section 4.2.

    Attributes:
        padding: (vertical, horizontal) in pixels.
        top: (B,) int64 in [0, 2·vertical].
        left: (B,) int64 in [0, 2·horizontal].
        flip: (B,) bool.
    """

    padding: tuple[int, int]
    top: torch.Tensor
    left: torch.Tensor
    flip: torch.Tensor

    @classmethod
    def draw(cls, kind: Augmentation, count: int, size: tuple[int, int], generator: torch.Generator) -> CropFlip:
        """Draw on the CPU, so that every device sees the same choices.

        The padding is an eighth of the side, rounded up: 4 pixels at 28 and 32, 8 at 64.

        Args:
            kind: ``crop`` or ``crop-flip``.
            count: B.
            size: (H, W).
            generator: A CPU generator; advanced.
        """
        vertical, horizontal = ((side + 7) // 8 for side in size)
        top = torch.randint(0, 2 * vertical + 1, (count,), generator=generator)
        left = torch.randint(0, 2 * horizontal + 1, (count,), generator=generator)
        flip = torch.rand(count, generator=generator) < (0.5 if kind == "crop-flip" else 0.0)
        return cls((vertical, horizontal), top, left, flip)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Apply to (B, C, H, W) images of any dtype on any device; the dtype is kept."""
        count, channels, height, width = images.shape
        vertical, horizontal = self.padding
        padded = functional.pad(images, (horizontal, horizontal, vertical, vertical))
        rows = self.top[:, None] + torch.arange(height)
        columns = self.left[:, None] + torch.arange(width)
        columns = torch.where(self.flip[:, None], columns.flip(1), columns)
        # One gather over flattened pixels is the fastest of the vectorised forms, on CPU and GPU.
        pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        pixels = pixels.to(images.device, non_blocking=True).view(count, 1, -1).expand(-1, channels, -1)
        return padded.view(count, channels, -1).gather(2, pixels).view(images.shape)
