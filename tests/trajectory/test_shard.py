import numpy as np
import pytest
from store_builders import make_recording

from causalprune.base.errors import UsageError
from causalprune.trajectory.shard import estimate_bytes


@pytest.mark.parametrize("codec", ["exact", "balanced", "small"])
def test_one_row_predicts_the_recording(tmp_path, codec):
    store, values = make_recording(tmp_path / "t.zarr", rows=16, columns=200_000, block_rows=None, codec=codec)
    predicted = estimate_bytes(values[7], rows=16, codec=codec)
    assert predicted == pytest.approx(store.recording().stored_bytes, rel=0.1)


def test_an_unknown_codec():
    with pytest.raises(UsageError, match="codec"):
        estimate_bytes(np.ones(3, np.float32), rows=1, codec="zip")
