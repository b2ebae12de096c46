"""Options of ``apply-mask``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from causalprune.base.errors import UsageError
from causalprune.base.options import (
    at_least,
    fraction,
    not_negative,
    one_of,
    option,
    option_text,
    positive,
    writable,
)
from causalprune.base.paths import DEFAULT_FIT, StoreUrl
from causalprune.base.units import check_bytes
from causalprune.config.layers import (
    SCOPE_HELP,
    LayerTarget,
    keep_option,
    layer_sparsity_option,
    pattern_option,
    prune_option,
)
from causalprune.config.shared import ComputeOptions, store_option
from causalprune.models.names import TORCH_SUFFIXES
from causalprune.pruning.names import (
    CHITA_RIDGE,
    CRITERIA,
    DEAD_END_RULES,
    DEAD_ENDS,
    DEFAULT_CRITERION,
    DEFAULT_SCOPE,
    EXPONENTS,
    MASK_SCOPES,
    REWINDS,
    SAMPLES,
    SPARSITY_SCHEDULES,
    check_criterion,
    check_mask_granularity,
)

_ORDER = ("criterion", "scope", "layer_sparsity", "schedule", "iteration", "iterations")
_HOW_MUCH = ("scope", "layer_sparsity", "granularity")


def pruned_weights(weights: Path) -> Path:
    """Where the pruned copy of a state dict goes unless that is named: MODEL.pruned.safetensors beside it."""
    name = weights.name
    # The longest ending first, such as .pth.tar.
    endings = sorted((".safetensors", *TORCH_SUFFIXES), key=len, reverse=True)
    ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
    return weights.with_name(f"{name[: len(name) - len(ending)]}.pruned.safetensors")


@dataclass(frozen=True, kw_only=True)
class ApplyMaskConfig(ComputeOptions):
    """Prune: turn a fit, or another criterion, into a mask.

    Example: causalprune apply-mask --sparsity 0.9
    """

    panel = "Pruning"
    first = "sparsity pattern zero criterion scope granularity keep layer_sparsity rewind store weights output"

    sparsity: float | None = option(
        None,
        "Fraction of prunable weights that are zero afterwards, in [0, 1); those of frozen layers and of --keep don't "
        "count.",
        check=fraction,
    )
    pattern: str | None = pattern_option()
    zero: bool = option(
        False, "Prune every parameter with γ = 0 (the paper's rule) instead of to a sparsity by a criterion."
    )
    criterion: str = option(
        DEFAULT_CRITERION,
        "What orders the parameters: "
        + ", ".join(CRITERIA)
        + ", or an installed one. chita and obs also set the weights they keep, from gradients recorded about one "
        "point: record --hold --batch-size 1 --steps 1000 or so.",
        check=check_criterion,
    )
    ridge: float = option(
        CHITA_RIDGE,
        "Penalty of chita, a multiple of the mean over weights of Σ g², and of obs, of Σ d·g² with the curvature d.",
        check=positive,
    )
    first_order: bool = option(
        False,
        "Add the gradient to the loss that obs minimizes, instead of its curvature alone; wants record --hold.",
        formerly=False,
    )
    exponent: float | None = option(
        None,
        "p in |γ|^p·θ² of effect and in θ²·mean(g²)^p of obd; 0 is magnitude "
        f"[{EXPONENTS['effect']:g} for effect, {EXPONENTS['obd']:g} for obd].",
        check=not_negative,
        formerly=1.0,
    )
    samples: int | None = option(
        None,
        "Training samples on which surgeon, rank-sum and wanda measure the layers; their labels aren't used [those of "
        f"record --layer-statistics if the store has them, else {SAMPLES}].",
        check=at_least(1),
        formerly=None,
    )
    scope: str = option(DEFAULT_SCOPE, SCOPE_HELP, check=MASK_SCOPES)
    dead_ends: str | None = option(
        None,
        "What becomes of weights that reach no output any more, because the others of their paths are pruned: they go "
        "first, and others are kept instead, or as scored [first by effect, scored by other criteria, of groups and "
        "of --weights].",
        check=one_of(DEAD_END_RULES),
        formerly="scored",
    )
    keep: tuple[str, ...] = keep_option()
    layer_sparsity: tuple[LayerTarget, ...] = layer_sparsity_option()
    prune: tuple[str, ...] = prune_option("By a criterion that reads no recording, also prune")
    granularity: str = option("parameter", "Prune single weights or whole groups.", check=check_mask_granularity)
    schedule: str = option("one-shot", "How --sparsity is reached over --iterations.", check=SPARSITY_SCHEDULES)
    iteration: int = option(1, "Which iteration of the schedule this is, from 1.", check=at_least(1))
    iterations: int = option(1, "Iterations of the schedule.", check=at_least(1))
    prune_frozen: bool = option(
        False,
        "Also prune tensors that weren't trained while recording (frozen, outside the optimizer, or without a "
        "gradient); they are left alone otherwise, and --sparsity is of the others.",
        formerly=False,
    )
    rewind: str = option(
        "none", "Weights after the mask: as they are, as before the recording, or as pretrained.", check=one_of(REWINDS)
    )
    reset_batchnorm: bool = option(False, "Reset batch-normalization statistics and affine parameters.")
    memory: str = option(
        "2GiB",
        "Largest matrix of gradients that chita and obs hold in memory; a larger one is read from the store in every "
        "pass.",
        check=check_bytes,
        affects_result=False,
        panel="Seed, device and threads",
    )
    checkpoint: Path | None = option(
        None, "Checkpoint to prune [run/recorded.safetensors].", affects_result=False, panel="Files"
    )
    weights: Path | None = option(
        None,
        "Prune this state dict of PyTorch or safetensors instead of a checkpoint, by a --store of its own loop; needs "
        "neither its network nor data.",
        affects_result=False,
    )
    store: Path | StoreUrl | None = store_option("Trajectory store [run/trajectory.zarr].")
    recording: str | None = option(None, "Recording in the store [the last].", panel="Files")
    fit: str = option(DEFAULT_FIT, "Name of the fit in the store.", affects_result=False, panel="Files")
    rewind_from: Path | None = option(
        None,
        "Checkpoint to rewind to [that of the run directory, if the checkpoint to prune comes from it].",
        affects_result=False,
        panel="Files",
    )
    allow_other_weights: bool = option(
        False,
        "Take a recording that the checkpoint to prune neither started nor ended, nor comes from.",
        affects_result=False,
        panel="Files",
    )
    measure: bool = option(
        True,
        "Measure the network on validation samples before and after, if the data set can be read.",
        affects_result=False,
    )
    output: Path | None = option(
        None,
        "Checkpoint to write [run/pruned.safetensors]; of --weights MODEL.pt a state dict [MODEL.pruned.safetensors, "
        "beside it or in a --run that is named], with the mask beside it.",
        affects_result=False,
        check=writable,
    )

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Build a configuration from what is said: a run directory that is named gets the pruned state dict, too."""
        if values.get("weights") and "run" in values and not values.get("output"):
            values["output"] = Path(values["run"]) / pruned_weights(Path(values["weights"])).name
        return cls(**values)

    @property
    def ranks_weights(self) -> bool:
        """Whether single weights are ranked, to a sparsity."""
        return self.sparsity is not None and self.granularity == "parameter"

    @classmethod
    def written_out(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """All but ``deterministic``, because a mask takes no other kernels, and the usual number of samples.

        The exponent is that of the criterion; 1, which a mask of γ = 0 and those of earlier versions had, is left out.
        """
        said = dict(stored)
        if "exponent" in said and said["exponent"] is None:
            said["exponent"] = 1.0 if said.get("zero") else EXPONENTS.get(str(said.get("criterion")), 1.0)
        if "dead_ends" in said and said["dead_ends"] is None and said.get("criterion") in CRITERIA:
            ranked = said.get("granularity") == "parameter" and said.get("sparsity") is not None
            by_default = DEAD_ENDS.get(str(said["criterion"]), "scored") if ranked else "scored"
            said["dead_ends"] = "scored" if said.get("weights") else by_default
        values = super().written_out(said)
        usual = {"samples"} if values.get("samples") == SAMPLES else set()
        return {name: value for name, value in values.items() if name not in {"deterministic", *usual}}

    def check(self) -> None:
        """Require exactly one of sparsity, pattern and zero, and an iteration within the schedule."""
        super().check()
        said = {"sparsity": self.sparsity is not None, "pattern": self.pattern is not None, "zero": self.zero}
        if sum(said.values()) != 1:
            found = " and ".join(f"`{name}`" for name, given in said.items() if given) or "none"
            raise UsageError("apply-mask", expected="one of `sparsity=S`, `pattern=N:M` and `zero`", found=found)
        if self.iteration > self.iterations:
            raise UsageError(
                "`iteration`", expected=f"at most `iterations={self.iterations}`", found=str(self.iteration)
            )
        if self.zero:
            self._check_alone(_ORDER, "`zero`, which prunes every γ = 0", criterion="gamma")
        if self.pattern is not None:
            self._check_alone(_HOW_MUCH, f"`pattern={self.pattern}`, which says how many weights of each group stay")
        if self.weights is not None:
            self._check_weights()

    def _check_weights(self) -> None:
        """Reject options of checkpoints beside --weights, which need a store of their own."""
        if self.store is None:
            raise UsageError("`weights`", expected="`store` beside it, the recording of its loop", found="none")
        own = {"checkpoint": None, "rewind": "none", "rewind_from": None, "reset_batchnorm": False, "prune": ()}
        for f in fields(self):
            if f.name in own and getattr(self, f.name) != own[f.name]:
                found = option_text(getattr(self, f.name))
                raise UsageError(f"`{f.name}`", expected="none beside `weights`", found=found, remedy="leave it out")

    def _check_alone(self, names: Collection[str], beside: str, **other: str) -> None:
        """Reject options of ranking, schedule and budgets beside one that says what is pruned by itself."""
        for f in fields(self):
            value, default = getattr(self, f.name), f.default
            if f.name not in names or value in (default, other.get(f.name, default)):
                continue
            raise UsageError(
                f"`{f.name}`",
                expected=f"{other.get(f.name) or option_text(default) or 'none'} with {beside}",
                found=option_text(value),
                remedy="leave it out, or ask for a `sparsity`",
            )

    def check_no_rewind(self, criterion: str) -> None:
        """Reject rewinding with a criterion that sets the weights it keeps."""
        if self.rewind != "none":
            raise UsageError(
                "`rewind`", expected=f"none, because {criterion} sets the weights it keeps", found=self.rewind
            )
