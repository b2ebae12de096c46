import numpy as np

from causalprune.store.codec import encode_chunk


def test_equal_data_give_equal_bytes_every_time():
    # Larger than Blosc's blocks, which its own threads would finish in any order.
    chunk = np.round(np.random.default_rng(0).normal(size=2_000_000), 1).astype(np.float32)
    assert len({b"".join(map(bytes, encode_chunk(chunk, "zstd", 5))) for _ in range(30)}) == 1
