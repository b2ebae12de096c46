"""Real signals to real processes at random moments: exit code 75, 76 or 130; in the end the bytes of a quiet run."""

import random
import signal
import time

import pytest
from command_runner import Runner
from stage_cases import artifacts, leftovers, require_whole

RUN = [
    "run", "--iterations", "2", "--sparsity", "0.6", "--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4",
    "--pretrain-epochs", "2", "--train-epochs", "1", "--record-epochs", "1", "--posttrain-epochs", "2",
    "--batch-size", "128", "--quiet", "--run",
]  # fmt: skip
STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


def interrupt_at_random_moments(runner, folder, interruptions, chance):
    """Interrupt pipelines until it has happened so often; returns how many were finished in spite of that."""
    start = time.monotonic()
    assert runner(*RUN, folder / "quiet")[0] == 0
    duration = time.monotonic() - start
    expected = artifacts(folder / "quiet")
    generation = interrupted = 0
    while interrupted < interruptions or generation == 0:
        run = folder / f"{generation}"
        runner.start(*RUN, run, "--checkpoint-every", chance.choice(["never", "10steps", "100s"]))
        sent = [chance.choice(STOPS)]
        time.sleep(chance.uniform(0, duration / 2))
        runner.signal(sent[0])
        if chance.random() < 0.5:
            # Impatience: while the first one is being saved.
            time.sleep(chance.uniform(0, 0.03))
            sent.append(chance.choice(STOPS))
            runner.signal(sent[1])
        code, _, error = runner.finish()
        # Before the command listens, a signal does what it always does. Two at once may be taken in either order.
        ends = {code for number in sent for code in ((130,) if number == signal.SIGINT else (75, 76))}
        assert code in {0} | ends | {-n for n in sent}, error
        if code > 0:
            assert error.count("\n") == 1
            assert any(f"stopped by {number.name}" in error for number in sent)
            assert "run the same command again" in error
            interrupted += 1
        require_whole(run)
        assert not [name for name in leftovers(run) if ".progress" not in name]
        if code == 0 or chance.random() < 0.2:
            assert runner(*RUN, run)[0] == 0
            assert artifacts(run) == expected
            assert leftovers(run) == []
            generation += 1
    return generation


def test_ten_interruptions(runner, tmp_path):
    interrupt_at_random_moments(runner, tmp_path, 10, random.Random(3))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_interruptions(runner, tmp_path, record_property):
    finished = interrupt_at_random_moments(runner, tmp_path, 200, random.Random(4))
    record_property("interruptions", (200, finished))


def test_other_signals_can_be_chosen(runner, tmp_path):
    command = [*RUN, tmp_path, "--pretrain-epochs", "2000", "--stop-signals", "SIGHUP,xcpu"]
    saves = {75, 76}
    for number, codes in (
        (signal.SIGHUP, saves),
        (signal.SIGXCPU, saves),
        (signal.SIGINT, {130}),
        (signal.SIGTERM, {-15}),
    ):
        runner.start(*command)
        time.sleep(0.7)
        runner.signal(number)
        assert runner.finish()[0] in codes
    code, _, error = runner(*RUN, tmp_path, "--stop-signals", "TERM,KILL")
    assert (code, error.count("\n")) == (2, 1)
    assert "--stop-signals: expected signals out of TERM" in error


def test_a_command_that_a_failed_test_left_running_disturbs_nobody(runner, tmp_path):
    """Under load a test may run into its time limit while it waits for a command."""
    runner.start(*RUN, tmp_path, "--pretrain-epochs", "100000")
    assert runner("info", tmp_path / "nothing", "--quiet")[0] == 3
    other = Runner()
    other.start(*RUN, tmp_path / "other", "--pretrain-epochs", "100000")
    other.close()
