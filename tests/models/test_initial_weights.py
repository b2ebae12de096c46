import os
import pickle
import warnings
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from causalprune.base.errors import CorruptError, DataError, MismatchError, UsageError
from causalprune.base.specs import ModelSpec
from causalprune.models.export.formats import Networks
from causalprune.models.initial_weights import load_initial_weights
from causalprune.models.names import EXPORT_FORMATS
from causalprune.models.registry import build_model


@pytest.fixture
def model():
    return build_model(ModelSpec("mlp", (4,), 2, (3,)), seed=0)


@pytest.fixture
def weights():
    return build_model(ModelSpec("mlp", (4,), 2, (3,)), seed=1).state_dict()


def check_loaded(model, weights):
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def wrapped(*keys):
    def wrap(weights):
        for key in reversed(keys):
            weights = {"epoch": 3, key: weights, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
        return weights

    return wrap


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".pth.tar", ".PT"])
def test_every_ending_that_torch_users_choose(model, weights, tmp_path, suffix):
    torch.save(weights, tmp_path / f"weights{suffix}")
    assert load_initial_weights(model, tmp_path / f"weights{suffix}").num_pruned == 0
    check_loaded(model, weights)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "_orig_mod.module.", "model._orig_mod."])
@pytest.mark.parametrize("keys", [(), ("state_dict",), ("model_state_dict",), ("model",), ("net",), ("model", "net")])
def test_weights_saved_by_torch(model, weights, tmp_path, prefix, keys):
    torch.save(wrapped(*keys)({prefix + n: t for n, t in weights.items()}), tmp_path / "weights.pt")
    load_initial_weights(model, tmp_path / "weights.pt")
    check_loaded(model, weights)


@pytest.mark.parametrize("name", ["module", "model", "_orig_mod"])
@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel], ids=["bare", "DataParallel"])
def test_names_that_look_like_a_prefix_and_are_the_networks_own(tmp_path, name, wrap):
    def build():
        return nn.Sequential(OrderedDict({name: nn.Linear(4, 3), "last": nn.Linear(3, 2)}))

    saved, model = build(), build()
    torch.save(wrap(saved).state_dict(), tmp_path / "weights.pt")
    load_initial_weights(model, tmp_path / "weights.pt")
    check_loaded(model, saved.state_dict())


def test_the_options_that_training_scripts_save_are_no_obstacle(model, weights, tmp_path):
    torch.save({"model": weights, "args": Namespace(lr=0.1, data=Namespace(name="a"))}, tmp_path / "weights.pth")
    load_initial_weights(model, tmp_path / "weights.pth")
    check_loaded(model, weights)


def test_of_several_state_dicts_the_one_that_fits_is_read(model, weights, tmp_path):
    torch.save({"model": {"other.weight": torch.zeros(2)}, "net": weights}, tmp_path / "weights.pt")
    load_initial_weights(model, tmp_path / "weights.pt")
    check_loaded(model, weights)


def test_safetensors_of_numbers_that_are_not_real(model, weights, tmp_path):
    save_file(weights | {"layers.0.weight": torch.ones(3, 4, dtype=torch.complex64)}, tmp_path / "weights.safetensors")
    with pytest.raises(CorruptError, match=r"layers.0.weight in .*expected real numbers, found torch.complex64"):
        load_initial_weights(model, tmp_path / "weights.safetensors")


def test_a_key_map(model, weights, tmp_path):
    renamed = {n.replace("layers.", "head.fc"): t for n, t in weights.items()}
    torch.save(renamed, tmp_path / "weights.pth")
    with pytest.raises(MismatchError, match="`key_map=OLD=NEW`"):
        load_initial_weights(model, tmp_path / "weights.pth")
    load_initial_weights(model, tmp_path / "weights.pth", key_map=["head.fc=layers."])
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
    with pytest.raises(UsageError, match=r"\.safetensors file, or one of torch\.save"):
        load_initial_weights(model, tmp_path / "weights.onnx")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CorruptError, match="state dict"):
        load_initial_weights(model, tmp_path / "list.pt")
    torch.save(weights | {"layers.0.weight": torch.zeros(5, 4)}, tmp_path / "shape.pt")
    with pytest.raises(MismatchError, match="shape"):
        load_initial_weights(model, tmp_path / "shape.pt")


def test_the_refusal_of_a_whole_network_says_what_is_in_the_file(model, tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(CorruptError, match=r"found a torch\.nn\.modules\.linear\.Linear; write it with torch\.save"):
        load_initial_weights(model, tmp_path / "whole.pt")


def test_an_empty_file(model, tmp_path):
    (tmp_path / "weights.pt").touch()
    with pytest.raises(DataError, match="an empty file"):
        load_initial_weights(model, tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [b".", b"abc\n", b"\x80\x02garbage"])
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
    "odd", [{1: torch.zeros(2)}, {"epoch": 3}, {}, [torch.zeros(2)], {"weights": {"deep": {"a": torch.zeros(2)}}}]
)
def test_no_state_dict(model, tmp_path, odd):
    torch.save(odd, tmp_path / "weights.pt")
    with pytest.raises(CorruptError, match="expected a state dict, perhaps as one of state_dict, model_state_dict"):
        load_initial_weights(model, tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("odd", "error", "found"),
    [
        (torch.zeros(3, dtype=torch.complex64), CorruptError, "complex64"),
        (torch.zeros(3, device="meta"), CorruptError, "dense tensor"),
        (torch.zeros(3).to_sparse(), CorruptError, "sparse"),
        ([0.0, 0.0, 0.0], CorruptError, "list"),
        (torch.zeros(3, dtype=torch.int8), DataError, "int8"),
        (torch.zeros(3, dtype=torch.bool), DataError, "bool"),
        (torch.zeros(3).to(torch.float8_e4m3fn), DataError, "float8_e4m3fn"),
        (torch.tensor([0, 1, float("nan")]), DataError, "NaN or infinity"),
        (torch.tensor([0, 1, 1e300], dtype=torch.float64), DataError, "infinity in torch.float32"),
    ],
)
def test_weights_of_odd_things(model, weights, tmp_path, odd, error, found):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save({**weights, "layers.0.bias": odd}, tmp_path / "weights.pt")
    with pytest.raises(error, match=rf"layers\.0\.bias in .*{found}"):
        load_initial_weights(model, tmp_path / "weights.pt")
    check_loaded(model, before)


def test_quantized_weights_are_refused_without_a_warning(model, weights, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)
        torch.save({**weights, "layers.0.bias": quantized}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=r"expected floating-point weights, found torch\.qint8"):
        load_initial_weights(model, tmp_path / "weights.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_become_the_networks(model, weights, tmp_path, dtype):
    torch.save({name: tensor.to(dtype) for name, tensor in weights.items()}, tmp_path / "weights.pt")
    load_initial_weights(model, tmp_path / "weights.pt")
    check_loaded(model, {name: tensor.to(dtype).float() for name, tensor in weights.items()})


def test_counts_keep_their_value_in_another_type(tmp_path):
    saved, model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for count, ok in ((7, True), (7.0, True), (7.5, False)):
        torch.save({**saved.state_dict(), "1.num_batches_tracked": torch.tensor(count)}, tmp_path / "weights.pt")
        if ok:
            load_initial_weights(model, tmp_path / "weights.pt")
            assert model[1].num_batches_tracked == 7
        else:
            with pytest.raises(DataError, match="num_batches_tracked"):
                load_initial_weights(model, tmp_path / "weights.pt")


def test_missing_and_unexpected_names(model, weights, tmp_path):
    torch.save({n: t for n, t in weights.items() if n != "layers.0.bias"}, tmp_path / "few.pt")
    with pytest.raises(MismatchError, match=r"1 missing: layers\.0\.bias"):
        load_initial_weights(model, tmp_path / "few.pt")
    torch.save(weights | {"extra": torch.zeros(1)}, tmp_path / "many.pt")
    with pytest.raises(MismatchError, match="1 unexpected: extra"):
        load_initial_weights(model, tmp_path / "many.pt")


def test_two_weights_of_one_name(model, weights, tmp_path):
    torch.save(weights | {"other.bias": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(MismatchError, match=r"layers\.0\.bias twice"):
        load_initial_weights(model, tmp_path / "weights.pt", key_map=["other=layers.0"])


def test_what_is_ignored_keeps_its_initial_values(model, weights, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    body = {f"module.{n}": t for n, t in weights.items() if n.startswith("layers.0.")}
    torch.save({**body, "module.head.weight": torch.zeros(9, 3), "epoch": 4}, tmp_path / "weights.pt")
    said = []
    ignore = ["head.*", "epoch", "layers.1.*"]
    load_initial_weights(model, tmp_path / "weights.pt", ignore=ignore, warn=said.append)
    check_loaded(model, {n: weights[n] if n.startswith("layers.0.") else before[n] for n in weights})
    assert len(said) == 1
    assert said[0].endswith("layers.1.weight, layers.1.bias")
    with pytest.raises(UsageError, match=r"`ignore`.*matches a name, found 'heads"):
        load_initial_weights(model, tmp_path / "weights.pt", ignore=[*ignore, "heads.*"])
    with pytest.raises(MismatchError, match="a weight that this network can use"):
        load_initial_weights(model, tmp_path / "weights.pt", ignore=["*"])


def test_a_head_of_another_size_starts_anew_if_that_is_allowed(model, weights, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = {"layers.1.weight": torch.zeros(7, 3), "layers.1.bias": torch.zeros(7)}
    torch.save(weights | other, tmp_path / "weights.pt")
    with pytest.raises(MismatchError, match=r"expected shape \(2, 3\), found \(7, 3\).*`allow_mismatch`"):
        load_initial_weights(model, tmp_path / "weights.pt")
    said = []
    load_initial_weights(model, tmp_path / "weights.pt", allow_mismatch=True, warn=said.append)
    check_loaded(model, {n: before[n] if n in other else weights[n] for n in weights})
    assert "layers.1.weight (in the file (7, 3)), layers.1.bias (in the file (7,))" in said[0]


def test_a_tied_weight_needs_one_name(tmp_path):
    def build():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    for left_out in ("0.weight", "1.weight"):
        saved, model = build(), build()
        torch.save({n: t for n, t in saved.state_dict().items() if n != left_out}, tmp_path / "weights.pt")
        load_initial_weights(model, tmp_path / "weights.pt")
        check_loaded(model, saved.state_dict())


def pruned_by_torch(model):
    """The network with half of each weight pruned, as PyTorch's tutorial does it, and its effective weights."""
    for layer in model.layers:
        prune.random_unstructured(layer, "weight", 0.5)
    return {f"layers.{i}.weight": layer.weight.detach().clone() for i, layer in enumerate(model.layers)}


def check_masked(model, mask, expected):
    for name, weight in expected.items():
        assert torch.equal(model.get_parameter(name), weight)
        assert torch.equal(mask.tensors()[name], weight != 0)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_masks_of_torch_prune(model, tmp_path, prefix):
    source = build_model(ModelSpec("mlp", (4,), 2, (3,)), seed=1)
    expected = pruned_by_torch(source)
    torch.save({prefix + n: t for n, t in source.state_dict().items()}, tmp_path / "weights.pt")
    mask = load_initial_weights(model, tmp_path / "weights.pt")
    check_masked(model, mask, expected)
    assert mask.num_kept == 12 - 6 + 6 - 3
    # The pruned weights are there, in weight_orig, but they count for nothing.
    assert (source.state_dict()["layers.0.weight_orig"] != 0).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_masks_beside_their_weights(model, weights, tmp_path, dtype):
    keep = torch.arange(12).reshape(3, 4) % 3 > 0
    torch.save(weights | {"layers.0.weight_mask": keep.to(dtype)}, tmp_path / "weights.pt")
    mask = load_initial_weights(model, tmp_path / "weights.pt")
    check_masked(model, mask, {"layers.0.weight": weights["layers.0.weight"] * keep})
    assert mask.tensors()["layers.1.weight"].all()


@pytest.mark.parametrize(
    ("odd", "found"),
    [(torch.full((3, 4), 0.5), "0.5"), (torch.ones(4), "shape"), (torch.full((3, 4), torch.nan), "nan"), (3, "int")],
)
def test_masks_that_are_none(model, weights, tmp_path, odd, found):
    torch.save(weights | {"layers.0.weight_mask": odd}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=rf"mask of layers\.0\.weight in .*{found}"):
        load_initial_weights(model, tmp_path / "weights.pt")


def test_masks_of_what_cannot_be_pruned_are_applied_and_said(tmp_path):
    def build():
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    source, model, said = build(), build(), []
    prune.l1_unstructured(source[0], "bias", 1)
    prune.l1_unstructured(source[1], "weight", 1)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    mask = load_initial_weights(model, tmp_path / "weights.pt", warn=said.append)
    assert torch.equal(model[0].bias, source[0].bias)
    assert torch.equal(model[1].weight, source[1].weight)
    assert mask.num_pruned == 0
    assert said == ["masks of 0.bias, 1.weight are applied once and not held: they are of no prunable weight"]


def test_a_network_that_has_masks_of_its_own_keeps_their_names(tmp_path):
    class Gated(nn.Linear):
        def __init__(self):
            super().__init__(4, 2)
            self.register_buffer("weight_mask", torch.full((2, 4), 0.5))

    model, saved = Gated(), Gated().state_dict()
    torch.save(saved, tmp_path / "weights.pt")
    assert load_initial_weights(model, tmp_path / "weights.pt").num_pruned == 0
    check_loaded(model, saved)


def test_our_own_masks(model, weights, tmp_path):
    keep = torch.arange(12).reshape(3, 4) % 3 > 0
    masks = {"mask/layers.0.weight": keep, "mask/layers.1.weight": torch.ones(2, 3, dtype=torch.bool)}
    save_file({**weights, **masks, "optimizer/layers.0.weight/step": torch.ones(1)}, tmp_path / "a.safetensors")
    mask = load_initial_weights(model, tmp_path / "a.safetensors")
    check_masked(model, mask, {"layers.0.weight": weights["layers.0.weight"] * keep})
    # Without the layer, its mask is ignored, too.
    assert load_initial_weights(model, tmp_path / "a.safetensors", ignore=["layers.0.weight"]).num_pruned == 0


@pytest.mark.parametrize("name", ["torch", "safetensors", "csr"])
def test_what_export_writes(tmp_path, name):
    spec = ModelSpec("mlp", (40,), 2, (30,))
    source, model = build_model(spec, seed=1), build_model(spec, seed=0)
    keep = {n: torch.rand(source.get_parameter(n).shape) < 0.2 for n in ("layers.0.weight", "layers.1.weight")}
    weights = source.state_dict()
    for n, bits in keep.items():
        weights[n] *= bits
    # A kept weight may be 0 by itself.
    keep["layers.0.weight"][0, 0] = True
    networks = Networks(source, source, (40,))
    format = EXPORT_FORMATS.load(name)
    path = tmp_path / f"weights{format.suffix}"
    path.write_bytes(format.encode(networks, keep, format.holds_masks)[0])
    mask = load_initial_weights(model, path)
    check_loaded(model, weights)
    # csr stores a matrix densely where that is smaller.
    assert all(torch.equal(mask.tensors()[n], bits) for n, bits in keep.items() if name != "csr" or "0" in n)


def csr(**changes):
    parts = {"crow_indices": [0, 1, 1, 2], "col_indices": [3, 0], "values": [1.0, 2.0], "shape": [3, 4], **changes}
    return {f"layers.0.weight.{part}": torch.tensor(values) for part, values in parts.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [3, 10**15]},
        {"crow_indices": [0, 1, 2]},
        {"crow_indices": [0, 3, 1, 2]},
        {"crow_indices": [0, 1, 1, 10**9]},
        {"col_indices": [4, 0]},
        {"col_indices": [-1, 0]},
        {"col_indices": [3]},
    ],
)
def test_sparse_rows_that_are_no_matrix(model, weights, tmp_path, changes):
    others = {name: t for name, t in weights.items() if name != "layers.0.weight"}
    save_file(others | csr(), tmp_path / "weights.safetensors")
    load_initial_weights(model, tmp_path / "weights.safetensors")
    assert model.get_parameter("layers.0.weight").tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [2, 0, 0, 0]]
    save_file(others | csr(**changes), tmp_path / "weights.safetensors")
    with pytest.raises((DataError, MismatchError), match=r"layers\.0\.weight in"):
        load_initial_weights(model, tmp_path / "weights.safetensors")


def test_zeros_are_held_if_asked_for_and_mentioned_if_not(model, weights, tmp_path):
    weights["layers.0.weight"][1] = 0
    torch.save(weights, tmp_path / "weights.pt")
    said = []
    assert load_initial_weights(model, tmp_path / "weights.pt", warn=said.append).num_pruned == 0
    assert "22.22% of the prunable weights" in said.pop()
    mask = load_initial_weights(model, tmp_path / "weights.pt", keep_zeros=True, warn=said.append)
    check_masked(model, mask, {name: weights[name] for name in ("layers.0.weight", "layers.1.weight")})
    assert "22.22% of the prunable weights are pruned" in said.pop()
    torch.save({name: torch.zeros_like(tensor) for name, tensor in weights.items()}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match="isn't pruned"):
        load_initial_weights(model, tmp_path / "weights.pt", keep_zeros=True)
