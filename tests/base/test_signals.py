import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from causalprune.base.errors import CausalpruneError, InterruptedStage
from causalprune.base.signals import note_saved, parse_signals, stop_requests, stop_signals


def send(number):
    os.kill(os.getpid(), number)


def test_where_nothing_is_saved_the_first_signal_ends_it_and_others_count_for_nothing():
    before = signal.getsignal(signal.SIGUSR1)

    def impatient():
        with stop_signals():
            try:
                send(signal.SIGUSR1)
            finally:
                send(signal.SIGTERM)
                send(signal.SIGINT)

    with pytest.raises(InterruptedStage, match=r"stopped by SIGUSR1.*run the same command again") as caught:
        impatient()
    assert caught.value.exit_code == 76
    assert signal.getsignal(signal.SIGUSR1) == before


def test_what_was_saved_before_decides_whether_the_same_command_resumes():
    def work(save):
        with stop_signals(), stop_requests() as stop:
            if save:
                note_saved()
            send(signal.SIGUSR1)
            stop.check()

    def stopped(save):
        with pytest.raises(InterruptedStage) as caught:
            work(save)
        return caught.value.exit_code, str(caught.value)

    code, message = stopped(save=True)
    assert (code, message.endswith("run the same command again to resume")) == (75, True)
    # Not what another command of this process had saved.
    code, message = stopped(save=False)
    assert (code, message.endswith("nothing saved since the start; run the same command again to start over")) == (
        76,
        True,
    )


def test_a_loop_that_saves_is_only_told():
    with stop_signals(), stop_requests() as stop:
        assert not stop
        send(signal.SIGINT)
        send(signal.SIGUSR2)
        assert stop
        assert stop.error("saved").exit_code == 130
        with stop_requests("HUP") as inner:
            assert inner is stop
    with pytest.raises(InterruptedStage):
        stop.check()


def test_a_signal_in_a_destructor_is_not_lost():
    class Doomed:
        def __del__(self):
            send(signal.SIGUSR1)
            time.sleep(0.001)

    def destroy():
        with stop_signals():
            Doomed()
            time.sleep(5)

    start = time.monotonic()
    with pytest.raises(InterruptedStage):
        destroy()
    assert time.monotonic() - start < 4


def test_a_signal_that_comes_again_while_its_return_is_prepared_is_not_lost(monkeypatch):
    """As on a busy machine, where the thread that sends it is quicker than the one that starts that."""
    timer, waits = threading.Timer, iter([0.0])

    class Hasty(timer):
        def start(self):
            self.interval = next(waits, self.interval)
            super().start()
            if self.interval == 0:
                self.join()

    monkeypatch.setattr(threading, "Timer", Hasty)
    test_a_signal_in_a_destructor_is_not_lost()


def test_other_threads_have_no_handlers():
    seen = []

    def work():
        with stop_requests() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_names_of_signals():
    assert parse_signals("TERM, sigusr1,") == (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    assert parse_signals("") == (signal.SIGINT,)
    for wrong in ("KILL", "STOP", "SEGV", "TERM USR1", "15"):
        with pytest.raises(ValueError, match=wrong):
            parse_signals(wrong)


def test_whoever_handles_errors_does_not_go_on_after_a_signal():
    def look_at_each():
        looked = []
        with stop_signals():
            for number in range(3):
                with suppress(Exception):
                    looked.append(number)
                    send(signal.SIGTERM)
                    raise CausalpruneError("of this one only")
        return looked

    with pytest.raises(InterruptedStage, match="SIGTERM"):
        look_at_each()
