"""Image files as batches of uint8 tensors: decoding, and resizing to one size."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch.utils.data import get_worker_info

from causalprune.base.errors import CorruptError, DataError, StorageError

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

SHORTER_SIDE = 8 / 7
"""An image of another size is first resized to 8/7 of the wanted size (256 for 224, as is usual for ImageNet)."""

THREADED_PIXELS = 96 * 96
"""Below this size, decoding is mostly Python code, and threads only wait for each other."""

MAX_PROPORTION = 100
"""Largest ratio of the sides; the memory for resizing a longer strip would be unbounded."""

GRAY_MODES = ("1", "L", "LA")
"""Pillow's modes of images without colors."""

ImageTransform = Callable[["Image", int], "Image"]
"""Takes a decoded image and its position in the batch, and returns the image in the wanted size."""


class ColorError(DataError):
    """An image with colors among images that are read as gray."""


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files under one folder, decoded when they are read.

    Attributes:
        root: The folder.
        names: (N,) bytes, file names relative to ``root``; fixed-width, so that a worker process shares the pages.
        shape: (C, H, W) of every decoded image: C is 1 or 3.
    """

    root: str
    names: np.ndarray
    shape: tuple[int, int, int]

    @classmethod
    def from_names(cls, root: str | Path, names: Sequence[str], shape: tuple[int, int, int]) -> ImageFiles:
        """List ``names``, relative to ``root``."""
        return cls(str(root), np.array([os.fsencode(name) for name in names], dtype=np.bytes_), shape)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """Path of image ``index``."""
        return Path(self.root, os.fsdecode(bytes(self.names[index])))

    def __getitem__(self, indices: torch.Tensor) -> ImageFiles:
        """The files at ``indices``, in that order."""
        return ImageFiles(self.root, self.names[indices.numpy()], self.shape)

    def read(self, indices: torch.Tensor, transform: ImageTransform | None = None) -> torch.Tensor:
        """Decode images.

        Args:
            indices: (B,) int64.
            transform: Turns an image into one of (H, W); :func:`fit_center` by default.

        Returns:
            (B, C, H, W) uint8.

        Raises:
            ColorError: An image has colors, and C is 1.
            CorruptError: A file can't be decoded; the message names it.
            DataError: A file is missing, has more than 8 bits per channel, or is a long strip.
            StorageError: A file can't be read.
        """
        channels, height, width = self.shape
        fit = transform or (lambda image, _: fit_center(image, (height, width)))
        batch = np.empty((len(indices), height, width, channels), np.uint8)
        places = list(enumerate(indices.tolist()))

        def decode(some: list[tuple[int, int]]) -> None:
            for place, index in some:
                path = self.path(index)
                image = fit(_open(path, partial(_decoded, channels=channels, path=path)), place)
                batch[place] = np.asarray(image).reshape(height, width, channels)

        threads = 1 if height * width < THREADED_PIXELS or get_worker_info() else min(len(os.sched_getaffinity(0)), 8)
        if threads == 1:
            decode(places)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(decode, [places[start::threads] for start in range(threads)]):
                    pass
        return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()


def image_header(path: Path) -> tuple[int, int, bool]:
    """Width, height and whether the image has colors, from the first bytes of the file.

    Raises:
        CausalpruneError: As :meth:`ImageFiles.read`.
    """
    return _open(path, lambda image: (*image.size, image.mode not in GRAY_MODES))


def fit_center(image: Image, size: tuple[int, int]) -> Image:
    """The image itself if it has the wanted (height, width), otherwise the center of a resized copy.

    Resizing is bilinear with antialiasing and keeps the proportions; the copy covers 8/7 of the wanted size.
    """
    from PIL.Image import Resampling

    height, width = size
    if image.size == (width, height):
        return image
    scale = max(height / image.height, width / image.width) * SHORTER_SIDE
    resized_width, resized_height = round(image.width * scale), round(image.height * scale)
    image = image.resize((resized_width, resized_height), Resampling.BILINEAR)
    left, top = (resized_width - width) // 2, (resized_height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _decoded(image: Image, channels: int, path: Path) -> Image:
    """8-bit gray (1 channel) or RGB (3); an alpha channel is dropped."""
    if channels == 1 and image.mode not in GRAY_MODES:
        remedy = "convert it to gray, or the others to colors"
        raise ColorError(f"image {path}", expected="a gray image, as others are", found="colors", remedy=remedy)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    converted = image.convert("L" if channels == 1 else "RGB")
    # convert() returns the lazy image itself if it has the mode already.
    converted.load()
    return converted


def _open(path: Path, use: Callable[[Image], T]) -> T:
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            if image.mode in ("F", "I") or image.mode.startswith("I;"):
                raise DataError(
                    f"image {path}",
                    expected="8 bits per channel",
                    found=f"the mode {image.mode}",
                    remedy="convert it, or use an npz file",
                )
            if max(image.size) > MAX_PROPORTION * min(image.size):
                raise DataError(
                    f"image {path}",
                    expected=f"proportions of at most {MAX_PROPORTION}:1",
                    found=f"{image.width}x{image.height} pixels",
                )
            return use(image)
    except (DataError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DataError(f"image {path}", expected="a file", found="nothing") from error
    except PermissionError as error:
        raise StorageError(f"image {path}", expected="permission to read it", found=str(error.strerror)) from error
    except Exception as error:
        # Pillow's decoders raise almost any type on damaged bytes.
        found = "too many pixels" if isinstance(error, PIL.Image.DecompressionBombError) else _reason(error, path)
        raise CorruptError(
            f"image {path}", expected="an image that can be decoded", found=found, remedy="replace or remove it"
        ) from error


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).replace(repr(str(path)), "its content") or type(error).__name__
