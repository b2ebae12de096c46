"""What a network is called with, one tensor or several, and which of its outputs count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn

from causalprune.base.compute.shapes import Flags, InputShape, OneInput, SeveralInputs, Tokens
from causalprune.base.errors import MismatchError

Inputs = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
"""What a network is called with: a tensor (N, …), or several by position or by name."""

TARGETS = ("labels", "label", "targets", "target", "y")
"""What the targets are called where a batch is a dictionary; everything else in it is an input."""


def without_targets(batch: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """What a network is called with of a batch that is a dictionary.

    Targets are left out by their names, but those that ``forward`` requires. Where it takes them only optionally, as
    the models of Hugging Face take ``labels``, it would put out their loss before its logits.
    """
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    arguments = signature(model.forward).parameters.values()
    required = {each.name for each in arguments if each.kind in named and each.default is Parameter.empty}
    return {name: value for name, value in batch.items() if name not in TARGETS or name in required}


_WHOLE = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)


def are_indices(part: torch.Tensor) -> bool:
    """Whether the values of an input are looked up, not computed with, by their dtype alone.

    Whole numbers of any size are, except bytes (``uint8``), which are pixels; floats and bools aren't.
    """
    return part.dtype in _WHOLE


def forward(model: nn.Module, inputs: Inputs) -> Any:
    """Call a network with one tensor, with several by position, or by name."""
    if isinstance(inputs, torch.Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def parts_of(inputs: Inputs) -> list[torch.Tensor]:
    """The tensors of some inputs, in their order."""
    if isinstance(inputs, torch.Tensor):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, Mapping) else inputs)


def arranged_as(inputs: Inputs, parts: Sequence[torch.Tensor]) -> Inputs:
    """Other tensors in the place of those of some inputs."""
    if isinstance(inputs, torch.Tensor):
        return parts[0]
    return dict(zip(inputs, parts, strict=True)) if isinstance(inputs, Mapping) else tuple(parts)


def mapped(function: Callable[[torch.Tensor], torch.Tensor], inputs: Inputs) -> Inputs:
    """What a function makes of each tensor."""
    return arranged_as(inputs, [function(part) for part in parts_of(inputs)])


def count_of(inputs: Inputs) -> int:
    """N, the number of samples."""
    return len(parts_of(inputs)[0])


def joined(batches: Sequence[Inputs]) -> Inputs:
    """The samples of several batches as one."""
    return arranged_as(batches[0], [torch.cat(parts) for parts in zip(*map(parts_of, batches), strict=True)])


def divided(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """Batches of ``size`` samples, the last one perhaps smaller; see :func:`samples_between`."""
    for start in range(0, count_of(inputs), size):
        yield samples_between(inputs, start, start + size)


def samples_between(inputs: Inputs, start: int, stop: int) -> Inputs:
    """Some samples of a batch; a part that hasn't a value for each of its samples stays whole."""
    count = count_of(inputs)
    return mapped(lambda part: part[start:stop] if part.dim() and len(part) == count else part, inputs)


def example_inputs(
    shape: InputShape, count: int, *, device: torch.device | str = "cpu", random: bool = False
) -> Inputs:
    """Inputs of ``count`` samples, the same in every call: zeros, or random ones.

    Of several inputs, bools are all True and whole numbers of 0 and 1 all 1, because most of these say which others
    count, and a network may have no answer where none does.

    Args:
        shape: Shape of one sample.
        count: Number of samples.
        device: Where to put them; they are drawn on the CPU.
        random: Standard normal, or tokens that are all equally likely.
    """
    generator = torch.Generator().manual_seed(0)
    if not isinstance(shape, SeveralInputs):
        return _example(shape, count, generator if random else None).to(device)
    parts = (
        torch.ones(count, *part.shape, dtype=torch.bool if isinstance(part, Flags) else torch.int64)
        if isinstance(part, Flags) or (isinstance(part, Tokens) and part.vocabulary == 2)
        else _example(part, count, generator if random else None)
        for part in shape.parts
    )
    return shape.arranged(part.to(device) for part in parts)


def _example(shape: OneInput, count: int, generator: torch.Generator | None) -> torch.Tensor:
    sizes = (count, *(shape if isinstance(shape, tuple) else shape.shape))
    if isinstance(shape, Tokens):
        if generator is None:
            return torch.zeros(sizes, dtype=torch.int64)
        return torch.randint(shape.vocabulary, sizes, generator=generator)
    return torch.zeros(sizes) if generator is None else torch.randn(sizes, generator=generator)


def shape_of(inputs: Inputs) -> InputShape:
    """The shape of a sample of some inputs (N, …); of what is looked up, the largest is among them."""
    if isinstance(inputs, torch.Tensor):
        shape = tuple(inputs.shape[1:])
        return Tokens(shape, 1 + largest(inputs)) if are_indices(inputs) else shape
    return several_shape(inputs, [0] * len(parts_of(inputs)))


def several_shape(inputs: Inputs, vocabularies: Sequence[int]) -> SeveralInputs:
    """The shape of a sample of several inputs.

    Args:
        inputs: The inputs.
        vocabularies: For each input how many whole numbers there are at least, if it has any.
    """
    names = tuple(inputs) if isinstance(inputs, Mapping) else ()
    shapes = (_shape(part, least) for part, least in zip(parts_of(inputs), vocabularies, strict=True))
    return SeveralInputs(tuple(shapes), names)


def _shape(part: torch.Tensor, vocabulary: int) -> OneInput:
    shape = tuple(part.shape[1:])
    if part.dtype == torch.bool:
        return Flags(shape)
    return Tokens(shape, max(vocabulary, 1 + largest(part))) if are_indices(part) else shape


def largest(part: torch.Tensor) -> int:
    """The largest of whole numbers. PyTorch finds no maximum of unsigned ones of more than a byte."""
    return int(part.long().max())


def network_outputs(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """Call a network, and return those of its outputs that count, see :func:`logits_of`."""
    return logits_of(forward(model, inputs))


def logits_of(outputs: Any) -> torch.Tensor:
    """The outputs that a task judges.

    A tensor itself, ``logits`` of a dictionary or of another object, as the models of Hugging Face return it, or the
    first of a tuple.

    Raises:
        MismatchError: None of these.
    """
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif not isinstance(outputs, torch.Tensor) and isinstance(getattr(outputs, "logits", None), torch.Tensor):
        found = outputs.logits
    elif isinstance(outputs, tuple | list) and outputs:
        found = outputs[0]
    if isinstance(found, torch.Tensor):
        return found
    kind = f"the entries {', '.join(map(str, outputs))}"[:80] if isinstance(outputs, Mapping) else type(found).__name__
    raise MismatchError(
        "outputs of the model",
        expected="a tensor, a tuple that begins with one, or a dictionary with `logits`",
        found=kind,
    )
