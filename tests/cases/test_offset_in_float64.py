"""Inputs and targets far from zero, such as Unix times, are standardized in the precision that they come in."""

import numpy as np
import pytest

EPOCHS = ["--epochs", "25", "--lr", "0.01"]


@pytest.fixture
def score(causalprune, folder):
    """Train on arrays and evaluate: the metric, or None where causalprune says that float32 is too coarse for them."""

    def train(name, metric, **arrays):
        np.savez(folder / f"{name}.npz", **arrays)
        trained = causalprune("pretrain", "--dataset", f"npz:{name}.npz", *EPOCHS, "--run", name, "--log-json")
        if "float32" in trained.error:
            return None
        assert trained.code == 0, trained.error
        evaluate = ["evaluate", "--checkpoint", f"{name}/pretrained.safetensors", "--run", name, "--json", "-q"]
        return causalprune(*evaluate).metrics["evaluation"][metric]

    return train


def test_a_unix_time_in_seconds_classifies_as_well_as_the_seconds(score):
    rng = np.random.default_rng(0)
    seconds, other = rng.uniform(0, 60, 600), rng.normal(size=600)
    labels = (seconds > 30).astype("i8")
    near = score("near", "top1", x=np.c_[seconds, other], y=labels)
    far = score("far", "top1", x=np.c_[seconds + 1.7e9, other], y=labels)
    assert near > 0.95
    assert far is None or far == pytest.approx(near, abs=0.02)


def test_a_target_far_from_zero_is_fitted_as_well_as_one_near(score):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    y = x @ [1.0, 2, 3]
    near, far = score("near", "r2", x=x, y=y), score("far", "r2", x=x, y=y + 1e8)
    assert near > 0.99
    assert far is None or far == pytest.approx(near, abs=0.01)
