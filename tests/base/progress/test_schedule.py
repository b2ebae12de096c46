"""How much is done and how long the rest takes, by a clock that the test turns."""

import pytest

from causalprune.base.progress.schedule import PlannedStep, Schedule

STEPS = {
    "pretrain": PlannedStep("pretrain", "train", 30),
    "1 record": PlannedStep("prune 1/2 · record", "record", 10),
    "2 train": PlannedStep("prune 2/2 · train", "train", 10),
    "2 record": PlannedStep("prune 2/2 · record", "record", 10),
}


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def work(schedule, clock, seconds, *, pieces=10, resumed=0):
    """A task of so many pieces; yields after each."""
    schedule.begin_task(pieces)
    schedule.advance(resumed)
    for _ in range(resumed, pieces):
        clock.now += seconds / pieces
        schedule.advance(1)
        yield


def do(schedule, clock, key, seconds, **how):
    with schedule.step(key):
        for _ in work(schedule, clock, seconds, **how):
            pass


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def schedule(clock):
    return Schedule("run", STEPS, clock=clock)


def test_what_is_left_takes_as_long_as_what_was_measured_of_its_kind(schedule, clock):
    """Closed form: 30 s for an effort of 30 and 50 s for one of 10, so 10 s and 50 s are left of 140."""
    assert schedule.remaining is None
    do(schedule, clock, "pretrain", 30)
    # Until a recording is measured it is taken for as fast as training: 10 + 10 + 10 s, roughly.
    assert schedule.remaining == (pytest.approx(30), False)
    assert schedule.share == pytest.approx(30 / 60)
    do(schedule, clock, "1 record", 50)
    assert schedule.remaining == (pytest.approx(60), True)
    assert schedule.share == pytest.approx(80 / 140)
    assert schedule.line == "run · 57 % · ETA 1 min"
    do(schedule, clock, "2 train", 10)
    with schedule.step("2 record"):
        for number, _ in enumerate(work(schedule, clock, 25), start=1):
            # Twice as fast as the one before, as is seen from its first piece on.
            assert schedule.remaining == (pytest.approx(25 - 2.5 * number), True)
    assert schedule.label == "run"
    assert schedule.remaining == (0, True)


def test_the_share_never_falls_and_is_whole_only_at_the_end(schedule, clock):
    shares = []
    for key, seconds in (("pretrain", 1), ("1 record", 500), ("2 train", 1), ("2 record", 20)):
        with schedule.step(key):
            shares += [schedule.share for _ in work(schedule, clock, seconds)]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1
    assert "99 %" in schedule.line
    schedule.finished = True
    assert schedule.line == "run · 100 % · 9 min"


def test_what_was_done_before_is_behind_and_was_not_measured(schedule, clock):
    with schedule.step("pretrain"):
        clock.now += 0.1
        schedule.skip()
    schedule.skip("1 record")
    assert schedule.remaining is None
    assert schedule.share == pytest.approx(40 / 60)
    do(schedule, clock, "2 train", 10)
    assert schedule.remaining == (pytest.approx(10), False)


def test_a_resumed_step_is_measured_by_what_was_left_of_it(schedule, clock):
    """Three quarters were done before; the rest takes 15 s, so all of it would have taken 60."""
    with schedule.step("pretrain"):
        tasks = work(schedule, clock, 60, pieces=8, resumed=6)
        next(tasks)
        # As 7 of 8 pieces of 30 of 60.
        assert schedule.share == pytest.approx(7 / 8 * 30 / 60)
        assert list(tasks) == [None]
    # 60 s for 8 pieces, of which 2 were left: 15 s.
    assert clock.now == pytest.approx(115)
    do(schedule, clock, "1 record", 40)
    # Training takes 60 / 30 s for an effort of 1.
    assert schedule.remaining == (pytest.approx(20 + 40), True)


def test_what_is_not_counted_takes_as_long_as_the_last_time(schedule, clock):
    """A fit counts its first pass only."""
    with schedule.step("1 record"):
        for _ in work(schedule, clock, 10):
            pass
        clock.now += 30
    with schedule.step("2 record"):
        for _ in work(schedule, clock, 10):
            pass
        assert schedule.remaining == (pytest.approx(30 + 4 * 40), False)
        clock.now += 25
        assert schedule.remaining == (pytest.approx(5 + 4 * 40), False)


def test_a_rough_time_is_marked(schedule, clock):
    do(schedule, clock, "pretrain", 300)
    assert schedule.line == "run · 50 % · ETA ~5 min"


def test_a_step_that_is_not_planned_counts_as_well(schedule, clock):
    with schedule.step("another", "cell 1/3 · repair"):
        assert schedule.label == "cell 1/3 · repair"
        clock.now += 5
    assert schedule.seconds == 5


def test_a_failed_step_is_not_behind(schedule, clock):
    def fail():
        with schedule.step("pretrain"):
            clock.now += 5
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert schedule.remaining is None


def test_work_that_goes_on_after_a_failure_does_not_show_the_failed_step(schedule, clock):
    with pytest.raises(RuntimeError), schedule.step("pretrain"):
        raise RuntimeError
    assert schedule.label == "pretrain"
    schedule.fail()
    assert schedule.label == "run"


def test_alone_its_end_is_not_known_once_all_is_counted(clock):
    schedule = Schedule("fit-gamma", {"fit-gamma": PlannedStep("fit-gamma")}, clock=clock)
    with schedule.step("fit-gamma"):
        for _ in work(schedule, clock, 10):
            pass
        assert schedule.line == "fit-gamma · 99 %"
