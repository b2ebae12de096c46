"""Exceptions of code that isn't ours: whether a network or other code of the user raised one, told by its traceback."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from causalprune.base.errors import DataError

_OURS = ("causalprune", "causalprune_cli")
_CALLS = ("torch.nn.modules.module", ("_wrapped_call_impl", "_call_impl"))
"""Where PyTorch calls the ``forward`` of a module, which is ``self`` there, with ``args``."""
_WRAPPERS = ("torch.nn.parallel", "torch._dynamo")
_INSTALLED = ("/site-packages/", "/dist-packages/")
_STANDARD = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib"))


@dataclass(frozen=True)
class _Call:
    """The call of a module, which got as first argument ``inputs``."""

    module: Any
    inputs: Any

    @property
    def name(self) -> str:
        return type(self.module).__name__

    @property
    def kind(self) -> str:
        bases = (base.__module__ for base in type(self.module).__mro__)
        return "loss" if "torch.nn.modules.loss" in bases else "network"

    @property
    def expected(self) -> str:
        shape = getattr(self.inputs, "shape", None)
        return "outputs" if shape is None else f"outputs for inputs of shape {tuple(shape)}"


def foreign_error(error: BaseException) -> DataError | None:
    """What an exception says that the user's own code raised, or any network in a call; None if it is ours.

    Outwards from where it was raised, the frames of installed packages and of Python's library say nothing. The first
    other one decides: code of the user, or the call of a module, which names the network and its layer, or ours. An
    error of a backward pass comes from what the network did forward, such as changing a tensor in place.

    Args:
        error: With its traceback, which has to contain what was called.
    """
    frames = list(_frames(error))
    if isinstance(error, RuntimeError):
        # An operation's own error, which passed through whoever watches the operations of a network.
        watched = (number for number, frame in enumerate(frames) if frame.f_code.co_name == "__torch_dispatch__")
        frames = frames[: next(watched, None)]
    calls = [_Call(f.f_locals["self"], next(iter(f.f_locals.get("args", ())), None)) for f in frames if _is_call(f)]
    calls = [call for call in calls if not type(call.module).__module__.startswith(_WRAPPERS)]
    speaking = [number for number, f in enumerate(frames) if _is_call(f) or _owner(f) != "library"]
    if not speaking:
        return None
    at, caller = frames[speaking[-1]], frames[max(0, speaking[-1] - 1)]
    backward = any(str(f.f_globals.get("__name__")).startswith("torch.autograd") for f in frames[speaking[-1] + 1 :])
    # The forward of one of our networks is a network's code, too.
    if _owner(at) == "ours" and not backward and not (at.f_code.co_name == "forward" and _is_call(caller)):
        return None
    found = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200].rstrip(": ")
    if backward and not calls:
        # PyTorch doesn't say which operation of the forward pass it was.
        subject, expected = "backward pass of the network", "gradients"
    elif calls:
        network, layer = calls[0], calls[-1]
        name = next((name for name, module in network.module.named_modules() if module is layer.module), "")
        subject = f"{network.kind} {network.name}" + (f", layer {name} ({layer.name})" if name else "")
        expected = network.expected
    else:
        subject, expected = f"{at.f_globals.get('__name__')}.{at.f_code.co_qualname}", "no exception"
    made = DataError(subject, expected=expected, found=found, remedy="`debug` shows where")
    made.__cause__ = error
    return made


def _frames(error: BaseException) -> Iterator[FrameType]:
    """The frames from the outermost to where the exception was raised."""
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _is_call(frame: FrameType) -> bool:
    module, functions = _CALLS
    return frame.f_globals.get("__name__") == module and frame.f_code.co_name in functions


def _owner(frame: FrameType) -> str:
    """Whose code it is: ``ours``, that of a ``library``, or the ``user``'s."""
    if str(frame.f_globals.get("__name__")).partition(".")[0] in _OURS:
        return "ours"
    file = frame.f_code.co_filename
    installed = file.startswith(("<frozen ", *_STANDARD)) or any(part in file for part in _INSTALLED)
    return "library" if installed else "user"
