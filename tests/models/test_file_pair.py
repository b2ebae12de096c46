"""A network's file is what PyTorch takes strictly; its mask lies beside it, and belongs to it or is refused."""

import hashlib
import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import causalprune as cp
from causalprune.base.compute.shapes import Tokens
from causalprune.base.errors import CausalpruneError, ExitCode
from causalprune.base.paths import is_mask_path, mask_path
from causalprune.base.specs import DataSpec, ModelSpec
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.registry import build_model
from causalprune.models.weights_file import read_state_dicts

SPEC = ModelSpec("mlp", (6,), 2, (5,))


def pruned(spec=SPEC, seed=0, *, mask=True):
    """A network with every third of its prunable weights pruned, as a checkpoint."""
    model = build_model(spec, seed=seed)
    index = ParameterIndex.from_model(model)
    keep = Mask(index, (torch.arange(index.total) + seed) % 3 > 0)
    if mask:
        keep.apply_(model)
    info = CheckpointInfo("posttrain", spec, DataSpec(name="digits"), "f" * 64, index)
    return model, Checkpoint(info, model.state_dict(), keep if mask else None)


@pytest.fixture
def files(tmp_path):
    """A pruned network's file and that of its mask."""
    network = tmp_path / "final.safetensors"
    _, checkpoint = pruned()
    save_checkpoint(network, checkpoint)
    return network, tmp_path / "final.mask.safetensors"


def refused(network, code):
    with pytest.raises(CausalpruneError) as caught:
        load_checkpoint(network)
    assert caught.value.exit_code == code
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.remedy
    return str(caught.value)


_TEXT = ModelSpec("tinygpt", Tokens((8,), 11), 11, task="next-token", output_shape=(8, 11))
MODELS = {
    "mlp": (SPEC, torch.zeros(2, 6)),
    "lenet": (ModelSpec("lenet", (1, 8, 8), 10), torch.zeros(2, 1, 8, 8)),
    "resnet20": (ModelSpec("resnet20", (3, 16, 16), 10), torch.zeros(2, 3, 16, 16)),
    "tinygpt": (_TEXT, torch.zeros(2, 8, dtype=torch.long)),
    "torchvision": (ModelSpec("torchvision:shufflenet_v2_x0_5", (3, 32, 32), 10), torch.zeros(2, 3, 32, 32)),
}


@pytest.mark.parametrize("name", MODELS)
def test_pytorch_alone_loads_every_network_strictly(tmp_path, name):
    spec, inputs = MODELS[name]
    model, checkpoint = pruned(spec)
    if name != "mlp":
        # Statistics of batch normalization, and how many batches they are of.
        model.train()(inputs)
    save_checkpoint(tmp_path / "net.safetensors", checkpoint)
    tensors = load_file(tmp_path / "net.safetensors")
    assert tensors.keys() == model.state_dict().keys()
    if name in ("resnet20", "torchvision"):
        assert any(key.endswith("num_batches_tracked") and value == 1 for key, value in tensors.items())
    other = build_model(spec, seed=1)
    assert str(other.load_state_dict(tensors, strict=True)) == "<All keys matched successfully>"
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    assert torch.equal(other.eval()(inputs), model.eval()(inputs))
    keep = cp.Mask.load(tmp_path / "net.mask.safetensors")
    assert torch.equal(keep.keep, checkpoint.mask.keep)
    loaded = load_checkpoint(tmp_path / "net.safetensors")
    assert torch.equal(loaded.mask.keep, keep.keep)


class Tied(nn.Module):
    """A language model whose outputs share the weights of its embedding."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.tokens.weight


def test_a_tied_weight_is_there_under_both_names_and_stays_tied(tmp_path):
    model, other = Tied(), Tied()
    index = ParameterIndex.from_model(model)
    mask = Mask(index, torch.arange(index.total) % 3 > 0)
    mask.apply_(model)
    info = CheckpointInfo("posttrain", SPEC, DataSpec(name="digits"), "f" * 64, index)
    save_checkpoint(tmp_path / "net.safetensors", Checkpoint(info, model.state_dict(), mask))
    tensors = load_file(tmp_path / "net.safetensors")
    assert tensors.keys() == {"tokens.weight", "head.weight"}
    assert torch.equal(tensors["tokens.weight"], tensors["head.weight"])
    other.load_state_dict(tensors)
    assert other.head.weight is other.tokens.weight
    assert torch.equal(other.head.weight, model.head.weight)
    assert torch.equal(load_checkpoint(tmp_path / "net.safetensors").mask.keep, mask.keep)


class Counting(nn.Linear):
    """A layer with a tensor of its own in the state dict."""

    def get_extra_state(self):
        return torch.tensor([1, 2, 3])

    def set_extra_state(self, state):
        self.was_given = state


def test_an_extra_state_that_is_a_tensor_is_given_back(tmp_path):
    model = Counting(6, 2)
    index = ParameterIndex.from_model(model)
    info = CheckpointInfo("posttrain", SPEC, DataSpec(name="digits"), "f" * 64, index)
    save_checkpoint(tmp_path / "net.safetensors", Checkpoint(info, model.state_dict()))
    other = Counting(6, 2)
    other.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert other.was_given.tolist() == [1, 2, 3]


def test_the_mask_names_the_network_by_its_hash(files):
    network, mask = files
    data = mask.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]["causalprune-tensors"]
    assert json.loads(header)["network"] == hashlib.sha256(network.read_bytes()).hexdigest()
    assert load_checkpoint(network).sha256 == json.loads(header)["network"]


def test_a_dense_network_is_one_file(tmp_path):
    save_checkpoint(tmp_path / "net.safetensors", pruned(mask=False)[1])
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    assert load_checkpoint(tmp_path / "net.safetensors").mask is None


def test_the_mask_of_a_network_that_is_replaced_by_a_dense_one_goes_and_no_other(files):
    network, mask = files
    save_checkpoint(network, pruned(mask=False)[1])
    assert not mask.exists()
    pruned()[1].mask.save(mask)
    save_checkpoint(network, pruned(mask=False)[1])
    assert mask.exists()
    assert load_checkpoint(network).mask is None


def test_both_may_be_moved_and_renamed_together(files, tmp_path):
    network, mask = files
    before = load_checkpoint(network)
    (tmp_path / "elsewhere").mkdir()
    network = network.rename(tmp_path / "elsewhere" / "best.safetensors")
    mask.rename(tmp_path / "elsewhere" / "best.mask.safetensors")
    after = load_checkpoint(network)
    assert (after.sha256, after.mask.keep.tolist()) == (before.sha256, before.mask.keep.tolist())


def test_a_link_to_the_network_leads_to_its_mask(files, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "best.safetensors"
    link.symlink_to(files[0])
    assert load_checkpoint(link).mask.num_pruned == load_checkpoint(files[0]).mask.num_pruned


def test_a_network_without_its_mask_is_refused(files):
    network, mask = files
    mask.unlink()
    message = refused(network, ExitCode.DATA)
    assert f"{mask}: expected the mask of {network}, found nothing; copy it from where the network is from" in message
    # Its weights are there for those who want them alone.
    with pytest.raises(CausalpruneError, match="keep_zeros"):
        read_state_dicts(network)
    assert read_state_dicts(network, alone=True)[0].keys() == load_file(network).keys()


def test_the_mask_of_another_network_is_refused(files, tmp_path):
    network, mask = files
    _, other = pruned(seed=1)
    save_checkpoint(tmp_path / "other.safetensors", other)
    mask.write_bytes((tmp_path / "other.mask.safetensors").read_bytes())
    message = refused(network, ExitCode.MISMATCH)
    assert "found that of another file" in message
    with pytest.raises(CausalpruneError, match="that of another file"):
        read_state_dicts(network, alone=True)


def test_a_network_that_was_written_anew_is_another(files):
    """The same tensors and the same description, as another program may have saved them."""
    network, _ = files
    with network.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    save_file(load_file(network), network, metadata=header["__metadata__"] | {"more": "by another program"})
    refused(network, ExitCode.MISMATCH)


def test_a_mask_that_was_altered_is_noticed(files):
    network, mask = files
    data = bytearray(mask.read_bytes())
    data[-1] ^= 1
    mask.write_bytes(data)
    assert "altered" in refused(network, ExitCode.CORRUPT)


@pytest.mark.parametrize("found", ["damage", "own", "empty"])
def test_anything_else_in_the_place_of_the_mask_is_refused(files, found):
    network, mask = files
    if found == "own":
        # By Mask.save, which names no network.
        load_checkpoint(network).mask.save(mask)
    else:
        mask.write_bytes(mask.read_bytes()[:-9] if found == "damage" else b"")
    assert "something else, or damage" in refused(network, ExitCode.CORRUPT)


def test_a_mask_is_no_checkpoint(files):
    assert "found a mask; name the network" in refused(files[1], ExitCode.CORRUPT)


@pytest.mark.parametrize("name", ["final.safetensors", "final", "a.b", "final.safetensors.safetensors"])
def test_no_two_names_have_the_same_mask(tmp_path, name):
    mask = mask_path(tmp_path / name)
    assert is_mask_path(mask)
    assert not is_mask_path(tmp_path / name)
    # From its name, the network's name follows.
    assert mask.name.replace(".mask", "", 1) == name
