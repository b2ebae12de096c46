"""Data from a function of the user: arrays, or Datasets and DataLoaders of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from causalprune.base.compute.inputs import TARGETS, Inputs, are_indices, largest
from causalprune.base.errors import CausalpruneError, CorruptError, DataError, UsageError
from causalprune.base.specs import DataSpec
from causalprune.base.user_code import import_user_module
from causalprune.data.sources.arrays import CLASS_NAMES_KEY, TASK_KEY, VOCABULARY_KEY, read_arrays
from causalprune.data.sources.layout import EXPECTED
from causalprune.data.splits import RawData

_SAMPLES = (Dataset, DataLoader)
_PARTS = {1: ("train",), 2: ("train", "test"), 3: ("train", "validation", "test")}
_BESIDE = (TASK_KEY, VOCABULARY_KEY, CLASS_NAMES_KEY)


def read_factory(spec: DataSpec, *, trust_code: bool) -> RawData:
    """Call ``package.module:factory`` without arguments and read what it returns.

    The module is imported by :func:`causalprune.base.user_code.import_user_module`. The function returns a mapping of
    arrays as :func:`read_arrays` describes it, whose values are NumPy arrays, tensors or nested lists; or a PyTorch
    Dataset or DataLoader, see :func:`arrays_of_samples`, or several of them: in a tuple for training and test, or for
    training, validation and test, or in a mapping by these names.

    Raises:
        CorruptError: ``trust_code`` is False.
        UsageError: The module or the function doesn't exist.
        DataError: The module or the function fails, or the function doesn't return a data set.
    """
    subject = f"data set {spec.name}"
    if not trust_code:
        raise CorruptError(
            subject,
            expected="a data set that runs no code from outside",
            found="a function",
            remedy="pass `trust_code` if you trust it",
        )
    module_name, _, function_name = spec.name.partition(":")
    try:
        module = import_user_module(module_name)
    except ModuleNotFoundError as error:
        expected = f"an importable module {error.name or module_name}"
        raise UsageError(
            subject, expected=expected, found="none", remedy="install it or run from its folder"
        ) from error
    except Exception as error:
        raise DataError(subject, expected=f"an importable module {module_name}", found=_summary(error)) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(subject, expected=f"a function {function_name} in {module_name}", found="none")
    try:
        # With random numbers that are the same whenever the data are read.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            arrays = _arrays(function(), subject)
    except CausalpruneError:
        raise
    except Exception as error:
        raise DataError(subject, expected="arrays", found=_summary(error)) from error
    return read_arrays(arrays, subject, channels=spec.channels, task=spec.task, integers=spec.integers)


def _arrays(made: Any, subject: str) -> Mapping[str, Any]:
    """What a factory returned, as a mapping of arrays."""
    if isinstance(made, _SAMPLES):
        made = {"train": made}
    elif isinstance(made, tuple | list) and len(made) in _PARTS and all(isinstance(part, _SAMPLES) for part in made):
        made = dict(zip(_PARTS[len(made)], made, strict=True))
    if not isinstance(made, Mapping):
        expected = f"a mapping of {EXPECTED}, or Datasets or DataLoaders of PyTorch"
        raise DataError(subject, expected=expected, found=type(made).__name__)
    if not isinstance(made.get("train"), _SAMPLES):
        return made
    arrays: dict[str, Any] = {key: value for key, value in made.items() if key in _BESIDE}
    parts = {n: arrays_of_samples(part, f"{n} of {subject}") for n, part in made.items() if n not in _BESIDE}
    if len(parts) == 1:
        ((inputs, targets),) = parts.values()
        arrays |= {"x": inputs, "y": targets}
    else:
        arrays |= {
            f"{axis}_{name}": part for name, pair in parts.items() for axis, part in zip("xy", pair, strict=True)
        }
    first = parts["train"][0]
    if isinstance(first, torch.Tensor) and first.dim() == 2 and are_indices(first):
        # Nobody makes a Dataset of whole numbers for them to be standardized.
        most = max(largest(inputs) for inputs, _ in parts.values() if isinstance(inputs, torch.Tensor))
        arrays.setdefault(VOCABULARY_KEY, 1 + most)
    return arrays


def arrays_of_samples(samples: Dataset[Any] | DataLoader[Any], what: str) -> tuple[Inputs, torch.Tensor | list[str]]:
    """Read all samples of a Dataset, each once, put together by PyTorch's ``default_collate``.

    Of a DataLoader, its Dataset and its ``collate_fn`` are used; the order and the size of batches are ours. A sample
    is a pair of inputs and target, where inputs may be several in a tuple or a dictionary; more than two in a row, the
    last of which is the target; or a dictionary, in which the target is called ``labels``, ``label``, ``targets``,
    ``target`` or ``y`` and everything else is an input. Targets are numbers, or strings, which are labels. What a
    Dataset does at random, it does once.

    Raises:
        DataError: Samples of another kind, or of different shapes.
    """
    dataset: Any = samples
    collate: Callable[[list[Any]], Any] = default_collate
    if isinstance(samples, DataLoader):
        dataset, collate = samples.dataset, samples.collate_fn
    # By position, because a Dataset need not raise the IndexError that would end an iteration.
    stream = isinstance(dataset, IterableDataset)
    found = list(dataset) if stream else [dataset[number] for number in range(len(dataset))]
    if not found:
        raise DataError(what, expected="at least one sample", found="none")
    batch = collate(found)
    inputs, targets = _divided(batch, f"{type(found[0]).__name__} that become {type(batch).__name__}", what)
    if isinstance(inputs, Mapping) and all(isinstance(part, torch.Tensor) for part in inputs.values()):
        return dict(inputs), targets
    if isinstance(inputs, tuple | list) and inputs and all(isinstance(part, torch.Tensor) for part in inputs):
        return tuple(inputs), targets
    if isinstance(inputs, torch.Tensor):
        return inputs, targets
    odd = isinstance(inputs, Mapping) and [name for name, part in inputs.items() if not isinstance(part, torch.Tensor)]
    raise _no_pairs(what, f"no numbers in {', '.join(map(str, odd))}" if odd else f"inputs of {type(inputs).__name__}")


def _divided(batch: Any, kinds: str, what: str) -> tuple[Any, torch.Tensor | list[str]]:
    """Inputs and targets of all samples."""
    if isinstance(batch, Mapping):
        names = [name for name in TARGETS if name in batch]
        rest = [name for name in batch if name not in names]
        if len(names) != 1 or not rest:
            expected = f"inputs and one target in each sample, called {', '.join(TARGETS[:-1])} or {TARGETS[-1]}"
            raise DataError(what, expected=expected, found=", ".join(map(str, batch))[:100])
        inputs = {name: batch[name] for name in rest}
        return inputs[rest[0]] if len(rest) == 1 else inputs, _targets(batch[names[0]], f"{names[0]} in {what}")
    # A batch of strings is a list itself.
    if isinstance(batch, tuple | list) and len(batch) > 1 and not isinstance(batch[0], str):
        return batch[0] if len(batch) == 2 else batch[:-1], _targets(batch[-1], f"targets of {what}")
    raise _no_pairs(what, kinds)


def _targets(made: Any, what: str) -> torch.Tensor | list[str]:
    """What was made of the targets of all samples."""
    if isinstance(made, torch.Tensor):
        return made
    if isinstance(made, tuple | list) and all(isinstance(label, str) for label in made):
        return list(made)
    kind = type(made[0]).__name__ if isinstance(made, tuple | list) and made else type(made).__name__
    raise DataError(
        what,
        expected="numbers or strings, one or more in each sample",
        found=kind,
        remedy="convert them in the Dataset, or in the collate_fn of a DataLoader",
    )


def _no_pairs(what: str, found: str) -> DataError:
    return DataError(
        what,
        expected="samples that are pairs of inputs and target",
        found=found,
        remedy="return (inputs, target) for each, or a DataLoader whose collate_fn makes tensors of them",
    )


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
