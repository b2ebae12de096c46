"""Every format is read in a process that has no causalprune, and gives the same bits or outputs."""

import json

import pytest
import torch
from causalprune_cli.main import main
from elsewhere import run_elsewhere
from safetensors.torch import load_file
from torch import nn

from causalprune.models.checkpoint import load_checkpoint
from causalprune.models.export.formats import from_csr, safetensors_bytes, to_csr

READER = """
import torch
from torch import nn
def network(sizes):
    layers = [nn.Flatten()]
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
def names(tensors):
    return {f"{2 * int(n.split('.')[1]) + 1}.{n.split('.', 2)[2]}": t for n, t in tensors.items()}
inputs = torch.linspace(-1, 1, 5 * 64).reshape(5, 1, 8, 8)
def save(outputs):
    torch.save(outputs.detach(), sys.argv[2])
"""
"""A reader who knows the network, a flat MLP, and PyTorch."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A pruned MLPNet on the digits: whole neurons, then single weights."""
    run = tmp_path_factory.mktemp("export") / "run"
    prune = ["apply-mask", "--criterion", "magnitude"]
    dense, neurons, final = (run / f"{name}.safetensors" for name in ("pretrained", "neurons", "final"))
    for command in (
        ["pretrain", "--model", "mlpnet", "--epochs", 3],
        [*prune, "--granularity", "neuron", "--sparsity", 0.5, "--checkpoint", dense, "--output", neurons],
        [*prune, "--sparsity", 0.9, "--checkpoint", neurons, "--output", final],
    ):
        assert main([str(c) for c in command] + ["--run", str(run), "--quiet"]) == 0
    return run


def exported(run, tmp_path, capsys, *options):
    path = tmp_path / "exported"
    command = ["export", *options, "--output", str(path), "--run", str(run), "--json", "--quiet"]
    capsys.readouterr()
    assert main(command) == 0
    return path, json.loads(capsys.readouterr().out)["metrics"]


def outputs_elsewhere(path, tmp_path, code):
    """The outputs that a process without causalprune computes."""
    found = tmp_path / "outputs.pt"
    run_elsewhere(READER + code, path, found)
    return torch.load(found, weights_only=True)


def expected_outputs(run):
    weights = load_checkpoint(run / "final.safetensors").weights
    hidden = torch.linspace(-1, 1, 5 * 64).reshape(5, 64)
    for name in ("layers.0.weight", "layers.1.weight", "layers.2.weight"):
        hidden = nn.functional.linear(hidden if name.startswith("layers.0") else hidden.relu(), weights[name])
    return hidden


LOADERS = {
    "torch": "weights = torch.load(sys.argv[1], weights_only=True)\n",
    "safetensors": "from safetensors.torch import load_file\nweights = load_file(sys.argv[1])\n",
    "csr": """
from safetensors.torch import load_file
parts = load_file(sys.argv[1])
weights = {n: t for n, t in parts.items() if n.endswith(".weight")}
for n in [n.removesuffix(".values") for n in parts if n.endswith(".values")]:
    shape = parts[n + ".shape"].tolist()
    sparse = torch.sparse_csr_tensor(*(parts[f"{n}.{p}"] for p in ("crow_indices", "col_indices", "values")), shape)
    weights[n] = sparse.to_dense()
""",
}


@pytest.mark.parametrize("format", list(LOADERS))
def test_weights_load_without_causalprune(run, tmp_path, capsys, format) -> None:
    path, metrics = exported(run, tmp_path, capsys, "--format", format)
    assert metrics["verified"] == "bits"
    code = (
        LOADERS[format]
        + "model = network((64, 40, 20, 10)); model.load_state_dict(names(weights)); save(model(inputs))"
    )
    assert torch.equal(outputs_elsewhere(path, tmp_path, code), expected_outputs(run))


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_masks_by_the_names_of_torch_prune(run, tmp_path, capsys, format) -> None:
    """torch.nn.utils.prune loads it strictly, applies the mask, and can make it permanent."""
    path, _ = exported(run, tmp_path, capsys, "--format", format, "--masks")
    code = (
        LOADERS[format]
        + """
from torch.nn.utils import prune
model = network((64, 40, 20, 10))
for layer in model[1::2]:
    prune.identity(layer, "weight")
model.load_state_dict(names(weights), strict=True)
outputs = model(inputs)
for layer in model[1::2]:
    prune.remove(layer, "weight")
assert torch.equal(outputs, model(inputs))
assert sum(int((l.weight == 0).sum()) for l in model[1::2]) == 3204
save(outputs)
"""
    )
    assert torch.equal(outputs_elsewhere(path, tmp_path, code), expected_outputs(run))


def test_onnx_runs_without_causalprune_and_torch_code(run, tmp_path, capsys) -> None:
    path, metrics = exported(run, tmp_path, capsys, "--format", "onnx", "--compact")
    assert metrics["verified"] == "outputs"
    code = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
save(torch.from_numpy(session.run(None, {"inputs": inputs.numpy()})[0]))
"""
    assert torch.allclose(outputs_elsewhere(path, tmp_path, code), expected_outputs(run), rtol=1e-4, atol=1e-5)


def test_a_compact_model_is_a_smaller_state_dict(run, tmp_path, capsys) -> None:
    path, metrics = exported(run, tmp_path, capsys, "--compact")
    weights = torch.load(path, weights_only=True)
    removed = [layer["removed"] for layer in metrics["compact"]["layers"]]
    assert removed[0] > 0
    assert weights["layers.0.weight"].shape == (40 - removed[0], 64)
    assert metrics["parameters"] == sum(t.numel() for t in weights.values()) < metrics["parameters_before"] == 3560
    assert set(metrics["compact"]["latency"]) == {"1", "64"}
    sizes = (64, 40 - removed[0], 20 - removed[1], 10)
    code = LOADERS["torch"] + f"model = network({sizes}); model.load_state_dict(names(weights)); save(model(inputs))"
    assert torch.allclose(outputs_elsewhere(path, tmp_path, code), expected_outputs(run), rtol=1e-4, atol=1e-5)


def test_tied_weights(tmp_path) -> None:
    weight = torch.randn(3, 3)
    (tmp_path / "tied").write_bytes(safetensors_bytes({"a.weight": weight, "b.weight": weight}))
    assert all(torch.equal(tensor, weight) for tensor in load_file(tmp_path / "tied").values())


def test_csr_keeps_every_bit() -> None:
    torch.manual_seed(0)
    weights = {"conv.weight": torch.randn(6, 5, 3, 3), "fc.weight": torch.randn(4, 9), "fc.bias": torch.randn(4)}
    keep = {"conv.weight": torch.rand(6, 5, 3, 3) < 0.1, "fc.weight": torch.ones(4, 9, dtype=torch.bool)}
    keep["conv.weight"][2] = False
    weights["conv.weight"][~keep["conv.weight"]] = 0.0
    keep["conv.weight"][0, 0, 0, :2] = True
    # A kept weight may be zero, of either sign.
    weights["conv.weight"][0, 0, 0, :2] = torch.tensor([0.0, -0.0])
    parts = to_csr(weights, keep)
    assert "fc.weight" in parts
    assert parts["conv.weight.values"].numel() == int(keep["conv.weight"].sum())
    read = from_csr(parts)
    assert read.keys() == weights.keys()
    assert all(read[name].numpy().tobytes() == tensor.numpy().tobytes() for name, tensor in weights.items())


def test_the_same_export_is_done_once_and_another_is_refused(run, tmp_path, capsys) -> None:
    path, first = exported(run, tmp_path, capsys, "--format", "csr")
    before = path.read_bytes()
    again = exported(run, tmp_path, capsys, "--format", "csr")[1]
    assert again == first
    options = ["--output", str(path), "--run", str(run), "--quiet"]
    assert main(["export", "--format", "torch", *options]) == 5
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert load_file(path)
    assert main(["export", "--format", "safetensors", "--overwrite", *options]) == 0
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--format", "onnxx"], 2, "did you mean 'onnx'"),
        (["--format", "csr", "--masks"], 2, "--masks: expected --format torch or safetensors"),
        (["--compact", "--masks"], 2, "--masks: expected no --compact"),
        (["--compact", "--checkpoint", "{run}/pretrained.safetensors"], 3, "--granularity"),
        (["--checkpoint", "{run}/absent.safetensors"], 3, "absent.safetensors"),
        (["--output", "{run}/final.safetensors"], 2, "output path"),
    ],
)
def test_what_cant_be_exported(run, capsys, options, code, says) -> None:
    before = sorted(p.name for p in run.iterdir() if "lock" not in p.name)
    assert main(["export", *(o.format(run=run) for o in options), "--run", str(run), "--quiet"]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert sorted(p.name for p in run.iterdir() if "lock" not in p.name) == before


def test_evaluate_measures_the_cost(run, tmp_path, capsys) -> None:
    command = ["evaluate", "--cost", "--run", str(run), "--output", str(tmp_path / "evaluate.json")]
    assert main([*command, "--quiet", "--json"]) == 0
    evaluation = json.loads(capsys.readouterr().out)["metrics"]["evaluation"]
    assert evaluation["bytes_csr"] < evaluation["bytes_dense"] == 4 * 3560
    assert evaluation["cost"]["bytes_deflate"] < evaluation["bytes_dense"]
    for batch_size in ("1", "64"):
        assert evaluation["cost"]["latency"][batch_size]["compact"] > 0
        memory = evaluation["cost"]["peak_memory"][batch_size]
        assert memory["compact"] < memory["dense"]
    assert main([*command, "--quiet"]) == 0
    assert "latency, batch 64" in capsys.readouterr().out
