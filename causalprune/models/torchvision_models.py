"""Networks built by torchvision, with stems for small images and the right numbers of inputs and outputs."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from causalprune.base.errors import UsageError
from causalprune.base.registry import nearest
from causalprune.models.registry import image_shape

SMALL_SIDE = 64
"""For images of up to this size, networks get a stem that keeps the resolution."""


def torchvision_model(name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Build ``torchvision:NAME`` without weights, as torchvision makes it.

    Raises:
        UsageError: torchvision has no such classification model.
    """
    from torchvision import models

    channels, _, _ = image_shape(f"torchvision:{name}", input_shape)
    known = models.list_models(module=models)
    if name not in known:
        near = nearest(name, known)
        remedy = f"did you mean torchvision:{near}?" if near else "see torchvision.models.list_models()"
        raise UsageError("`model`", expected="a classification model of torchvision", found=repr(name), remedy=remedy)
    # The auxiliary heads of these two would change what the model returns in training.
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_outputs, **extra)
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        # Another number of input channels, with new weights.
        first.in_channels = channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, channels, *first.kernel_size))
        first.reset_parameters()
    return model


def _small_image_model(name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Build a torchvision model, adapted to the size of the images.

    Up to 64×64, as is usual for CIFAR, residual networks start with a 3×3 convolution of stride 1 without pooling,
    MobileNetV2 starts with stride 1, and VGG ends with one linear layer on 512 features.
    """
    channels, height, width = image_shape(name, input_shape)
    built = torchvision_model(name, input_shape, num_outputs)
    model: Any = built
    if max(height, width) > SMALL_SIDE:
        return built
    if name.startswith("resnet"):
        model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    elif name.startswith("vgg"):
        model.avgpool = nn.AdaptiveAvgPool2d(1)
        model.classifier = nn.Linear(512, num_outputs)
    else:
        model.features[0][0].stride = (1, 1)
    return built


resnet18 = partial(_small_image_model, "resnet18")
resnet50 = partial(_small_image_model, "resnet50")
vgg11_bn = partial(_small_image_model, "vgg11_bn")
vgg16_bn = partial(_small_image_model, "vgg16_bn")
mobilenet_v2 = partial(_small_image_model, "mobilenet_v2")
