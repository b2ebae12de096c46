"""``pretrain``: train a dense network, so that it reaches a basin of attraction before anything is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from causalprune.base.compute.inputs import are_indices, arranged_as, example_inputs, forward, parts_of
from causalprune.base.compute.runtime import keyed_seed, make_deterministic, resolve_device
from causalprune.base.compute.shapes import Tokens
from causalprune.base.errors import UsageError
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import RunPaths
from causalprune.base.progress import SILENT, Reporter
from causalprune.base.specs import DataSpec, ModelSpec
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._output import check_pair_distinct
from causalprune.commands._training import TrainingResult, train_checkpoint, training_result
from causalprune.commands.provenance.sources import sources_of
from causalprune.config.pretrain import PretrainConfig
from causalprune.data.datasets import DataSet, load_data
from causalprune.data.images import ImageFiles
from causalprune.data.names import holds_arrays, is_own_data
from causalprune.models.checkpoint import CheckpointInfo
from causalprune.models.initial_weights import load_initial_weights
from causalprune.models.mask import Mask
from causalprune.models.modes import evaluation_mode
from causalprune.models.names import default_model, is_own
from causalprune.models.parameters import ParameterIndex
from causalprune.models.registry import build_model


def data_spec_of(config: PretrainConfig) -> DataSpec:
    """The data set that the options name."""
    return DataSpec(
        name=config.dataset,
        root=config.data_root,
        download=config.download,
        validation_fraction=config.validation_fraction,
        split_seed=config.split_seed,
        augment=config.augment,  # type: ignore[arg-type]
        channels=config.channels,
        task=config.task,
        integers=_integers(config),
        target=config.target,
    )


def _integers(config: PretrainConfig) -> str:
    """What whole numbers are: for a network of one's own, what they are for PyTorch."""
    looked_up = config.integers == "auto" and is_own(config.model) and holds_arrays(config.dataset)
    return "indices" if looked_up else config.integers


def untrained(config: PretrainConfig) -> tuple[DataSpec, DataSet, ModelSpec, nn.Module]:
    """The data and the untrained network that the options name.

    Raises:
        UsageError: An unknown model or data set, or a model that can't take this data.
        DataError: Data that is missing or can't be used.
    """
    data_spec = data_spec_of(config)
    data = load_data(data_spec)
    if not isinstance(data.input_shape, Tokens):
        # Nothing was decided, so the checkpoint says nothing of it.
        data_spec = replace(data_spec, integers=config.integers)
    hidden = tuple(int(n) for n in config.hidden.split(",") if n.strip())
    spec = ModelSpec(
        config.model or default_model(data.input_shape),
        data.input_shape,
        data.num_outputs,
        hidden,
        task=data.task.name,
        output_shape=data.task.output_shape(tuple(data.train.targets.shape[1:])),
    )
    model = build_model(spec, seed=keyed_seed(config.seed, "weights"))
    _require_lookups(model, spec, data)
    return data_spec, data, spec, model


def _require_lookups(model: nn.Module, spec: ModelSpec, data: DataSet) -> None:
    """Check that a network has an entry for every whole number that it will look up, in each split.

    A category that only the test split has would else be found after all of the training. The numbers are tried
    together: at each place of a sample the largest that is there.

    Raises:
        UsageError: It hasn't.
    """
    for name in ("train", "validation", "test"):
        inputs = data.split(name).inputs
        if isinstance(inputs, ImageFiles) or not any(map(are_indices, parts_of(inputs))):
            return
        examples = parts_of(example_inputs(spec.input_shape, 2))
        largest = [
            part.amax(0, keepdim=True).expand(example.shape) if are_indices(part) else example
            for part, example in zip(parts_of(inputs), examples, strict=True)
        ]
        try:
            with evaluation_mode(model), torch.no_grad():
                forward(model, arranged_as(inputs, largest))
        except (IndexError, RuntimeError) as error:
            # Whatever else it may raise on such a sample says nothing about the data.
            if isinstance(error, IndexError) or "num_classes" in str(error):
                most = max(int(part.max()) for part in parts_of(inputs) if are_indices(part))
                raise UsageError(
                    f"model {spec.name}",
                    expected=f"one that takes the whole numbers of the {name} split, up to {most}",
                    found=f"that it raises {type(error).__name__}: {error}"[:150],
                    remedy="size its embeddings by `vocabulary`, which a factory is called with, or leave out what is "
                    "in no training sample",
                ) from error


def initial_network(
    config: PretrainConfig, warn: Callable[[str], None], note: Callable[[str], None]
) -> tuple[DataSpec, DataSet, ModelSpec, nn.Module, Mask]:
    """As :func:`untrained`, with the weights and the mask that the training starts from.

    Args:
        config: What to train.
        warn: Told what of the weights isn't as one might expect.
        note: Told what was decided about the user's data.

    Raises:
        CausalpruneError: As :func:`untrained`, or a file of weights that can't be used.
    """
    data_spec, data, spec, model = untrained(config)
    for decided in data.notes:
        note(decided)
    if is_own_data(data_spec.name):
        note(data.summary())
    if data_spec.integers != config.integers and not data.task.tokens:
        warn(
            f"{data_spec.name}: the network gets whole numbers as they are; pass `integers=quantities` if they "
            "aren't looked up, but standardized"
        )
    mask = Mask.all(ParameterIndex.from_model(model))
    if config.init_from is not None:
        mask = load_initial_weights(
            model,
            config.init_from,
            key_map=config.key_map,
            ignore=config.ignore,
            allow_mismatch=config.allow_mismatch,
            keep_zeros=config.keep_zeros,
            warn=warn,
        )
    return data_spec, data, spec, model, mask


def pretrain_output(config: PretrainConfig) -> CheckpointOutput:
    """The checkpoint to write, with what identifies the work."""
    output = CheckpointOutput(stage="pretrain", config=config, default=RunPaths(config.run).pretrained)
    check_pair_distinct(output.path, *([] if config.init_from is None else [config.init_from]))
    if config.init_from is not None:
        output.inputs["init_from"] = sha256_file(config.init_from)
    output.sources = sources_of(config.model, data_spec_of(config), contents=config.check_contents)
    return output


def pretrain(config: PretrainConfig, reporter: Reporter = SILENT) -> TrainingResult:
    """Train a dense network and write it as a checkpoint.

    Args:
        config: What to train and how.
        reporter: Shows progress; silent when left out.

    Returns:
        The best epoch and its metrics on the validation split.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    output = pretrain_output(config)
    with output.exclusive():
        done = output.finished()
        if done is not None:
            return output.publish(training_result(output, done, reporter, already_done=True))
        device = resolve_device(config.device)
        if config.deterministic:
            make_deterministic()
        data_spec, data, spec, model, mask = initial_network(
            config, partial(output.warn, reporter), partial(output.note, reporter)
        )
        model.to(device)
        if config.init_from is not None:
            output.add_ancestors(mask.index.digest(model.state_dict()))
        info = CheckpointInfo(
            "pretrain",
            model=spec,
            data=data_spec,
            data_fingerprint=data.fingerprint,
            index=mask.index,
            classes=data.class_names,
        )
        return train_checkpoint(output, model, data, mask, info, device, reporter)
