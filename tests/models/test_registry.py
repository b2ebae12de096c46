from importlib import import_module

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

from causalprune.base.compute.shapes import Tokens
from causalprune.base.errors import CorruptError, UsageError
from causalprune.base.specs import ModelSpec
from causalprune.models.names import MODELS, check_model_name, default_model
from causalprune.models.parameters import ParameterIndex
from causalprune.models.registry import build_model, rebuild_model


def count(model):
    return sum(p.numel() for p in model.parameters())


def prunable(name, shape=(3, 32, 32), outputs=10):
    return ParameterIndex.from_model(build_model(ModelSpec(name, shape, outputs), seed=0)).total


@pytest.mark.parametrize("name", sorted({*MODELS} - {"tinygpt"}))
def test_every_model_learns_from_small_images(name):
    model = build_model(ModelSpec(name, (3, 32, 32), 7), seed=0)
    outputs = model(torch.randn(2, 3, 32, 32))
    assert outputs.shape == (2, 7)
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_sizes_are_those_of_the_literature():
    assert prunable("lenet") == 656_500
    assert prunable("lenet", (1, 28, 28)) == 25 * 20 + 20 * 25 * 50 + 800 * 500 + 500 * 10
    assert prunable("mlpnet", (1, 28, 28)) == 784 * 40 + 40 * 20 + 20 * 10
    blocks = sum(3 * 2 * 9 * c * c for c in (16, 32, 64)) - 9 * (32 * 16 + 64 * 32)
    assert prunable("resnet20") == 27 * 16 + blocks + 640
    assert count(build_model(ModelSpec("resnet20", (3, 32, 32), 10), seed=0)) == 269_722


def test_torchvision_models_are_torchvisions():
    for name in ("resnet18", "mobilenet_v2", "vgg11_bn"):
        ours = build_model(ModelSpec(f"torchvision:{name}", (3, 64, 64), 10), seed=0)
        theirs = torchvision_models.get_model(name, weights=None, num_classes=10)
        assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}


def test_gray_images_get_a_stem_of_one_channel():
    model = build_model(ModelSpec("resnet18", (1, 28, 28), 10), seed=0)
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_weights_depend_on_the_seed_alone():
    before = torch.random.get_rng_state()
    first, again, other = (build_model(ModelSpec("lenet", (1, 8, 8), 10), seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first["fc1.weight"], other["fc1.weight"])


def test_dropout_is_off_in_evaluation():
    model = build_model(ModelSpec("alexnet", (3, 32, 32), 10), seed=0).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), model(images))


def test_names():
    assert default_model((1, 8, 8)) == "lenet"
    assert default_model((30,)) == "mlp"
    assert "did you mean 'resnet20'" in check_model_name("resnet2")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ModelSpec("lenet", (30,), 2), "images"),
        (ModelSpec("lenet", (1, 3, 3), 2), "at least 4×4"),
        (ModelSpec("lenet", Tokens((8,), 9), 9), "images or features, found 8 tokens; use `model=tinygpt`"),
        (ModelSpec("mlp", Tokens((8,), 9), 9), "found 8 tokens"),
        (ModelSpec("tinygpt", (1, 8, 8), 9), "expected tokens, found images; use it with `dataset=topics`"),
        (ModelSpec("tinygpt", Tokens((8,), 9), 9), r"outputs \(N, 9\)"),
        (ModelSpec("lenet", (1, 8, 8), 2, hidden=(3,)), "`model=mlp`"),
        (ModelSpec("torchvision:resnet1", (3, 32, 32), 2), "did you mean"),
        (ModelSpec("users_nets:missing", (3, 8, 8), 2), "users_nets"),
        (ModelSpec("users_nets:raises", (3, 8, 8), 2), "no luck"),
        (ModelSpec("users_nets:number", (3, 8, 8), 2), "int"),
        (ModelSpec("users_nets:narrow", (3, 8, 8), 2), "outputs"),
    ],
)
def test_misfits_are_refused_before_training(spec, words, tmp_path, monkeypatch):
    (tmp_path / "users_nets.py").write_text(
        "from torch import nn\n"
        "def raises(): raise RuntimeError('no luck')\n"
        "def number(): return 3\n"
        "def narrow(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=words):
        build_model(spec, seed=0)


def test_the_users_own_model(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, num_outputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], num_outputs))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = ModelSpec("my_nets:net", (5,), 3)
    assert isinstance(build_model(spec, seed=0), nn.Sequential)
    with pytest.raises(CorruptError, match="`trust_code`"):
        build_model(spec, seed=0, trust_code=False)


def test_tied_weights_are_listed_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert ParameterIndex.from_model(model).total == 16


def test_factories_that_quit_or_draw_random_numbers(tmp_path, monkeypatch):
    (tmp_path / "odd_nets.py").write_text(
        "import sys, torch\n"
        "from torch import nn\n"
        "def quits(): sys.exit(0)\n"
        "class Draws(nn.Linear):\n"
        "    def forward(self, inputs): return super().forward(inputs + torch.rand(1))\n"
        "def draws(): return Draws(4, 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="SystemExit"):
        build_model(ModelSpec("odd_nets:quits", (4,), 2), seed=0)
    before = torch.random.get_rng_state()
    build_model(ModelSpec("odd_nets:draws", (4,), 2), seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_registered_model_is_one_line_and_gets_what_it_takes(tmp_path, monkeypatch):
    (tmp_path / "registered_nets.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "MEAN = torch.ones(3)\n"
        "def net(input_shape, hidden=(2,)):\n"
        "    return nn.Sequential(nn.Linear(input_shape[0], hidden[0]), nn.Linear(hidden[0], 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(MODELS, "tiny", "registered_nets:net")
    assert check_model_name("tiny") is None
    assert "did you mean 'tiny'" in check_model_name("tinny")
    spec = ModelSpec("tiny", (5,), 3, hidden=(4,))
    rebuilt = rebuild_model(spec, {n: torch.zeros(s) for n, s in SHAPES.items()}, "a file")
    assert rebuilt[0].out_features == build_model(spec, seed=0)[0].out_features == 4
    # Built once without storage; what its module holds isn't.
    assert import_module("registered_nets").MEAN.device.type == "cpu"


SHAPES = {"0.weight": (4, 5), "0.bias": (4,), "1.weight": (3, 4), "1.bias": (3,)}
