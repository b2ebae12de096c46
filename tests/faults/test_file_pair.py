"""A network and its mask are replaced by others, and any one change of the disk is the last, or fails."""

import pytest
import torch
from faulty_disk import CHANGES, FaultyDisk

from causalprune.base import files
from causalprune.base.errors import StorageError
from causalprune.base.specs import DataSpec, ModelSpec
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from causalprune.models.file_pair import settle
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterEntry, ParameterIndex

INDEX = ParameterIndex((ParameterEntry("fc.weight", (3, 4), 0),))


class _Death(BaseException):
    """The process is gone."""


class DeadDisk(FaultyDisk):
    """A disk whose process dies at one change, torn in half if it is a write: it makes no other."""

    def _change(self, name, *args, **kwargs):
        if self.fail_at and len(self.changes) >= self.fail_at:
            raise _Death
        return super()._change(name, *args, **kwargs)

    def _fail(self, name, *args):
        self.fault = "EIO"
        try:
            super()._fail(name, *args)
        except OSError:
            raise _Death from None


for _name in CHANGES:
    setattr(DeadDisk, _name, lambda self, *args, _name=_name, **kwargs: self._change(_name, *args, **kwargs))


def network(seed, *, is_pruned):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator)
    mask = Mask(INDEX, torch.rand(12, generator=generator) < 0.5) if is_pruned else None
    if mask is not None:
        weight = weight * mask.keep.reshape(3, 4)
    info = CheckpointInfo("posttrain", ModelSpec("mlp", (4,), 3), DataSpec(name="digits"), "f" * 64, INDEX)
    return Checkpoint(info, {"fc.weight": weight}, mask)


OLD = {
    "nothing": None,
    "a dense network": network(0, is_pruned=False),
    "a pruned network": network(1, is_pruned=True),
}
NEW = {"a dense network": network(2, is_pruned=False), "a pruned network": network(3, is_pruned=True)}


def content(checkpoint):
    mask = None if checkpoint is None or checkpoint.mask is None else checkpoint.mask.keep.tolist()
    return checkpoint and (checkpoint.weights["fc.weight"].tolist(), mask)


def found(path):
    return content(load_checkpoint(path)) if path.exists() else None


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replace(folder, old, new, disk):
    folder.mkdir()
    path = folder / "net.safetensors"
    if old is not None:
        save_checkpoint(path, old)
    with files.use(disk):
        save_checkpoint(path, new)
    return path


@pytest.mark.parametrize("kind", ["death", "ENOSPC", "EIO"])
@pytest.mark.parametrize("new", NEW)
@pytest.mark.parametrize("old", OLD)
def test_the_old_pair_or_the_new_one(tmp_path, old, new, kind):
    earlier, later = OLD[old], NEW[new]
    counting = FaultyDisk()
    replace(tmp_path / "whole", earlier, later, counting)
    expected = tree(tmp_path / "whole")
    assert len(expected) == (1 if later.mask is None else 2)
    outcomes = set()
    for number in range(1, len(counting.changes) + 1):
        folder, path = tmp_path / f"{number}", tmp_path / f"{number}" / "net.safetensors"
        disk = DeadDisk("EIO", number) if kind == "death" else FaultyDisk(kind, number, full=kind == "ENOSPC")
        with pytest.raises(_Death if kind == "death" else StorageError):
            replace(folder, earlier, later, disk)
        now = found(path)
        assert now in (content(earlier), content(later)), f"change {number}, {counting.changes[number - 1]}"
        outcomes.add(now == content(later))
        # The next command that writes there first brings back what belongs to the network that is there.
        settle(path)
        assert found(path) == now
        assert not list(folder.glob("*.previous"))
        files.remove_partials(folder)
        save_checkpoint(path, later)
        assert tree(folder) == expected
    assert outcomes == {False, True}


def test_two_deaths_in_a_row_lose_nothing(tmp_path):
    old, first, second = OLD["a pruned network"], NEW["a pruned network"], network(4, is_pruned=True)
    counting = FaultyDisk()
    replace(tmp_path / "whole", old, first, counting)
    path, deaths = tmp_path / "net.safetensors", 0
    for one in range(2, len(counting.changes) + 1, 3):
        for two in range(1, len(counting.changes) + 3):
            save_checkpoint(path, old)
            for number, new in ((one, first), (two, second)):
                before = found(path)
                try:
                    with files.use(DeadDisk("EIO", number)):
                        save_checkpoint(path, new)
                except _Death:
                    deaths += 1
                    assert found(path) in (before, content(new))
                else:
                    assert found(path) == content(new)
    assert deaths > len(counting.changes)
