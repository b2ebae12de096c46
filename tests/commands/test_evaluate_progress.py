"""What evaluate shows of its progress: whatever is measured counts, up to the end and not beyond."""

from contextlib import contextmanager

import pytest

from causalprune.base.progress import Bar, Reporter
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.evaluate import EvaluateConfig
from causalprune.config.pretrain import PretrainConfig

WHAT = {"hessian": {"hessian": 2}, "noise": {"noise": True}, "landscape": {"landscape": True, "landscape_points": 5}}


class Counted(Bar):
    def __init__(self, total):
        self.total, self.counts, self.texts = total, [], []

    def advance(self, count):
        self.counts.append(count)

    def describe(self, text):
        self.texts.append(text)


class Counting(Reporter):
    def __init__(self):
        self.bars = []

    @contextmanager
    def task(self, description, total):
        self.bars.append(Counted(total))
        yield self.bars[-1]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A dense network of 16 hidden units, and one that a mask has pruned."""
    from causalprune.commands.apply_mask.command import apply_mask
    from causalprune.commands.pretrain import pretrain

    run = tmp_path_factory.mktemp("run")
    pretrain(PretrainConfig(run=run, dataset="breast-cancer", hidden="16", epochs=2))
    apply_mask(
        ApplyMaskConfig(
            run=run, checkpoint=run / "pretrained.safetensors", criterion="magnitude", scope="global", sparsity=0.7
        )
    )
    return run


@pytest.mark.parametrize("asked", [(), *((name,) for name in WHAT), tuple(WHAT)], ids=lambda names: "-".join(names))
@pytest.mark.parametrize("checkpoint", ["pruned", "pretrained"])
def test_all_of_it_is_counted(networks, tmp_path, asked, checkpoint):
    from causalprune.commands.evaluate.command import evaluate

    reporter = Counting()
    options = {name: value for what in asked for name, value in WHAT[what].items()}
    evaluate(
        EvaluateConfig(
            run=networks,
            checkpoint=networks / f"{checkpoint}.safetensors",
            output=tmp_path / "evaluate.json",
            samples=60,
            batch_size=20,
            **options,
        ),
        reporter,
    )
    (bar,) = reporter.bars
    # The first count is what was done before.
    assert bar.counts[0] == 0
    assert sum(bar.counts) == bar.total
    assert bar.texts[-len(asked) :] == [{"hessian": "Hessian"}.get(what, what) for what in asked] if asked else True
    # No piece is most of the work, so that a line a minute says something.
    assert max(bar.counts) <= max(1, bar.total // 3)
