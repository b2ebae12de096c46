import numpy as np

from causalprune.store.codec import find_codec


def test_equal_data_give_equal_bytes_every_time():
    # Larger than Blosc's blocks, which its threads would finish in any order.
    codec = find_codec("exact")
    chunk = np.random.default_rng(0).normal(size=500_000).astype(np.float32)
    assert len({b"".join(map(bytes, codec.encode(chunk))) for _ in range(40)}) == 1
