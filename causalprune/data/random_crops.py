"""Random resized crop of image files: what ImageNet's literature trains on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from causalprune.data.names import Augmentation

if TYPE_CHECKING:
    from PIL.Image import Image

AREA = (0.08, 1.0)
"""Range of the crop's share of the image's area (Szegedy et al., arXiv 1409.4842)."""

RATIO = (3 / 4, 4 / 3)
"""Range of the crop's width/height, uniform in its logarithm."""

TRIES = 10


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
        """The crop (left, top, right, bottom) of an image of ``width`` × ``height`` at ``place`` of the batch.

        The first try that fits into the image; without one, the largest centred crop within :data:`RATIO`.
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
