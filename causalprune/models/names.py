"""Names of the models, known without importing PyTorch."""

from __future__ import annotations

import difflib

MODEL_NAMES = (
    "lenet",
    "mlpnet",
    "mlp",
    "alexnet",
    "resnet18",
    "resnet20",
    "resnet50",
    "vgg11_bn",
    "vgg16_bn",
    "mobilenet_v2",
)


def default_model(input_shape: tuple[int, ...]) -> str:
    """Name the model that ``pretrain`` takes when none is asked for: lenet for images, mlp for tables."""
    return "lenet" if len(input_shape) == 3 else "mlp"


def check_model_name(name: str) -> str | None:
    """Say what was expected when ``name`` is no model, else None; empty means the default."""
    family, colon, rest = name.partition(":")
    if not name or name in MODEL_NAMES or (colon and family and rest):
        return None
    near = difflib.get_close_matches(name, MODEL_NAMES, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return "one of " + ", ".join(MODEL_NAMES) + ", torchvision:NAME or package.module:factory" + hint
