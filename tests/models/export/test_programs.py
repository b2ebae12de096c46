"""Networks with convolutions and BatchNorm in every format, and what can't be exported or reads back as another."""

import os
from pathlib import Path

import pytest
import torch
from causalprune_cli.main import main
from networks_of_runs import final_network
from safetensors.torch import load_file
from torch import nn

from causalprune.base import files
from causalprune.base.errors import MismatchError, UsageError
from causalprune.models.export.formats import Networks, from_csr, saved_bytes
from causalprune.models.export.programs import onnx_bytes, trace
from causalprune.models.names import EXPORT_FORMATS


def with_tensors(model, tensors):
    """A network with tensors of other sizes: what a class that is told them would be."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert own.keys() == tensors.keys()
    for name, tensor in tensors.items():
        own[name].data = tensor
    return model


def outputs_of(path, format, run, inputs):
    """By no code of causalprune but the network's class, and for sparse rows their reader."""
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {"inputs": inputs.numpy()})[0])
    with torch.no_grad():
        if format == "pt2":
            return torch.export.load(path).module()(inputs)
        tensors = torch.load(path, weights_only=True) if format == "torch" else load_file(path)
        return with_tensors(final_network(run), from_csr(tensors) if format == "csr" else tensors)(inputs)


@pytest.mark.parametrize("format", list(EXPORT_FORMATS))
@pytest.mark.parametrize("name", ["lenet_run", "resnet_run"])
def test_a_convolutional_network(name, format, exported, request) -> None:
    run = request.getfixturevalue(name)
    inputs = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = final_network(run)(inputs)
    path = run / f"exported{EXPORT_FORMATS.load(format).suffix}"
    metrics = exported(run, "--format", format)
    found = outputs_of(path, format, run, inputs)
    assert metrics["dead_units"] > 0
    if format == "onnx":
        assert metrics["verified"] == "outputs"
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    else:
        assert (metrics["verified"], metrics["max_difference"]) == ("bits", 0)
        assert torch.equal(found, expected)
    smaller = exported(run, "--format", format, "--compact")
    assert smaller["parameters"] < metrics["parameters"]
    assert smaller["verified"] == metrics["verified"]
    assert smaller["max_difference"] < 1e-4 * max(1, float(expected.abs().max()))
    found = outputs_of(path, format, run, inputs)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_dead_filter_is_told_of_and_a_single_zero_is_not(lenet_run, exported, capsys) -> None:
    arguments = ["export", "--run", str(lenet_run), "--quiet", "--overwrite"]
    assert main(arguments) == 0
    assert "filters and neurons have every weight pruned" in capsys.readouterr().out
    assert main([*arguments, "--checkpoint", str(lenet_run / "pretrained.safetensors")]) == 0
    assert "Unstructured zeros" in capsys.readouterr().out


class Scaled(nn.Module):
    """Outputs of any size."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale = nn.Linear(6, 3, bias=False), scale

    def forward(self, inputs):
        return self.scale * self.layer(inputs)


@pytest.mark.parametrize("scale", [1e-5, 1.0])
def test_outputs_that_are_off_are_refused_however_small_they_are(tmp_path, scale) -> None:
    path = tmp_path / "network"
    right, wrong = Scaled(scale).eval(), Scaled(2 * scale).eval()
    data, compare = EXPORT_FORMATS.load("onnx").encode(Networks(right, right, (6,)), {}, False)
    path.write_bytes(data)
    verified, difference = compare(path)
    assert verified == "outputs"
    assert difference < 1e-5 * scale
    path.write_bytes(EXPORT_FORMATS.load("onnx").encode(Networks(wrong, wrong, (6,)), {}, False)[0])
    with pytest.raises(MismatchError, match="a difference of"):
        compare(path)


def test_outputs_of_zero_are_equal_to_themselves_alone(tmp_path) -> None:
    path = tmp_path / "network"
    silent, loud = Scaled(0.0).eval(), Scaled(1e-9).eval()
    data, compare = EXPORT_FORMATS.load("onnx").encode(Networks(silent, silent, (6,)), {}, False)
    path.write_bytes(data)
    assert compare(path) == ("outputs", 0.0)
    path.write_bytes(EXPORT_FORMATS.load("onnx").encode(Networks(loud, loud, (6,)), {}, False)[0])
    with pytest.raises(MismatchError):
        compare(path)


def test_the_difference_is_from_the_checkpoint_s_network(tmp_path) -> None:
    path = tmp_path / "network"
    networks = Networks(Scaled(1.0).eval(), Scaled(1.00005).eval(), (6,))
    expected = float((networks.outputs(networks.checkpoint) - networks.outputs(networks.exported)).abs().max())
    for format in ("onnx", "pt2", "torch"):
        data, compare = EXPORT_FORMATS.load(format).encode(networks, {}, False)
        path.write_bytes(data)
        assert compare(path)[1] == pytest.approx(expected, rel=0.01), format


@pytest.mark.parametrize("format", list(EXPORT_FORMATS))
def test_a_file_that_the_disk_changed_is_not_accepted(lenet_run, tmp_path, capsys, format) -> None:
    """What is compared is the file: here one that lost the network on its way."""
    zeros = final_network(lenet_run)
    for parameter in zeros.parameters():
        nn.init.zeros_(parameter)
    other, _ = EXPORT_FORMATS.load(format).encode(Networks(zeros, zeros, (1, 8, 8)), {}, False)

    class Lossy(files.Disk):
        def write(self, descriptor, data):
            is_export = ".exported.any.partial-" in str(Path(f"/proc/self/fd/{descriptor}").readlink())
            os.write(descriptor, other if is_export else data)
            return len(data)

    path = tmp_path / "exported.any"
    path.write_bytes(b"what was there")
    arguments = ["export", "--format", format, "--output", str(path), "--overwrite", "--run", str(lenet_run), "--quiet"]
    with files.use(Lossy()):
        assert main(arguments) == 5
    assert "read back" in capsys.readouterr().err
    assert path.read_bytes() == b"what was there"
    assert sorted(p.name for p in tmp_path.iterdir() if "lock" not in p.name) == ["exported.any"]


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs):
        outputs = self.layer(inputs)
        return outputs if outputs.sum() > 0 else -outputs


class FixedBatch(Branching):
    def forward(self, inputs):
        return self.layer(inputs).view(2, 2)


@pytest.mark.parametrize("kind", [Branching, FixedBatch])
def test_a_network_that_cant_be_traced(kind, capfd) -> None:
    with pytest.raises(UsageError, match=r"expected a network that torch.export can trace.*`format=torch`"):
        trace(kind(), (4,))
    assert capfd.readouterr() == ("", "")


class Spectral(Branching):
    def forward(self, inputs):
        return torch.linalg.eigvalsh(self.layer.weight @ self.layer.weight.T) + self.layer(inputs)


def test_an_operation_that_onnx_lacks(capfd) -> None:
    program = trace(Spectral(), (4,))
    assert saved_bytes(torch.export.save, program)
    with pytest.raises(UsageError, match=r"expected a network of operations that ONNX has.*`format=pt2`"):
        onnx_bytes(program)
    assert capfd.readouterr() == ("", "")


def test_tracing_leaves_the_network_and_names_no_files() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    program = trace(model, (4,))
    data = saved_bytes(torch.export.save, program)
    assert onnx_bytes(program)
    assert [module.training for module in model] == [True, True, False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert b".py" not in data
    assert data == saved_bytes(torch.export.save, trace(model, (4,)))
