"""Codecs: each by its name, and one more with an encoding of its own."""

import zlib

import numpy as np
import pytest
from store_builders import make_recording

from causalprune.base.errors import UsageError
from causalprune.trajectory import Store
from causalprune.trajectory.codec import Codec, find_codec
from causalprune.trajectory.names import CODECS


class Deflated(Codec):
    """zlib in place of Blosc."""

    def encode(self, chunk):
        return [zlib.compress(chunk.tobytes(), self.level)]

    def decode(self, encoded, out, source):
        out[...] = np.frombuffer(zlib.decompress(encoded.tobytes()), np.float32).reshape(out.shape)

    def to_zarr(self):
        return [{"name": "numcodecs.zlib", "configuration": {"level": self.level}}]


DEFLATED = Deflated("deflated", mantissa_bits=23, compressor="zlib", level=6)


def test_each_codec_has_the_name_by_which_it_is_found():
    assert [find_codec(name).name for name in CODECS] == list(CODECS)


def test_an_unknown_codec_is_an_error_with_the_nearest_name():
    with pytest.raises(
        UsageError, match=r"codec: expected one of exact, .* \(did you mean 'balanced'\?\), found 'balance'"
    ):
        find_codec("balance")


def test_a_codec_more_is_a_line_and_an_object(tmp_path, monkeypatch):
    monkeypatch.setitem(CODECS, "deflated", f"{__name__}:DEFLATED")
    deltas = {}
    for codec in ("exact", "deflated"):
        make_recording(tmp_path / codec, codec=codec)
        reader = Store.open(tmp_path / codec).recording()
        assert reader.codec == codec
        deltas[codec] = np.concatenate([block for _, block in reader.row_blocks()])
    assert np.array_equal(deltas["exact"], deltas["deflated"])
