"""Random crops and horizontal flips, drawn per batch, so that it doesn't matter which process decodes which part.

:class:`CropFlip`, for images in memory, is the usual augmentation for CIFAR; :class:`RandomCrops`, for image files, is
the usual one for ImageNet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from causalprune.data.names import Augmentation

if TYPE_CHECKING:
    from PIL.Image import Image

AREA = (0.08, 1.0)
"""Range of the crop's share of the image's area (Szegedy et al., arXiv 1409.4842)."""

RATIO = (3 / 4, 4 / 3)
"""Range of the crop's width/height, uniform in its logarithm."""

TRIES = 10


@dataclass(frozen=True, eq=False)
class CropFlip:
    """Random choices for a batch of B images of H × W.

    Each image is padded with zeros (raw value 0) by ``padding`` on every side, a window of H × W is cut out at
    (top, left), and the result is mirrored left to right where ``flip`` is True; see He et al., arXiv 1512.03385,
    section 4.2.

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

        The padding is an eighth of the side, rounded up: 4 pixels for 28 and 32, 8 for 64.

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

    def __getitem__(self, part: slice) -> CropFlip:
        """The choices for some of the images."""
        return CropFlip(self.padding, self.top[part], self.left[part], self.flip[part])

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Apply to (B, C, H, W) images of any dtype on any device; the dtype is kept."""
        count, channels, height, width = images.shape
        vertical, horizontal = self.padding
        padded = functional.pad(images, (horizontal, horizontal, vertical, vertical))
        # Three numbers an image go to the device; the index of each pixel is made there.
        top, left, flip = to_device(torch.stack([self.top, self.left, self.flip.long()]), images.device)
        across = torch.arange(width, device=images.device)
        columns = left[:, None] + torch.where(flip[:, None] == 1, across.flip(0), across)
        rows = top[:, None] + torch.arange(height, device=images.device)
        # One gather over flattened pixels is the fastest vectorized form, on CPU and GPU.
        pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        pixels = pixels.view(count, 1, -1).expand(-1, channels, -1)
        return padded.view(count, channels, -1).gather(2, pixels).view(images.shape)


@dataclass(frozen=True, eq=False)
class RandomCrops:
    """Random choices for a batch of B image files.

    Attributes:
        size: (height, width) of the result.
        uniform: (B, TRIES, 4) in [0, 1): area, ratio, left and top of each try.
        flip: (B,) bool: mirror left to right.
    """

    size: tuple[int, int]
    uniform: torch.Tensor
    flip: torch.Tensor

    @classmethod
    def draw(cls, kind: Augmentation, count: int, size: tuple[int, int], generator: torch.Generator) -> RandomCrops:
        """Draw for ``count`` images; ``kind`` is ``crop`` or ``crop-flip``; ``generator`` is advanced."""
        uniform = torch.rand(count, TRIES, 4, generator=generator, dtype=torch.float64)
        flip = torch.rand(count, generator=generator) < (0.5 if kind == "crop-flip" else 0.0)
        return cls(size, uniform, flip)

    def box(self, place: int, width: int, height: int) -> tuple[int, int, int, int]:
        """The crop (left, top, right, bottom) of an image of ``width`` × ``height`` at position ``place`` of the batch.

        It is the first try that fits into the image, or else the largest centered crop within :data:`RATIO`.
        """
        for area, ratio, left, top in self.uniform[place].tolist():
            pixels = width * height * (AREA[0] + area * (AREA[1] - AREA[0]))
            aspect = math.exp(math.log(RATIO[0]) + ratio * (math.log(RATIO[1]) - math.log(RATIO[0])))
            w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
            if 0 < w <= width and 0 < h <= height:
                x, y = int(left * (width - w + 1)), int(top * (height - h + 1))
                return x, y, x + w, y + h
        w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
        x, y = (width - w) // 2, (height - h) // 2
        return x, y, x + w, y + h

    def __call__(self, image: Image, place: int) -> Image:
        """Cut, resize (bilinear, antialiased) and mirror one image."""
        from PIL.Image import Resampling, Transpose

        height, width = self.size
        image = image.crop(self.box(place, *image.size)).resize((width, height), Resampling.BILINEAR)
        return image.transpose(Transpose.FLIP_LEFT_RIGHT) if self.flip[place] else image


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy of CPU values on a device, without waiting for it: from pageable memory, CUDA waits first."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
