"""What Lightning's Trainer does is recorded as the same loop written by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from causalprune.base.errors import UsageError
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store

pl = pytest.importorskip("lightning.pytorch", reason="no Lightning: pip install '.[lightning]'")

pytestmark = pytest.mark.filterwarnings("ignore")

EPOCHS, BATCHES = 2, 6


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, 3))


def loader():
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(8 * BATCHES, 6, generator=generator), torch.randint(0, 3, (8 * BATCHES,), generator=generator)
    return DataLoader(TensorDataset(*data), batch_size=8)


class Module(pl.LightningModule):
    """Calls its network in one of several ways."""

    def __init__(self, how="network", **behavior):
        super().__init__()
        self.network, self.how, self.behavior = network(), how, behavior
        self.automatic_optimization = not behavior.get("manual", False)

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch):
        inputs, targets = batch
        outputs = self(inputs) if self.how == "self" else self.network(inputs)
        loss = functional.cross_entropy(outputs, targets)
        self.log("loss", loss, on_epoch=True)
        if self.behavior.get("fails") and self.global_step == 3 and torch.is_grad_enabled():
            raise RuntimeError("that is enough")
        return {"loss": loss} if self.how == "dict" else loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(
            [
                {"params": self.network[0].parameters(), "lr": 0.1},
                {"params": self.network[3].parameters(), "lr": 0.02},
            ]
        )
        if self.behavior.get("two"):
            return [optimizer, torch.optim.SGD(self.network.parameters(), lr=0.1)]
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def fit(module, *callbacks, **options):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    torch.manual_seed(2)
    trainer.fit(module, loader())
    return trainer


def by_hand(path, accumulate, clip):
    """The same loop without Lightning."""
    model = network()
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[3].parameters(), "lr": 0.02}]
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    torch.manual_seed(2)
    with Recorder(model, optimizer, path, codec="exact") as recorder:
        for _ in range(EPOCHS):
            batches = list(loader())
            for first in range(0, BATCHES, accumulate):
                part = batches[first : first + accumulate]
                optimizer.zero_grad()
                for inputs, targets in part:
                    (functional.cross_entropy(model(inputs), targets) / accumulate).backward()
                nn.utils.clip_grad_norm_(model.parameters(), clip or torch.inf)

                def measure(part=part):
                    return sum(functional.cross_entropy(model(x), y) for x, y in part) / len(part)

                recorder.step(measure=measure)
                schedule.step()
    return model, Store.open(path).recording()


@pytest.mark.parametrize("how", ["network", "self", "dict"])
@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (2, None), (3, 0.2)])
def test_rows_are_those_of_the_same_loop_by_hand(tmp_path, how, accumulate, clip):
    from causalprune.training.lightning import RecorderCallback

    plain, module = Module(how), Module(how)
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": clip}
    expected = fit(plain, **options).callback_metrics
    callback = RecorderCallback(tmp_path / "t.zarr", codec="exact")
    found = fit(module, callback, **options).callback_metrics
    model, reader = by_hand(tmp_path / "u.zarr", accumulate, clip)
    recorded = Store.open(tmp_path / "t.zarr").recording()
    assert recorded.finished
    rows = EPOCHS * BATCHES // accumulate
    assert (recorded.num_rows, callback.recorder.rows) == (rows, rows)
    assert recorded.read_rows(0, rows) == pytest.approx(reader.read_rows(0, rows), rel=1e-4, abs=1e-7)
    for name in ("lr", "lr.0", "lr.1", "grad_norm", "grad_norm.1"):
        assert recorded.steps[name] == pytest.approx(reader.steps[name], rel=1e-4)
    # Under the dropout of the step's own gradient, also where training_step doesn't call the module itself.
    assert recorded.steps.loss_before == pytest.approx(reader.steps.loss_before, rel=1e-5)
    assert recorded.loss_change == pytest.approx(reader.loss_change, rel=1e-3, abs=1e-6)
    assert [entry.name for entry in recorded.index] == ["network.0.weight", "network.3.weight"]
    # The training is the one without the callback, and so is what it logs.
    for one, two, three in zip(plain.parameters(), module.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, three)
    assert {k: float(v) for k, v in found.items()} == {k: float(v) for k, v in expected.items()}


def test_the_loss_may_be_a_function_of_its_own(tmp_path):
    from causalprune.training.lightning import RecorderCallback

    def loss(module, batch):
        return functional.cross_entropy(module.network(batch[0]), batch[1])

    readers = []
    for options in ({}, {"loss": loss}):
        path = tmp_path / f"{len(readers)}.zarr"
        fit(Module(), RecorderCallback(path, columns="network.3", **options), precision="bf16-mixed")
        readers.append(Store.open(path).recording())
    assert np.array_equal(readers[0].steps.to_matrix(), readers[1].steps.to_matrix())
    assert readers[1].num_columns == 15


def test_rows_before_an_error_are_kept(tmp_path):
    from causalprune.training.lightning import RecorderCallback

    with pytest.raises(RuntimeError, match="that is enough"):
        fit(Module(fails=True), RecorderCallback(tmp_path / "t.zarr"))
    reader = Store.open(tmp_path / "t.zarr").recording()
    assert (reader.num_rows, reader.finished) == (3, False)
    fit(Module(), RecorderCallback(tmp_path / "t.zarr", overwrite=True))
    assert Store.open(tmp_path / "t.zarr").recording().finished


@pytest.mark.parametrize(
    ("behavior", "found"), [({"two": True}, "2 optimizers"), ({"manual": True}, "automatic_optimization=False")]
)
def test_optimizers_that_the_trainer_does_not_call_are_refused(tmp_path, behavior, found):
    from causalprune.training.lightning import RecorderCallback

    if behavior.get("two"):
        behavior = {**behavior, "manual": True}
    with pytest.raises(UsageError, match=f"expected one optimizer, which the Trainer calls, found .*{found}"):
        fit(Module(**behavior), RecorderCallback(tmp_path / "t.zarr"))
    assert not (tmp_path / "t.zarr").exists()


def test_next_batch_is_refused(tmp_path):
    from causalprune.training.lightning import RecorderCallback

    with pytest.raises(UsageError, match="loss_change=same-batch"):
        RecorderCallback(tmp_path / "t.zarr", loss_change="next-batch")
