import numpy as np

from causalprune.store.codec import find_codec


def test_equal_data_give_equal_bytes_every_time():
    # Larger than Blosc's blocks, which its threads would finish in any order.
    codec = find_codec("exact")
    chunk = np.round(np.random.default_rng(0).normal(size=2_000_000), 1).astype(np.float32)
    assert len({b"".join(map(bytes, codec.encode(chunk))) for _ in range(20)}) == 1
