"""A mask in a file: read as it was written, by safetensors too; anything else is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from causalprune import Mask
from causalprune.base.errors import CorruptError, DataError
from causalprune.models.parameters import ParameterIndex


@pytest.fixture
def mask():
    index = ParameterIndex.from_model(nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Linear(4, 5)))
    return Mask(index, torch.arange(index.total) % 3 > 0)


def test_it_is_read_as_it_was_written(mask, tmp_path):
    path = tmp_path / "a mäsk.safetensors"
    mask.save(path)
    again = Mask.load(path)
    assert again.index == mask.index
    assert torch.equal(again.keep, mask.keep)
    first = path.read_bytes()
    mask.save(str(path))
    assert path.read_bytes() == first
    assert {n: t.dtype for n, t in load_file(path).items()} == {"0.weight": torch.bool, "1.weight": torch.bool}


def test_other_files_are_refused(mask, tmp_path):
    with pytest.raises(DataError, match="expected a mask, found nothing"):
        Mask.load(tmp_path / "none.safetensors")
    other = tmp_path / "weights.safetensors"
    save_file({"0.weight": torch.ones(3)}, other)
    with pytest.raises(CorruptError, match=r"expected a mask, as Mask\.save writes it, found another"):
        Mask.load(other)
    path = tmp_path / "mask.safetensors"
    mask.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(CorruptError, match="expected a whole safetensors file"):
        Mask.load(path)
