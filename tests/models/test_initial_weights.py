import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from causalprune.base.errors import CorruptError, DataError, MismatchError, UsageError
from causalprune.base.specs import ModelSpec
from causalprune.models.initial_weights import load_initial_weights
from causalprune.models.registry import build_model


@pytest.fixture
def model():
    return build_model(ModelSpec("mlp", (4,), 2, (3,)), seed=0)


@pytest.fixture
def weights():
    return build_model(ModelSpec("mlp", (4,), 2, (3,)), seed=1).state_dict()


def check_loaded(model, weights):
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": w}])
def test_weights_saved_by_torch(model, weights, tmp_path, prefix, wrap):
    torch.save(wrap({prefix + n: t for n, t in weights.items()}), tmp_path / "weights.pt")
    load_initial_weights(model, tmp_path / "weights.pt")
    check_loaded(model, weights)


def test_safetensors_of_our_own_stages(model, weights, tmp_path):
    mask = {"mask/layers.0.weight": torch.ones(3, 4, dtype=torch.bool)}
    save_file(weights | mask, tmp_path / "weights.safetensors")
    load_initial_weights(model, tmp_path / "weights.safetensors")
    check_loaded(model, weights)


def test_safetensors_of_numbers_that_are_not_real(model, weights, tmp_path):
    save_file(weights | {"layers.0.weight": torch.ones(3, 4, dtype=torch.complex64)}, tmp_path / "weights.safetensors")
    with pytest.raises(CorruptError, match=r"layers.0.weight in .*expected real numbers, found torch.complex64"):
        load_initial_weights(model, tmp_path / "weights.safetensors")


def test_a_key_map(model, weights, tmp_path):
    renamed = {n.replace("layers.", "net.fc"): t for n, t in weights.items()}
    torch.save(renamed, tmp_path / "weights.pth")
    with pytest.raises(MismatchError, match="`key_map=OLD=NEW`"):
        load_initial_weights(model, tmp_path / "weights.pth")
    load_initial_weights(model, tmp_path / "weights.pth", key_map=["net.fc=layers."])
    check_loaded(model, weights)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_nothing_is_executed(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(CorruptError, match="unpickled"):
        load_initial_weights(model, tmp_path / "evil.pt")
    torch.save({"weights": Evil()}, tmp_path / "evil2.pt")
    with pytest.raises(CorruptError):
        load_initial_weights(model, tmp_path / "evil2.pt")
    assert not (tmp_path / "executed").exists()


def test_other_files(model, weights, tmp_path):
    with pytest.raises(DataError):
        load_initial_weights(model, tmp_path / "missing.pt")
    with pytest.raises(UsageError, match=r"\.safetensors, \.pt or \.pth"):
        load_initial_weights(model, tmp_path / "weights.onnx")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CorruptError, match="state dict"):
        load_initial_weights(model, tmp_path / "list.pt")
    torch.save(weights | {"layers.0.weight": torch.zeros(5, 4)}, tmp_path / "shape.pt")
    with pytest.raises(MismatchError, match="shape"):
        load_initial_weights(model, tmp_path / "shape.pt")


@pytest.mark.parametrize("content", [b"", b".", b"abc\n", b"\x80\x02garbage"])
def test_files_that_are_no_archives(model, tmp_path, content):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(CorruptError):
        load_initial_weights(model, tmp_path / "weights.pt")


def test_a_truncated_archive(model, weights, tmp_path):
    torch.save(weights, tmp_path / "weights.pt")
    content = (tmp_path / "weights.pt").read_bytes()
    (tmp_path / "weights.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptError):
        load_initial_weights(model, tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "odd",
    [{1: torch.zeros(2)}, {"w": torch.zeros(2, dtype=torch.complex64)}, {"w": torch.zeros(2, device="meta")}],
)
def test_state_dicts_of_odd_things(model, tmp_path, odd):
    torch.save(odd, tmp_path / "weights.pt")
    with pytest.raises(CorruptError, match="state dict"):
        load_initial_weights(model, tmp_path / "weights.pt")


def test_missing_and_unexpected_names(model, weights, tmp_path):
    torch.save({n: t for n, t in weights.items() if n != "layers.0.bias"}, tmp_path / "few.pt")
    with pytest.raises(MismatchError, match=r"1 missing: layers\.0\.bias"):
        load_initial_weights(model, tmp_path / "few.pt")
    torch.save(weights | {"extra": torch.zeros(1)}, tmp_path / "many.pt")
    with pytest.raises(MismatchError, match="1 unexpected: extra"):
        load_initial_weights(model, tmp_path / "many.pt")


def test_two_weights_of_one_name(model, weights, tmp_path):
    torch.save(weights | {"module.layers.0.weight": torch.zeros(3, 4)}, tmp_path / "weights.pt")
    with pytest.raises(MismatchError, match="twice"):
        load_initial_weights(model, tmp_path / "weights.pt")
