"""What binds a run directory to the options of its run: ``run.json``, as far as anything was made with them.

Options may be corrected until a stage that they decide has begun. Whatever is there was made by a plan in which that
stage is the very same, so the run ends with the bytes of one that had the new options from the start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from causalprune.base.errors import DAMAGE, CausalpruneError
from causalprune.base.files import remove_file, remove_partials
from causalprune.base.json_files import read_json, write_json
from causalprune.base.options import Options
from causalprune.base.paths import RunPaths, StoreUrl, fallback_path, mask_path, progress_path, replaced_mask_path
from causalprune.commands._output import done_already
from causalprune.commands._plan import PipelinePlan
from causalprune.commands._said import difference
from causalprune.config.run import RUN_STAGES, RunConfig, Setting
from causalprune.trajectory import Store
from causalprune.trajectory.storage import locate

_NETWORKS = {
    "pretrain": "pretrained",
    "train": "trained",
    "record": "recorded",
    "apply-mask": "pruned",
    "repair": "repaired",
    "posttrain": "final",
}
"""What each stage writes, as a property of :class:`RunPaths`. An evaluation replaces an earlier one."""


def claim(config: RunConfig, paths: RunPaths) -> None:
    """Bind the run directory to this configuration.

    ``--overwrite`` first deletes all artifacts of an earlier run. Until the new run is done, a marker says that this
    happened, so that the same command, started again after an interruption, continues.

    Raises:
        MismatchError: Something in it was made with other options.
    """
    mine = _as_stored(config)
    marker = progress_path(paths.run_config)
    remove_partials(paths.root, paths.run_config.name, marker.name)
    if config.overwrite:
        if not marker.exists() or read_json(marker) != mine:
            _clear(paths)
            write_json(paths.run_config, mine)
            write_json(marker, mine)
        return
    require_claimable(config, paths)
    # As they were said last. The marker first: with an earlier one, --overwrite would take what is there for its own.
    if marker.exists():
        write_json(marker, mine)
    if not paths.run_config.exists() or read_json(paths.run_config) != mine:
        write_json(paths.run_config, mine)


def require_claimable(config: RunConfig, paths: RunPaths) -> None:
    """Check that nothing in the run directory was made with options that are others now.

    Raises:
        MismatchError: Something was.
    """
    if not paths.run_config.exists():
        return
    stored, mine = read_json(paths.run_config), _as_stored(config)
    earlier = config.written_out(stored) if isinstance(stored, dict) and stored else {}
    if earlier == mine:
        return
    plan = PipelinePlan(config)
    before = _plan_of(earlier, config)
    made = _made_anyhow(paths) if before is None else _made_otherwise(before, plan, paths)
    changed = difference(RunConfig, *map(_deciding, (earlier, mine))) if earlier else ""
    keeps_dense = before is not None and before.pretrain().identity_fields() == plan.pretrain().identity_fields()
    can_keep = keeps_dense and paths.pretrained.exists() and config.from_run is None
    done_already(
        f"{paths.root}",
        True,
        False if made else None,
        expected="a run of this very configuration",
        found=f"{made}, made by another" + (f" ({changed})" if changed else ""),
        remedy="undo the change, pass --overwrite to start anew, or choose another --run"
        + (f" (--from {paths.root} keeps its dense network)" if can_keep else ""),
    )


def _as_stored(config: RunConfig) -> dict[str, Any]:
    return dict(json.loads(json.dumps(config.identity_fields())))


def _deciding(stored: dict[str, Any]) -> dict[str, Any]:
    """Options without the settings that decide no result, such as a device."""
    return stored | {"set": [text for text in stored.get("set", ()) if _decides(text)]}


def _decides(text: str) -> bool:
    try:
        setting = Setting.parse(text)
    except CausalpruneError:
        # Of another version.
        return True
    return RUN_STAGES[setting.stage].decides_result(setting.option)


def done_stages(plan: PipelinePlan, paths: RunPaths) -> frozenset[tuple[int, str]]:
    """The stages that a run won't do again, by their keys in the plan; those after them see to it that they are theirs.

    A fit is done where the mask is that reads it. Evaluating is asked for each time.
    """
    done = set()
    for number, stage in plan.stages():
        here = paths.iteration(number - 1) if number else paths
        # Their output is a part of the store.
        written = "apply-mask" if stage == "fit-gamma" else stage
        if written in _NETWORKS and getattr(here, _NETWORKS[written]).exists():
            done.add((number, stage))
    return frozenset(done)


def _plan_of(stored: dict[str, Any], config: RunConfig) -> PipelinePlan | None:
    """The plan of an earlier configuration; None if it can't be told, as of another version's options."""
    try:
        plan = PipelinePlan(RunConfig(**stored, run=config.run))
        plan.stages()
    except (CausalpruneError, TypeError, ValueError, AttributeError):
        return None
    return plan if stored else None


def _made_otherwise(before: PipelinePlan, plan: PipelinePlan, paths: RunPaths) -> Path | StoreUrl | None:
    """What was made by a stage that is planned with other options now, or isn't planned any more."""
    earlier, planned = before.identity(), plan.identity()
    for (number, stage), options in (before.stages() | plan.stages()).items():
        if earlier.get((number, stage)) == planned.get((number, stage)):
            continue
        made = _made_by(stage, options, paths.iteration(number - 1) if number else paths)
        if made is not None:
            return made
    return None


def _made_by(stage: str, options: Options, paths: RunPaths) -> Path | StoreUrl | None:
    """What a stage has made or begun."""
    if stage in ("record", "fit-gamma"):
        store: Path | StoreUrl = getattr(options, "store", None) or paths.store
        if locate(store).exists() and (stage == "record" or _has_fits(store)):
            return store
        if paths.discarded.exists():
            return paths.discarded
    return _written(getattr(paths, _NETWORKS[stage])) if stage in _NETWORKS else None


def _made_anyhow(paths: RunPaths) -> Path | None:
    """Anything that a stage has made or begun."""
    artifacts = (path for part in (paths, *paths.iterations()) for path in part.artifacts())
    return next((found for path in artifacts if (found := _written(path))), None)


def _written(path: Path) -> Path | None:
    """A file, or the state that is saved of it."""
    return next((one for one in (path, progress_path(path), fallback_path(path)) if one.exists()), None)


def _has_fits(store: Path | StoreUrl) -> bool:
    try:
        opened = Store.open(store)
        return any(opened.recording(name).fits for name in opened.recordings)
    except DAMAGE:
        return True


def _clear(paths: RunPaths) -> None:
    """Remove every artifact of the run directory."""
    for part in (*paths.iterations(), paths):
        remove_file(part.discarded, missing_ok=True)
        for path in part.artifacts():
            for file in (fallback_path(path), progress_path(path)):
                remove_file(file, missing_ok=True)
            if path.is_dir():
                Store.delete(path)
            else:
                # The network first: a mask alone is in nobody's way.
                for file in (path, mask_path(path), replaced_mask_path(path)):
                    remove_file(file, missing_ok=True)
