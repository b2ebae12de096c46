"""Pictures of recordings: any length can be drawn, bad data leaves the old picture."""

from pathlib import Path

import numpy as np
import pytest
from pictures import pixels

from causalprune.analysis.plots.recording import plot_recording
from causalprune.base.errors import DataError


@pytest.mark.parametrize("steps", [1, 2, 60, 700])
def test_recordings_of_any_length(tmp_path: Path, steps: int) -> None:
    change = np.random.default_rng(0).normal(size=steps)
    change[0] = 1e6
    plot_recording(change, np.abs(change), tmp_path / "p.png")
    assert all(pixels(tmp_path / "p.png", "#333333"))


def test_a_recording_that_stands_still(tmp_path: Path) -> None:
    plot_recording(np.zeros(5), np.zeros(5), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_bad_data_leaves_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "old.png"
    path.write_bytes(b"old")
    with pytest.raises(DataError, match="finite"):
        plot_recording(np.array([np.nan]), np.zeros(1), path)
    assert [p.name for p in tmp_path.iterdir()] == ["old.png"]
    assert path.read_bytes() == b"old"
