"""The names of the models, of the export formats and of files of weights, available without importing PyTorch."""

from __future__ import annotations

from causalprune.base.compute.shapes import InputShape, SeveralInputs, Tokens
from causalprune.base.registry import Registry, expected_name

MODELS = Registry(
    "model",
    {
        "lenet": "causalprune.models.networks:LeNet",
        "mlpnet": "causalprune.models.networks:mlpnet",
        "mlp": "causalprune.models.networks:MLP",
        "alexnet": "causalprune.models.networks:AlexNet",
        "resnet18": "causalprune.models.torchvision_models:resnet18",
        "resnet20": "causalprune.models.networks:ResNet20",
        "resnet50": "causalprune.models.torchvision_models:resnet50",
        "vgg11_bn": "causalprune.models.torchvision_models:vgg11_bn",
        "vgg16_bn": "causalprune.models.torchvision_models:vgg16_bn",
        "tinygpt": "causalprune.models.tinygpt:TinyGPT",
        "mobilenet_v2": "causalprune.models.torchvision_models:mobilenet_v2",
    },
)
"""Each is called with those of ``input_shape``, ``num_outputs``, ``vocabulary``, ``task`` and ``hidden`` (if given)
that are among its parameters."""

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pt.tar", ".pth.tar")
"""How the names of state dicts end that ``torch.save`` wrote."""

EXPORT_FORMATS = Registry(
    "export format",
    {
        "torch": "causalprune.models.export.formats:TORCH",
        "safetensors": "causalprune.models.export.formats:SAFETENSORS",
        "csr": "causalprune.models.export.formats:CSR",
        "pt2": "causalprune.models.export.programs:PT2",
        "onnx": "causalprune.models.export.programs:ONNX",
    },
)
"""Each is a :class:`causalprune.models.export.formats.ExportFormat`."""


def default_model(input_shape: InputShape) -> str:
    """The model that is used by default: lenet for images, mlp for tables, tinygpt for texts."""
    if isinstance(input_shape, Tokens):
        return "tinygpt"
    # None takes several inputs; building it says so.
    return "lenet" if not isinstance(input_shape, SeveralInputs) and len(input_shape) == 3 else "mlp"


def is_own(name: str) -> bool:
    """Whether a model is ``package.module:factory``."""
    return ":" in name and not name.startswith("torchvision:")


def check_model_name(name: str) -> str | None:
    """Check an option: None for the name of a model or an empty one (the default model), else the expected values."""
    family, colon, rest = name.partition(":")
    if not name or name in MODELS or (colon and family and rest):
        return None
    return expected_name(name, MODELS.choices, others=("torchvision:NAME or package.module:factory",))


# For the completion of the shell.
check_model_name.names = lambda: MODELS.choices  # type: ignore[attr-defined]
