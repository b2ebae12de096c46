"""What a class number stands for is said and stored, wherever people read the number."""

import json
from dataclasses import replace

import numpy as np
import pytest

from causalprune.models.checkpoint import load_checkpoint, save_checkpoint

NAMES = ["no", "perhaps", "yes"]
MODEL = ["--hidden", "4", "--epochs", "2"]


@pytest.fixture
def answers(folder):
    """Files of the same 90 samples with labels of several kinds."""
    y = np.arange(90) % 3
    x = np.random.default_rng(0).normal(size=(90, 5)) + y[:, None]
    forms = {
        "strings": np.array(NAMES)[y],
        "from-one": y + 1,
        "floats": y.astype(float),
        "one-hot": np.eye(3)[y],
    }
    for name, labels in forms.items():
        np.savez(folder / f"{name}.npz", x=x, y=labels)
    return folder


def test_names_reach_every_result(causalprune, answers):
    trained = causalprune("pretrain", "--dataset", "npz:strings.npz", *MODEL, "--json")
    assert trained.metrics["classes"] == NAMES
    assert "'no' → 0, 'perhaps' → 1, 'yes' → 2" in trained.error
    assert causalprune("record", "--epochs", "1", "-q").code == 0
    evaluation = causalprune("evaluate", "--checkpoint", "run/recorded.safetensors", "--json").metrics["evaluation"]
    assert evaluation["classes"] == NAMES
    assert len(evaluation["per_class"]) == 3
    exported = ["export", "--checkpoint", "run/recorded.safetensors", "--format", "safetensors"]
    assert causalprune(*exported, "--json").metrics["classes"] == NAMES
    assert json.loads((answers / "run/results/export.safetensors.json").read_text())["metrics"]["classes"] == NAMES
    assert causalprune("info", "run/recorded.safetensors", "--json").json["details"]["classes"] == NAMES
    assert "0 = 'no', 1 = 'perhaps', 2 = 'yes'" in causalprune("info", "run/recorded.safetensors").output
    again = causalprune(*exported, "--json")
    assert again.json["already_done"]
    assert again.metrics["classes"] == NAMES


@pytest.mark.parametrize(
    ("form", "names", "said"),
    [
        ("from-one", ["1", "2", "3"], "1 → 0, 2 → 1, 3 → 2"),
        ("floats", ["0", "1", "2"], "pass --task regression"),
        ("one-hot", ["0", "1", "2"], "one-hot"),
    ],
)
def test_labels_of_other_kinds_are_classes_and_that_is_said(causalprune, answers, form, names, said):
    trained = causalprune("pretrain", "--dataset", f"npz:{form}.npz", *MODEL, "--json")
    assert trained.metrics["classes"] == names
    assert said in trained.error


def test_a_network_is_measured_by_the_task_that_it_was_made_for(causalprune, answers):
    """Files of earlier versions hold regressions of whole numbers, and don't say so."""
    assert causalprune("pretrain", "--dataset", "npz:floats.npz", *MODEL, "--task", "regression", "-q").code == 0
    path = answers / "run" / "pretrained.safetensors"
    checkpoint = load_checkpoint(path)
    assert checkpoint.info.classes == ()
    save_checkpoint(
        path, replace(checkpoint, info=replace(checkpoint.info, data=replace(checkpoint.info.data, task="auto")))
    )
    evaluation = causalprune("evaluate", "--checkpoint", path, "--json").metrics["evaluation"]
    assert (evaluation["task"], evaluation["classes"]) == ("regression", [])


def test_the_axis_of_the_channels_is_said_and_stored(causalprune, folder):
    x = np.random.default_rng(0).integers(0, 256, (40, 9, 9, 6), np.uint8)
    np.savez(folder / "d.npz", x=x, y=np.arange(40) % 2)
    model = ["--dataset", "npz:d.npz", "--model", "mlp", *MODEL]
    trained = causalprune("pretrain", *model)
    assert "axis 3 is taken for the channels (last); if it isn't, pass --channels first" in trained.error
    other = causalprune("pretrain", *model, "--channels", "first", "--run", "other", "--log-json")
    assert "axis" not in other.error
    evaluated = causalprune("evaluate", "--checkpoint", "other/pretrained.safetensors", "--run", "other", "-q")
    assert evaluated.code == 0, evaluated.error
    described = causalprune("info", "other/pretrained.safetensors", "--json").json["details"]
    assert described["data"]["channels"] == "first"
    assert described["model"]["input_shape"] == [9, 9, 6]
