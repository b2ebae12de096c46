"""What the models for images ask of their input."""

from __future__ import annotations

from causalprune.base.errors import UsageError


def image_shape(model: str, input_shape: tuple[int, ...], *, smallest: int = 1) -> tuple[int, int, int]:
    """Channels, height and width of the images that a model is built for.

    Args:
        model: Its name, for the error.
        input_shape: Shape of one sample.
        smallest: The smallest height and width that it can take.

    Raises:
        UsageError: Samples are no images, or smaller ones.
    """
    if len(input_shape) != 3:
        found = f"{input_shape[0]} features"
        raise UsageError(f"model {model}", expected="images", found=found, remedy="use `model=mlp` for tables")
    channels, height, width = input_shape
    if min(height, width) < smallest:
        expected = f"images of at least {smallest}×{smallest}"
        raise UsageError(f"model {model}", expected=expected, found=f"{height}×{width}")
    return channels, height, width
