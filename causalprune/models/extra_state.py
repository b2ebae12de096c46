"""What ``get_extra_state`` of a user's module returns, as tensors, so that a state dict holds nothing else.

JSON values become the UTF-8 bytes of ``json:`` and their JSON, in a uint8 tensor; tensors stay as they are.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import UsageError

_MARK = b"json:"


def is_extra_state(name: str) -> bool:
    """Whether a name in a state dict is that of an extra state, whose shape may change."""
    return name.rpartition(".")[2] == "_extra_state"


def carry_extra_state(model: nn.Module, source: str) -> None:
    """Let the network's state dict hold tensors only from now on, and its ``load_state_dict`` take both forms.

    Args:
        model: Changed in place; nothing happens to one without an extra state.
        source: What the network is called, for the error.

    Raises:
        UsageError: The extra state can't be restored, or is neither a tensor nor made of JSON values.
    """
    carriers = [type(m) for m in model.modules() if type(m).get_extra_state is not nn.Module.get_extra_state]
    if not carriers:
        return
    for kind in carriers:
        if kind.set_extra_state is nn.Module.set_extra_state:
            found = f"get_extra_state alone in {kind.__name__}"
            raise UsageError(source, expected="get_extra_state together with set_extra_state", found=found)

    def encode(_: nn.Module, state: dict[str, Any], __: str, ___: Any) -> None:
        state |= {name: encoded(value, f"{name} of {source}") for name, value in state.items() if is_extra_state(name)}

    def decode(_: nn.Module, state: dict[str, Any], *__: Any) -> None:
        state |= {name: decoded(value) for name, value in state.items() if is_extra_state(name)}

    model.register_state_dict_post_hook(encode)  # type: ignore[no-untyped-call]
    model.register_load_state_dict_pre_hook(decode)  # type: ignore[no-untyped-call]
    model.state_dict()


def encoded(value: Any, source: str) -> torch.Tensor:
    """An extra state as a tensor.

    Raises:
        UsageError: It is neither a tensor nor made of JSON values.
    """
    if isinstance(value, torch.Tensor):
        return value
    try:
        text = json.dumps(value)
        same = json.loads(text) == value
    except (TypeError, ValueError, RecursionError):
        same = False
    if not same:
        found = f"{value!r}"[:60]
        raise UsageError(source, expected="an extra state that is a tensor or made of JSON values", found=found)
    return torch.frombuffer(bytearray(_MARK + text.encode()), dtype=torch.uint8)


def decoded(value: Any) -> Any:
    """The extra state of :func:`encoded`; any other value as it is."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.uint8:
        return value
    data = value.cpu().numpy().tobytes()
    return json.loads(data.removeprefix(_MARK)) if data.startswith(_MARK) else value
