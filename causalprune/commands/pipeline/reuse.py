"""``run --from``: the dense network of another run directory, and the options that it was made with."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from causalprune.base.errors import CorruptError, MismatchError, UsageError
from causalprune.base.json_files import sha256_file
from causalprune.base.options import flag_of, option_text
from causalprune.base.paths import RunPaths, mask_path, real_path
from causalprune.base.progress import Reporter
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._output import done_already
from causalprune.commands._plan import PipelinePlan
from causalprune.commands._said import absent
from causalprune.commands._training import TrainingResult, training_result
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.run import RunConfig, Setting
from causalprune.config.shared import DataOptions, ModelOptions
from causalprune.data.names import is_factory
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, read_checkpoint_info
from causalprune.models.file_pair import write_pair
from causalprune.models.names import is_own

_SHARED = {f.name for kind in (ModelOptions, DataOptions) for f in fields(kind)} - {"download"}
"""Options of model and data: those of pretrain are those of run."""

_REMEDY = "name a run directory with a pretrained network"


def with_reused(config: RunConfig) -> RunConfig:
    """The configuration with the model, the data and the training that the network of ``from_run`` was made with.

    Options of model and data become those of the run. What decides about the training alone becomes a setting of
    pretrain, because ``seed``, ``batch_size`` and ``deterministic`` of a run concern its other stages as well.

    Raises:
        UsageError: An option that is said has another value, or ``from_run`` is the run directory itself.
        CorruptError: The network is made by code that nobody has allowed to run.
        CausalpruneError: There is no such network.
    """
    if config.from_run is None:
        return config
    info = _read_info(config)
    made = PretrainConfig.written_out(info.config)
    values = {name: made.get(name, f.default) for name, f in PretrainConfig.option_fields().items()}
    values["data_root"] = info.data.root
    for name, is_code in (("model", is_own), ("dataset", is_factory)):
        if is_code(str(values[name])) and not (config.trust_code or config.says(name)):
            raise CorruptError(
                f"{RunPaths(config.from_run).pretrained}",
                expected="a network and data of causalprune's own",
                found=f"{name} {values[name]}, code that it names",
                remedy="pass --trust-code if you know that code",
            )
    adopted = {option: _agreed(config, option, values[option], info) for option in (*sorted(_SHARED), "data_root")}
    adopted["pretrain_epochs"] = _agreed(config, "pretrain_epochs", values["epochs"], info)
    config = replace(config, **adopted)
    said = {setting.option: setting for setting in config.set if setting.stage == "pretrain"}
    planned, settings = PipelinePlan(config).pretrain().identity_fields(), []
    # What is done as it was before its option existed is left out.
    unsaid = {name: absent(f) for name, f in PretrainConfig.option_fields().items() if f.metadata}
    for option in (made.keys() | planned.keys()) - _SHARED - {"epochs"}:
        value = made.get(option, unsaid[option])
        if planned.get(option, unsaid[option]) == value:
            continue
        key = f"pretrain.{option.replace('_', '-')}"
        text = f"{key}={option_text(value)}"
        setting = Setting.of("pretrain", option, value, text, f"{config.from_run}")
        if option in said:
            raise _conflict(config, said[option].source or said[option].text, text, option_text(said[option].value))
        settings.append(setting)
    return replace(config, set=(*config.set, *sorted(settings, key=lambda setting: setting.key)))


def reused_network(config: RunConfig) -> Path:
    """The network to start from: that of the other directory, or where it is gone the copy that the run has."""
    assert config.from_run is not None
    source, run = RunPaths(config.from_run).pretrained, RunPaths(config.run)
    # What --overwrite deletes can't be read from.
    has_copy = not config.overwrite and run.run_config.exists() and run.pretrained.exists()
    return run.pretrained if has_copy and not source.exists() else source


def _remedy(config: RunConfig) -> str:
    """What to do where there is no such network."""
    begun = RunPaths(config.run).run_config.exists()
    return f"{config.from_run} is still needed: bring it back, or {_REMEDY}" if begun else _REMEDY


def _read_info(config: RunConfig) -> CheckpointInfo:
    """The description of the network, which must be that of a dense one of another directory."""
    assert config.from_run is not None
    source, mine = RunPaths(config.from_run).pretrained, RunPaths(config.run).pretrained
    if real_path(source) == real_path(mine):
        raise UsageError("--from", expected="another directory than --run", found=f"{config.from_run}")
    source = reused_network(config)
    info = read_checkpoint_info(source, remedy=_remedy(config))
    if info.stage != "pretrain":
        raise MismatchError(f"{source}", expected="a network of pretrain", found=f"one of {info.stage}", remedy=_REMEDY)
    return info


def _agreed(config: RunConfig, option: str, value: Any, info: CheckpointInfo) -> Any:
    """The value that the network was made with, in the type of the option; the run says the same, or none."""
    f, mine = config.option_fields()[option], getattr(config, option)
    made = f.default if value is None else Setting.of("", option, value, "", f"{config.from_run}").value
    if option == "data_root" and mine:
        # The same files may lie elsewhere now.
        return mine
    if option == "model" and mine == info.model.name:
        # The usual one, by its name.
        return mine
    if config.says(option) and mine != made:
        raise _conflict(config, flag_of(f), option_text(made) or "none", option_text(mine))
    return made


def _conflict(config: RunConfig, subject: str, expected: str, found: str) -> UsageError:
    return UsageError(
        subject,
        expected=f"{expected}, with which the network of --from {config.from_run} was made",
        found=found,
        remedy="leave one of the two out",
    )


def load_reused(config: RunConfig) -> Checkpoint:
    """Read the network, and compare it with the one that the run has already, if any.

    Raises:
        MismatchError: The run has another one, which ``overwrite`` doesn't permit to replace.
        CausalpruneError: It can't be read.
    """
    assert config.from_run is not None
    start = load_checkpoint(reused_network(config), remedy=_remedy(config))
    if not config.overwrite:
        _is_there(config, start)
    return start


def _is_there(config: RunConfig, start: Checkpoint) -> bool:
    """Whether the run has the network already.

    Raises:
        MismatchError: It has another one.
    """
    assert config.from_run is not None
    mine = RunPaths(config.run).pretrained
    return done_already(
        f"{mine}",
        start.sha256,
        sha256_file(mine) if mine.exists() else None,
        expected=f"no such file, or the network of {config.from_run}",
        found="another network",
        remedy="pass --overwrite to start anew, or choose another --run",
    )


def reuse(config: RunConfig, options: PretrainConfig, start: Checkpoint, reporter: Reporter) -> TrainingResult:
    """Put the network of another directory, and its mask if it has one, where pretrain would write one.

    Args:
        config: What :func:`with_reused` returned.
        options: Those of pretrain, with which the network was made.
        start: What :func:`load_reused` returned.
        reporter: Passes on warnings.

    Returns:
        The result that pretrain had.

    Raises:
        MismatchError: The run has another network, or somebody has just written another one into the other directory.
        CausalpruneError: The file system refused.
    """
    assert config.from_run is not None
    source = reused_network(config)
    output = CheckpointOutput(stage="pretrain", config=options, default=RunPaths(config.run).pretrained)
    with output.exclusive():
        output.inputs = dict(start.info.inputs)
        done = _is_there(config, start)
        if not done or (start.mask is not None and not mask_path(output.path).exists()):
            data = source.read_bytes()
            if hashlib.sha256(data).hexdigest() != start.sha256:
                raise MismatchError(
                    f"{source}", expected="a file that nobody writes", found="another than a moment ago"
                )
            write_pair(output.path, data, start.mask)
        # Notes the files, and that pretrain with these options would have nothing to do.
        output.finished()
        return output.publish(training_result(output, start.info, reporter, already_done=done))
