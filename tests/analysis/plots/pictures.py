"""Reads what was drawn."""

from pathlib import Path

import numpy as np


def pixels(path: Path, *colors: str) -> list[int]:
    """How many pixels have each color."""
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    picture = np.round(imread(path)[..., :3] * 255).astype(int)
    return [int((picture == np.round(np.array(to_rgb(c)) * 255)).all(axis=-1).sum()) for c in colors]
