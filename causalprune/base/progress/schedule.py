"""How far work in several steps has come, and how long the rest of it will take."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from causalprune.base.units import format_seconds

_ROUGH = 0.1
"""A time is rough if more than this share of it is of kinds that were not measured."""

_ENOUGH_SECONDS = 0.5
"""A step's own speed is believed after so long."""


@dataclass(frozen=True)
class PlannedStep:
    """A step that is still to be done.

    Attributes:
        label: What it is called while it runs, such as ``prune 3/5 · record``.
        kind: Steps of one kind take as long as each other for the same effort.
        effort: How long it may take, in any unit that is the same for all steps of a schedule.
    """

    label: str
    kind: str = ""
    effort: float = 1.0


class Schedule:
    """The steps of some work. What is to come is estimated from what was measured of the same kind.

    A kind of which nothing was measured yet takes as long for its effort as all that was measured; as long as that is
    much of the time that is left, the time is marked as rough. Another thread may read while the work goes on.

    Args:
        name: Of the whole work.
        steps: By a key; one that isn't planned may run as well.
        clock: Seconds.
    """

    def __init__(
        self, name: str, steps: Mapping[str, PlannedStep], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.detail = ""
        """How the step is going, in words."""
        self.watch: Callable[[], None] = lambda: None
        """Called when a step begins or has gone on."""
        self.finished = False
        # A terminal is drawn by another thread.
        self._lock = threading.RLock()
        self._clock = clock
        self._begun = clock()
        self._left = dict(steps)
        # By kind: a sweep has thousands of steps, and is drawn several times a second.
        self._to_come: defaultdict[str, float] = defaultdict(float)
        for step in steps.values():
            self._to_come[step.kind] += step.effort
        self._done_before: defaultdict[str, float] = defaultdict(float)
        self._measured = (0.0, 0.0)
        self._tails: dict[str, float] = {}
        self._seconds_per_effort: dict[str, float] = {}
        self._now: PlannedStep | None = None
        self._skipped = False
        self._started = self._counting_since = self._last = self._begun
        self._done, self._total, self._offset = 0, 0, 0
        self._counting = False
        self._most = 0.0

    @contextmanager
    def step(self, key: str, label: str = "") -> Iterator[None]:
        """Do a step, which is done afterwards unless it fails; then it is shown until :meth:`fail` or another one.

        Args:
            key: Which one.
            label: What it is called; by default as planned.
        """
        with self._lock:
            planned = self._taken(key) or PlannedStep(key, key)
            self._now = now = replace(planned, label=label or planned.label)
            self._skipped, self._started, self.detail = False, self._clock(), ""
        self.begin_task(0)
        yield
        with self._lock:
            if self._skipped:
                self._done_before[now.kind] += now.effort
            else:
                seconds, effort = self._clock() - self._started, self._effort_here()
                if effort > 0:
                    self._seconds_per_effort[now.kind] = seconds / effort
                self._tails[now.kind] = self._clock() - self._last if self._done >= self._total > 0 else 0.0
                self._measured = (self._measured[0] + effort, self._measured[1] + seconds)
                self._done_before[now.kind] += now.effort - effort
            self._now, self.detail = None, ""

    def skip(self, key: str = "") -> None:
        """Note that the step that runs, or another one, was done before."""
        with self._lock:
            if not key:
                self._skipped = True
            elif step := self._taken(key):
                self._done_before[step.kind] += step.effort

    def fail(self) -> None:
        """Note that the step which ran has failed, and that the work goes on with others."""
        with self._lock:
            self._now, self.detail = None, ""

    def begin_task(self, total: int) -> None:
        """Begin to count, up to ``total``, what is done of the step that runs."""
        with self._lock:
            self._done, self._total, self._offset, self._counting = 0, total, 0, False
        self.watch()

    def advance(self, count: int) -> None:
        """Count that many more as done; the first count may be what an interrupted attempt did."""
        if count or not self._counting:
            self._done, self._last = self._done + count, self._clock()
        if not self._counting:
            self._counting, self._offset, self._counting_since = True, self._done, self._last
        self.watch()

    @property
    def label(self) -> str:
        """The step that runs."""
        now = self._now
        return now.label if now else self.name

    @property
    def is_counting(self) -> bool:
        """Whether something of the step that runs was counted, if only that nothing was done before."""
        return self._counting

    @property
    def counted(self) -> tuple[int, int]:
        """What is done of the step that runs, and of how much."""
        return self._done, self._total

    @property
    def seconds(self) -> float:
        """Since the work began here."""
        return self._clock() - self._begun

    @property
    def share(self) -> float:
        """The part of the work that is done, by the time it takes; never falls, and is 1 only at the end."""
        with self._lock:
            if self.finished:
                return 1.0
            speed = self._speed()
            per_effort = 1.0 if speed is None else speed
            effort, seconds = self._measured
            behind = effort if speed is None else seconds
            behind += sum(self._estimate(kind, effort, per_effort) for kind, effort in self._done_before.items())
            spent, rest = self._of_now(per_effort)
            if self._now is not None and self._rest_of_now() is not None:
                # What an interrupted attempt did.
                behind += self._estimate(self._now.kind, self._now.effort - self._effort_here(), per_effort)
            left = sum(self._estimate(kind, effort, per_effort) for kind, effort in self._to_come.items())
            whole = behind + spent + rest + left
            self._most = max(self._most, min((behind + spent) / whole, 0.999) if whole > 0 else 0.0)
            return self._most

    @property
    def remaining(self) -> tuple[float, bool] | None:
        """Seconds to the end, and whether most of them are of kinds that were measured; None if nobody knows."""
        with self._lock:
            speed = self._speed()
            if speed is None or self.finished:
                return None
            known = {*self._seconds_per_effort}
            rest = self._of_now(speed)[1]
            if self._now is not None and self._rest_of_now() is not None:
                known.add(self._now.kind)
            unknown = 0.0 if self._now is None or self._now.kind in known else rest
            for kind, effort in self._to_come.items():
                seconds = self._estimate(kind, effort, speed)
                rest += seconds
                unknown += 0.0 if kind in known else seconds
            return rest, unknown <= _ROUGH * rest

    @property
    def line(self) -> str:
        """Such as ``prune 3/5 · record · 62 % · ETA 4 min``; ``~`` stands before a time that is rough."""
        if self.finished:
            return f"{self.name} · 100 % · {format_seconds(self.seconds)}"
        parts = [self.label]
        # Work in one piece has no parts to count.
        if self._total != 1 or self._left or self._measured[0]:
            parts.append(f"{int(100 * self.share)} %")
        # At 0 something goes on that nobody knows the end of.
        if (rest := self.remaining) and rest[0] > 0:
            parts.append(f"ETA {'' if rest[1] else '~'}{_eta(rest[0])}")
        return " · ".join(parts)

    def _taken(self, key: str) -> PlannedStep | None:
        """Take a step out of those that are still to come."""
        step = self._left.pop(key, None)
        if step is not None:
            self._to_come[step.kind] -= step.effort
        return step

    def _speed(self) -> float | None:
        """Seconds for an effort of 1 of any kind; None before anything was measured."""
        effort, seconds = self._measured
        rest = self._rest_of_now()
        if rest is not None:
            effort, seconds = effort + self._effort_here(), seconds + self._clock() - self._started + rest
        return seconds / effort if effort > 0 else None

    def _estimate(self, kind: str, effort: float, speed: float) -> float:
        """Seconds of so much effort of a kind."""
        now, rest, here = self._now, self._rest_of_now(), self._effort_here()
        if now is not None and now.kind == kind and here > 0 and rest is not None:
            return effort * (self._clock() - self._started + rest) / here
        return effort * self._seconds_per_effort.get(kind, speed)

    def _of_now(self, speed: float) -> tuple[float, float]:
        """Seconds that the running step has taken, and those that it will take."""
        if self._now is None:
            return 0.0, 0.0
        rest = self._rest_of_now()
        if rest is not None:
            return self._clock() - self._started, rest
        known = self._seconds_per_effort.get(self._now.kind)
        whole, elapsed = self._now.effort * (speed if known is None else known), self._clock() - self._started
        spent = whole * self._done / self._total if self._total and known is None else min(elapsed, whole)
        return spent, whole - spent

    def _effort_here(self) -> float:
        """The effort of the running step, without what an interrupted attempt did."""
        if self._now is None:
            return 0.0
        # A task that is never resumed counts its first piece of work when that is done.
        before = self._offset / self._total if self._offset > 1 and self._total else 0.0
        return self._now.effort * max(0.0, 1.0 - before)

    def _rest_of_now(self) -> float | None:
        """Seconds to the end of the running step at its own speed; None before that is known."""
        counted, seconds = self._done - self._offset, self._clock() - self._counting_since
        if self._now is None:
            return None
        # What isn't counted, such as the later passes of a fit.
        tail = self._tails.get(self._now.kind, 0.0)
        if self._done >= self._total > 0:
            return max(0.0, tail - (self._clock() - self._last))
        if not self._counting or counted < 1 or seconds < _ENOUGH_SECONDS:
            return None
        return seconds / counted * (self._total - self._done) + tail


def _eta(seconds: float) -> str:
    """Seconds below a minute, else whole minutes, or hours: nobody knows it better."""
    if seconds < 60:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 120 else format_seconds(seconds)
