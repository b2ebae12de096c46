"""Options of ``sweep``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from causalprune.config.run import RunConfig
from causalprune.config.shared import DataOptions, LeaseOptions, ModelOptions
from causalprune.errors import UsageError
from causalprune.options import at_least, default_of, flag_of, fraction, option
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


_ITERATED = {f.name: default_of(f) for f in fields(RunConfig) if f.name in ("train_epochs", "posttrain_epochs")}

_SETTLED = (
    *(f.name for kind in (DataOptions, ModelOptions) for f in fields(kind)),
    *("pretrain_epochs", "train_epochs", "record_epochs", "iterations"),
)
"""Options of run that have no effect on a recording that exists, and on what is measured of it."""


def default_epochs(name: str, iterations: int) -> int:
    """Epochs of ``train_epochs`` or ``posttrain_epochs`` where none are given: a single mask is measured as it is."""
    return int(_ITERATED[name]) if iterations > 1 else 0


@dataclass(frozen=True, kw_only=True)
class SweepConfig(LeaseOptions, RunConfig):
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
        None,
        f"Epochs of training before each recording [0 with one iteration, else {_ITERATED['train_epochs']}].",
        check=at_least(0),
    )
    posttrain_epochs: int | None = option(  # type: ignore[assignment]
        None,
        f"Epochs of training after the last mask [0 with one iteration, else {_ITERATED['posttrain_epochs']}].",
        check=at_least(0),
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

        if self.recorded is not None:
            self._check_settled()

    def _check_settled(self) -> None:
        """Reject what the recording has settled already: a row would bear a setting that had no effect on it."""
        keys = {line: line.partition("=")[0].strip().replace("-", "_") for line in (*self.set, *self.vary)}
        posttrains = self.posttrain_epochs or any(key.startswith("posttrain") for key in keys.values())
        settled = _SETTLED if posttrains else (*_SETTLED, "batch_size")
        given = {
            flag_of(f): str(getattr(self, f.name))
            for f in fields(self)
            if f.name in settled and (getattr(self, f.name) or None) != (default_of(f) or None)
        }
        given |= {
            f"{'--set' if line in self.set else '--vary'} {line}": key
            for line, key in keys.items()
            if key in settled or key.startswith(("pretrain.", "train.", "record."))
        }
        if given:
            first, found = next(iter(given.items()))
            raise UsageError(
                first,
                expected="nothing that the recording has settled beside --recorded",
                found=found,
                remedy="leave it out, or make another recording",
            )

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
