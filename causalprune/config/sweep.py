"""Options of ``sweep``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from causalprune.config.run import RunConfig
from causalprune.errors import UsageError
from causalprune.options import at_least, fraction, option
from causalprune.pruning.names import check_criterion


def split_list(text: str) -> list[str]:
    """The items of a comma-separated list, without the spaces around them."""
    return [item.strip() for item in text.split(",")]


def _sparsities(value: str) -> str | None:
    expected = "different numbers in [0, 1) such as 0.5,0.9"
    try:
        numbers = [float(item) for item in split_list(value)]
    except ValueError:
        return expected
    return None if len(set(numbers)) == len(numbers) and not any(map(fraction, numbers)) else expected


def _criteria(value: str) -> str | None:
    names = split_list(value)
    if len(set(names)) < len(names):
        return "different criteria"
    return next((expected for expected in map(check_criterion, names) if expected), None)


def _shard(value: str) -> str | None:
    index, slash, count = value.partition("/")
    ok = slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)
    return None if ok else "I/N with I from 0 to N − 1, such as 0/4"


@dataclass(frozen=True, kw_only=True)
class SweepConfig(RunConfig):
    """Sparsities × criteria × seeds × any other option into one table of results.

    Each cell is what run does; what several cells share is done once. FILE
    is TOML: options of this command, tables of the stages' options, and a
    list where an option is to take several values. Start the command again
    after any interruption, or several at once in one run directory.
    """

    sparsity: str = option(  # type: ignore[assignment]
        "0.5,0.7,0.8,0.9,0.95,0.98,0.99", "Sparsities, separated by commas.", check=_sparsities
    )
    criterion: str = option(
        "gamma,effect,magnitude,random", "Criteria, separated by commas; see apply-mask --help.", check=_criteria
    )
    seeds: int = option(3, "Number of seeds: --seed and those that follow it.", check=at_least(1))
    vary: tuple[str, ...] = option(
        (), "Further values to combine, such as record.lr=0.01,0.02; may be repeated.", metavar="[STAGE.]OPTION=VALUES"
    )
    iterations: int = option(1, "Pruning iterations; 1 prunes one recording to every sparsity.", check=at_least(1))
    train_epochs: int | None = option(  # type: ignore[assignment]
        None, "Epochs of training before each recording [0 with one iteration, else 2].", check=at_least(0)
    )
    posttrain_epochs: int | None = option(  # type: ignore[assignment]
        None, "Epochs of training after the last mask [0 with one iteration, else 30].", check=at_least(0)
    )
    recorded: Path | None = option(
        None,
        "Run directory whose recording is pruned, instead of one made for every seed: it needs pretrained.safetensors "
        "(or trained), recorded.safetensors and trajectory.zarr.",
        identifies=False,
    )
    shard: str = option(
        "0/1", "Do every N-th cell only, from the I-th on (from 0).", metavar="I/N", check=_shard, identifies=False
    )
    keep: bool = option(False, "Keep the networks of the finished cells.", identifies=False)

    def check(self) -> None:
        """Nothing is overwritten, because other processes may be working there."""
        super().check()
        if self.overwrite:
            raise UsageError(
                "--overwrite",
                expected="a sweep that goes on",
                found="an order to start anew",
                remedy="choose another --run, or remove its folder sweep/ when no process works there",
            )

        if self.recorded is None:
            return
        # What made the recording is settled.
        for name in ("model", "dataset", "hidden", "init_from", "pretrain_epochs", "record_epochs", "iterations"):
            if getattr(self, name) != next(f.default for f in fields(type(self)) if f.name == name):
                flag = "--" + name.replace("_", "-")
                raise UsageError(flag, expected="nothing beside --recorded", found=str(getattr(self, name)))
        for line in (*self.set, *self.vary, *(("--train-epochs",) if self.train_epochs else ())):
            if "." not in line or line.startswith(("pretrain.", "train.", "record.")):
                after = "only options of fit-gamma, apply-mask, posttrain and evaluate beside --recorded"
                raise UsageError(f"{line}", expected=after, found=line.partition("=")[0])

    def sparsities(self) -> list[float]:
        """``sparsity`` as numbers."""
        return [float(item) for item in split_list(self.sparsity)]

    def criteria(self) -> list[str]:
        """``criterion`` as names."""
        return split_list(self.criterion)

    def shard_of(self) -> tuple[int, int]:
        """``shard`` as (I, N)."""
        index, _, count = self.shard.partition("/")
        return int(index), int(count)
