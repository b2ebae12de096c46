import numpy as np
import pytest
from store_builders import INFO, append_rows, make_recording, make_store

from causalprune.base.errors import CorruptError, UsageError
from causalprune.trajectory import Store
from causalprune.trajectory.shard import estimate_bytes


@pytest.mark.parametrize("codec", ["exact", "balanced", "small"])
@pytest.mark.parametrize("columns", [200_000, 11_902])
def test_one_row_predicts_the_recording(tmp_path, codec, columns):
    store, values = make_recording(tmp_path / "t.zarr", rows=16, columns=columns, block_rows=None, codec=codec)
    predicted = estimate_bytes(values[7], rows=16, codec=codec)
    assert predicted == pytest.approx(store.recording().stored_bytes, rel=0.1)


def test_an_unknown_codec():
    with pytest.raises(UsageError, match="codec"):
        estimate_bytes(np.ones(3, np.float32), rows=1, codec="zip")


def incompressible(rows, columns, seed):
    """(rows, columns) float32 of random bits, all of them finite: chunks whose lengths don't depend on them."""
    bits = np.random.default_rng(seed).integers(0, 2**32, (rows, columns), np.uint32)
    values = bits.view(np.float32)
    return np.where(np.isfinite(values), values, np.float32(seed))


@pytest.mark.parametrize("columns", [600, 2 * 65536], ids=["one chunk", "two chunks"])
def test_a_shard_of_the_same_lengths_is_not_taken_for_another(tmp_path, columns):
    """The CRC32C of chunks that are each followed by their own depends on nothing but their lengths."""
    shards, readers = [], []
    for seed in (1, 2):
        store = make_store(tmp_path / f"{seed}.zarr", columns)
        with store.create_recording(INFO, np.ones(columns, bool), max_rows=8, codec="exact", block_rows=4) as writer:
            append_rows(writer, incompressible(8, columns, seed))
            writer.finish()
        readers.append(store.recording())
        shards += [store.path / f"recordings/000/delta/c.{number}.0" for number in (0, 1)]
    first, second, other, _ = (shard.read_bytes() for shard in shards)
    index = 16 * readers[0].schema.shape.chunks + 4
    assert first[-index:] == second[-index:] == other[-index:]
    assert first != other
    # Same metadata, scalars and lengths; other shards.
    assert readers[0].digest != readers[1].digest
    # One chunk of another recording, in a shard that is otherwise as it was.
    length = int.from_bytes(first[-index:][8:16], "little")
    for mistaken in (other, second, other[:length] + first[length:]):
        assert readers[0].verify() == []
        shards[0].write_bytes(mistaken)
        (problem,) = readers[0].verify()
        assert "c.0.0" in problem
        with pytest.raises(CorruptError, match=r"c\.0\.0"):
            Store.open(tmp_path / "1.zarr").recording().read_rows(0, 1)
        shards[0].write_bytes(first)
