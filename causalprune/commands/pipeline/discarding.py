"""``run --discard-stores``: an iteration's store goes once its mask is there, and a resume goes on without it.

What the store said of the iteration is written first, with the hashes of the networks that came of it; that file is the
commit. A crash between it and the removal leaves a store that the next call removes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from causalprune.base.errors import DAMAGE
from causalprune.base.files import bytes_below, remove_file, remove_partials
from causalprune.base.json_files import sha256_file
from causalprune.base.locks import FileLock
from causalprune.base.paths import RunPaths, lock_path
from causalprune.commands._output import StageResult, read_result, write_result
from causalprune.commands._plan import IterationPlan
from causalprune.trajectory import Store

_STAGE = "discard"


@dataclass(frozen=True, kw_only=True)
class DiscardResult(StageResult):
    """What is left of a discarded store.

    Attributes:
        line: What ``run`` says of the iteration.
        plan: The options of its stages.
        networks: Hash of each network of the iteration, by the name of its file.
        recording: Digest of the recording.
        stored_bytes: Size of the store.
    """

    line: dict[str, Any]
    plan: list[dict[str, Any]]
    networks: dict[str, str]
    recording: str
    stored_bytes: int


class IterationStore:
    """The trajectory store of one iteration of a run.

    Args:
        paths: The folder of the iteration.
        plan: Its stages.
    """

    def __init__(self, paths: RunPaths, plan: IterationPlan) -> None:
        self._paths, self._plan = paths, plan
        self._path = paths.store
        self._outputs = [paths.trained, paths.pruned]
        if plan.repair is not None:
            self._outputs.append(paths.repaired)

    @property
    def stored_bytes(self) -> int:
        """Its size; 0 if it isn't there."""
        return bytes_below(self._path)

    def left(self) -> tuple[dict[str, Any], tuple[str, ...]] | None:
        """The line of an iteration whose store was discarded, and its warnings; None if there is none to go on from.

        Whatever a crash left of the store is removed.
        """
        before = read_result(self._paths.discarded)
        if before.get("stage") != _STAGE:
            return None
        found = before["metrics"]
        if found["plan"] != self._identity() or found["networks"] != self._networks():
            return None
        if self._path.exists() and not self._foreign(found["recording"]):
            Store.delete(self._path)
        remove_partials(self._paths.root, self._path.name)
        return found["line"], tuple(before["warnings"])

    def lost(self) -> str:
        """Why the iteration is made again although it was done; empty if its store wasn't discarded."""
        result = read_result(self._paths.discarded)
        if result.get("stage") != _STAGE:
            return ""
        there = self._networks()
        changed = [name for name, sha256 in result["metrics"]["networks"].items() if there.get(name) != sha256]
        why = f"{' and '.join(changed)} in {self._paths.root} is gone or another" if changed else "its options changed"
        return f"{self._path} was discarded, and {why}: the iteration is recorded again"

    def forget(self) -> None:
        """Forget that the store was discarded, because another one is made."""
        remove_file(self._paths.discarded, missing_ok=True)

    def discard(self, line: dict[str, Any], warnings: tuple[str, ...]) -> str:
        """Remove the store, of which nothing is left but ``line``.

        Args:
            line: What ``run`` says of the iteration.
            warnings: What the user was told in it.

        Returns:
            Why it is kept; empty if it is gone.

        Raises:
            LockedError: Another process writes into it.
            StorageError: The file system refused.
        """
        named = self._plan.record.store
        if named is not None and named != self._path:
            return f"{named} is kept, because record.store names it"
        if not self._path.exists():
            return ""
        recording = Store.open(self._path).recording(self._plan.mask.recording).digest
        if foreign := self._foreign(recording):
            return f"{self._path} is kept: {foreign}"
        result = DiscardResult(
            stage=_STAGE,
            inputs={},
            outputs={},
            warnings=warnings,
            line=line,
            plan=self._identity(),
            networks=self._networks(),
            recording=recording,
            stored_bytes=self.stored_bytes,
        )
        with FileLock(lock_path(self._paths.discarded)):
            write_result(self._paths.discarded, result.to_json())
        Store.delete(self._path)
        return ""

    def _foreign(self, recording: str) -> str:
        """What of the store this run didn't make; empty if it made all of it."""
        if self._path.is_symlink():
            return "it is a link, and what it leads to may be another's"
        try:
            store = Store.open(self._path)
            names = store.recordings
            others = [name for name in names if store.recording(name).digest != recording]
            own = set() if self._plan.fit is None else {self._plan.fit.name}
            fits = sorted({fit for name in names for fit in store.recording(name).fits} - own)
        except DAMAGE as error:
            return f"{error}"
        if others or not names:
            return f"recording {', '.join(others) or 'none'} isn't of this run"
        return f"fit {', '.join(fits)} isn't of this run" if fits else ""

    def _networks(self) -> dict[str, str]:
        return {path.name: sha256_file(path) for path in self._outputs if path.is_file()}

    def _identity(self) -> list[dict[str, Any]]:
        plan = self._plan
        stages = [plan.train, plan.record, plan.fit, plan.mask, plan.repair]
        found = [{} if stage is None else stage.identity_fields() for stage in stages]
        return list(json.loads(json.dumps(found)))
