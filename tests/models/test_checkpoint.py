"""Checkpoints and saved states: every bit comes back, and whatever isn't whole is refused with its exit code.

What lies in two files, ``test_file_pair.py`` tries.
"""

import hashlib
import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_foreign

from causalprune.base.errors import CausalpruneError, CorruptError, DataError, ExitCode, NewerFormatError
from causalprune.base.specs import DataSpec, ModelSpec
from causalprune.models.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    read_checkpoint_info,
    save_checkpoint,
    save_state,
)
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterEntry, ParameterIndex

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
]  # fmt: skip

INDEX = ParameterIndex((ParameterEntry("fc.weight", (3, 4), 0),))


def info(**changes):
    values = {
        "stage": "pretrain",
        "model": ModelSpec("mlp", (4,), 3, (5,)),
        "data": DataSpec(name="digits"),
        "data_fingerprint": "f" * 64,
        "index": INDEX,
        "config": {"lr": 0.1, "name": "naïve\nname"},
        "identity": "i" * 64,
        "inputs": {"checkpoint": "c" * 64},
        "position": {"epoch": 2, "loss_sum": 0.1 + 0.2},
        "metrics": {"history": [{"epoch": 1.0}]},
    }
    return CheckpointInfo(**{**values, **changes})


def checkpoint(mask=True):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, generator=generator)
    keep = Mask(INDEX, torch.arange(12) % 3 > 0) if mask else None
    weights = {"fc.weight": weight, "fc.bias": torch.randn(3, generator=generator), "bn.count": torch.tensor(7)}
    extra = {"optimizer/fc.weight/momentum_buffer": weight * 2, "best/fc.bias": torch.zeros(3)}
    return Checkpoint(info(), weights, keep, extra)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "c.safetensors"
    save_state(path, checkpoint())
    return path.read_bytes()


def bits(tensors):
    return {n: (t.dtype, t.shape, t.contiguous().reshape(-1).view(torch.uint8).tolist()) for n, t in tensors.items()}


def content(loaded):
    masks = loaded.mask.tensors() if loaded.mask else {}
    return loaded.info.to_json(), bits(loaded.weights), bits(masks), bits(loaded.extra)


def repack(data, change=lambda header: None, describe=lambda value: None, *, sealed=True):
    """The same file with its header, or the description in it, changed by hand; ``sealed`` with a right checksum."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    value = json.loads(header["__metadata__"]["causalprune"])
    describe(value)
    if sealed:
        value.pop("checksum", None)
        value["checksum"] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    header["__metadata__"]["causalprune"] = json.dumps(value)
    change(header)
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data[8 + length :]


@pytest.fixture
def refused(tmp_path):
    def check(data, kind, code, read=load_checkpoint):
        path = tmp_path / "c.safetensors"
        path.write_bytes(data)
        with pytest.raises(kind) as caught:
            read(path)
        message = str(caught.value)
        assert caught.value.exit_code == code
        assert len(message.splitlines()) == 1
        assert len(message) < 500
        assert str(path) in message
        return message

    return check


# Round trips ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 5), max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path_factory, dtype, shape, seed):
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.random.default_rng(seed).integers(0, 2 if dtype == torch.bool else 256, size, dtype=np.uint8)
    # Arbitrary bytes: NaN payloads, −0.0 and subnormal numbers are among them.
    tensor = torch.frombuffer(bytearray(raw), dtype=dtype) if size else torch.empty(0, dtype=dtype)
    tensor = tensor.reshape(shape)
    given_checkpoint = Checkpoint(info(), {"fc.weight": torch.ones(3, 4), "x": tensor}, None, {"best/x": tensor})
    save_state(path, given_checkpoint)
    loaded = load_checkpoint(path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert bits(loaded.weights) == bits(given_checkpoint.weights)
    assert bits(loaded.extra) == bits(given_checkpoint.extra)


def test_the_description_comes_back(tmp_path):
    path = tmp_path / 'it\'s a "file" é.safetensors'
    save_state(path, checkpoint())
    loaded = load_checkpoint(path)
    assert read_checkpoint_info(path) == loaded.info
    got, expected = loaded.info.to_json(), info().to_json()
    filled_in = ("kept", "versions", "digest")
    assert {k: v for k, v in got.items() if k not in filled_in} == {
        k: v for k, v in expected.items() if k not in filled_in
    }
    assert (loaded.info.kept, loaded.info.sparsity) == ({"fc.weight": 8}, 1 - 8 / 12)
    assert loaded.info.versions["torch"].startswith(torch.__version__.split("+")[0])


def test_non_contiguous_and_shared_tensors_are_saved_as_their_values(tmp_path):
    path, base = tmp_path / "c.safetensors", torch.arange(24.0).view(4, 6)
    weights = {"fc.weight": base[:3, :4], "t": base.T, "tied": base[:3, :4]}
    save_checkpoint(path, Checkpoint(info(), weights))
    assert bits(load_checkpoint(path).weights) == bits(weights)


def test_two_writes_give_the_same_bytes_and_other_readers_the_same_tensors(tmp_path, good):
    path = tmp_path / "c.safetensors"
    reverse = checkpoint()
    reversed_weights = dict(reversed(reverse.weights.items()))
    save_state(path, Checkpoint(reverse.info, reversed_weights, reverse.mask, reverse.extra))
    assert path.read_bytes() == good
    save_state(path, checkpoint())
    assert path.read_bytes() == good
    with safetensors.safe_open(path, "numpy") as file:
        assert np.array_equal(file.get_tensor("fc.weight"), checkpoint().weights["fc.weight"].numpy())
        assert np.array_equal(file.get_tensor("mask/fc.weight"), checkpoint().mask.tensors()["fc.weight"].numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_reading_the_description_needs_neither_torch_nor_zarr(tmp_path, good):
    path = tmp_path / "c.safetensors"
    path.write_bytes(good)
    code = (
        "import sys; from pathlib import Path; from causalprune.models.checkpoint import read_checkpoint_info\n"
        "assert read_checkpoint_info(Path(sys.argv[1])).stage == 'pretrain'\n"
        "print(sorted({'torch', 'zarr', 'sklearn', 'torchvision', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Damage ---------------------------------------------------------------------------------------------------------------


def test_nothing_and_a_directory_and_an_empty_file_are_bad_data(tmp_path, refused):
    for path, found in ((tmp_path / "none", "nothing"), (tmp_path, "a directory")):
        with pytest.raises(DataError, match=f"found {found}; run pretrain$") as caught:
            load_checkpoint(path, remedy="run pretrain")
        assert caught.value.exit_code == ExitCode.DATA
    assert "an empty file" in refused(b"", DataError, ExitCode.DATA)


def test_every_truncation_is_corrupt(refused, good):
    for length in (1, 7, 8, 9, 100, len(good) // 2, len(good) - 1):
        refused(good[:length], CorruptError, ExitCode.CORRUPT)
    refused(good + b"\0", CorruptError, ExitCode.CORRUPT)


def test_pickles_are_not_read(tmp_path, refused):
    torch.save({"fc.weight": torch.ones(3, 4)}, tmp_path / "model.pt")
    for data in (pickle.dumps({"a": 1}), (tmp_path / "model.pt").read_bytes()):
        said = refused(data, CorruptError, ExitCode.CORRUPT)
        assert "pickles are not read" in said
    assert "found a file of torch.save" in said


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 101 * 2**20, 0])
def test_an_absurd_header_length_is_corrupt(refused, good, length):
    refused(struct.pack("<Q", length) + good[8:], CorruptError, ExitCode.CORRUPT)


@pytest.mark.parametrize(
    "raw", [b"[]", b"null", b"7", b'"x"', b"{", b"\xff\xfe", b'{"a": 1}', b"[" * 10**5, b'{"__metadata__": []}']
)
def test_a_header_that_is_no_header_is_corrupt(refused, raw):
    refused(struct.pack("<Q", len(raw)) + raw, CorruptError, ExitCode.CORRUPT)


def entry(**changes):
    return lambda header: header["fc.weight"].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        entry(shape=[10**18]),
        entry(shape=[-3, -4]),
        entry(shape=[3.0, 4]),
        entry(shape="34"),
        entry(dtype="F99"),
        entry(dtype=["F32"]),
        entry(data_offsets=[0]),
        entry(data_offsets=[0, 48]),
        entry(data_offsets=[-48, 0]),
        entry(data_offsets=[True, 49]),
        lambda header: header.pop("fc.bias"),
        lambda header: header.update(more={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}),
        lambda header: header.update(nested=[]),
    ],
)
def test_a_header_that_contradicts_the_file_is_corrupt(refused, good, change):
    refused(repack(good, change), CorruptError, ExitCode.CORRUPT, read_checkpoint_info)


def test_foreign_weights_are_refused_with_the_way_to_use_them(refused):
    data = save_foreign({"fc.weight": torch.ones(3, 4)}, metadata={"format": "pt"})
    assert "pretrain `init_from=FILE, epochs=0`" in refused(data, CorruptError, ExitCode.CORRUPT)


def test_a_newer_format_is_not_judged(refused, good):
    newer = repack(good, describe=lambda value: value.update(format_version=3, parameters="another thing"))
    assert "install a newer causalprune" in refused(newer, NewerFormatError, ExitCode.CORRUPT)


def test_a_valid_float_flipped_in_the_tensors_is_noticed(refused, good):
    for position in (-1, -20, -60):
        data = bytearray(good)
        data[position] ^= 1
        assert "checksum" in refused(bytes(data), CorruptError, ExitCode.CORRUPT)


@pytest.mark.parametrize(
    "values",
    [
        {"format": "another"},
        {"format_version": "1"},
        {"format_version": 0},
        {"format_version": True},
        {"stage": 3},
        {"model": {}},
        {"model": None},
        {"data": {"name": "digits"}},
        {"parameters": [{"name": "fc.weight", "shape": [10**18], "filter_axis": 0}]},
        {"parameters": 5},
        {"config": []},
        {"kept": {"fc.weight": 13}},
        {"kept": {"fc.weight": -1}},
        {"kept": {}},
        {"kept": []},
        {"digest": None},
        {"digest": "0" * 64},
        {"position": 4},
        {"versions": "1.0"},
    ],
    ids=str,
)
def test_a_malformed_description_is_corrupt(refused, good, values):
    refused(repack(good, describe=lambda value: value.update(values)), CorruptError, ExitCode.CORRUPT)


@pytest.mark.parametrize("key", list(info().to_json()))
def test_a_description_without_one_of_its_keys_is_corrupt(refused, good, key):
    refused(repack(good, describe=lambda value: value.pop(key)), CorruptError, ExitCode.CORRUPT)


@pytest.mark.parametrize("key", ["data", "config", "identity", "position", "metrics", "inputs"])
def test_a_plausible_edit_of_the_description_is_noticed(refused, good, key):
    def edit(value):
        value[key] = {**value[key], "split_seed": 1} if isinstance(value[key], dict) else value[key].upper()

    edited = repack(good, describe=edit, sealed=False)
    assert "checksum" in refused(edited, CorruptError, ExitCode.CORRUPT, read_checkpoint_info)


def test_a_mask_in_another_shape_is_corrupt(tmp_path, refused):
    path = tmp_path / "m.safetensors"
    for name, shape in (("fc.weight", (4, 3)), ("other", (2,))):
        extra = {f"mask/{name}": torch.ones(shape, dtype=torch.bool)}
        save_state(path, Checkpoint(info(), {"fc.weight": torch.ones(3, 4)}, extra=extra))
        refused(path.read_bytes(), CorruptError, ExitCode.CORRUPT)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_edited_bytes_are_refused_or_change_nothing(tmp_path_factory, good, data):
    edited = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.one_of(st.integers(0, len(good) - 1), st.integers(0, 40)))
        edited[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(good))))
    path = tmp_path_factory.getbasetemp() / "edited.safetensors"
    path.write_bytes(good)
    expected = load_checkpoint(path)
    path.write_bytes(bytes(edited[:cut]))
    try:
        loaded = load_checkpoint(path)
    except CausalpruneError as error:
        refusal = error
    else:
        refusal = None
        assert content(loaded) == content(expected)
    if refusal is not None:
        assert refusal.exit_code in (ExitCode.DATA, ExitCode.CORRUPT, ExitCode.MISMATCH)
        assert "\n" not in str(refusal)
