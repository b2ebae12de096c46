"""How options differ is said as a person types them, whichever command compares."""

import json

import pytest
from causalprune_cli.session import with_flags

from causalprune.commands._said import difference
from causalprune.commands.names import with_settings
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.posttrain import PosttrainConfig
from causalprune.config.run import RunConfig
from causalprune.config.sweep import SweepConfig
from causalprune.config.sweep_values import Axis


def stored(config):
    """Options as a file has them."""
    return json.loads(json.dumps(config.identity_fields()))


def between(kind, before, now):
    return difference(kind, stored(kind.of(**before)), stored(kind.of(**now)))


@pytest.mark.parametrize(
    ("before", "now", "typed"),
    [
        ({"pretrain_epochs": 400}, {"pretrain_epochs": 30}, "--pretrain-epochs 400 → 30"),
        ({"set": ("record.lr=1e6",)}, {}, "--set record.lr=1e6 → none"),
        ({}, {"set": ("record.lr=1e6",)}, "none → --set record.lr=1e6"),
        ({"set": ("record.lr=1", "record.lr=2")}, {"set": ("record.lr=3",)}, "--set record.lr=2 → 3"),
        (
            {"set": ("record.lr=1", "record.stride=2")},
            {"set": ("record.stride=2", "fit-gamma.alpha=1")},
            "--set record.lr=1 → none, none → --set fit-gamma.alpha=1",
        ),
        ({"repair": True}, {}, "--repair → none"),
        ({}, {"zero": True}, "none → --zero"),
        ({"keep": ("fc1",)}, {"keep": ("fc1", "conv*")}, "none → --keep conv*"),
        ({"model": "mlp", "hidden": "300,100"}, {"model": "mlp"}, "--hidden 300,100 → none"),
        ({"dataset": "digits"}, {"dataset": "breast-cancer"}, "--dataset digits → breast-cancer"),
        ({}, {"model": "lenet"}, ""),
        (
            {"sparsity": 0.5, "seed": 3, "iterations": 2, "scope": "layer", "train_epochs": 1},
            {},
            "--seed 3 → 0, --iterations 2 → 5, --sparsity 0.5 → 0.9 and 2 more",
        ),
    ],
)
def test_of_a_run(before, now, typed):
    assert with_flags(between(RunConfig, before, now)) == typed


def test_a_recipe_is_named_and_not_each_of_its_settings():
    said = with_flags(between(RunConfig, {"recipe": "paper-v1"}, {"set": ("record.codec=small",)}))
    assert said.startswith("--recipe paper-v1 → none")
    assert "none → --set record.codec=small" in said or said.endswith("more")
    assert "--set record.lr" not in said


def test_of_a_sweep():
    before, now = {"sparsity": (0.5, 0.9), "seeds": 2}, {"sparsity": (0.5,), "seeds": 1}
    assert with_flags(between(SweepConfig, before, now)) == "--sparsity 0.5,0.9 → 0.5, --seeds 2 → 1"
    one, other = ({"vary": (Axis.parse(f"repair.from-statistics={values}"),)} for values in ("false,true", "true"))
    assert with_flags(between(SweepConfig, one, other)) == "--vary repair.from-statistics=false,true → true"
    assert with_flags(between(SweepConfig, one, {})) == "--vary repair.from-statistics=false,true → none"


def test_of_a_stage_by_itself_and_in_a_run():
    said = between(PosttrainConfig, {"lr": 0.01, "epochs": 3}, {"lr": 0.02, "epochs": 2})
    assert said == "`epochs=3` → 2, `lr=0.01` → 0.02"
    assert with_flags(said) == "--epochs 3 → 2, --lr 0.01 → 0.02"
    in_run = with_flags(with_settings(said, "posttrain"))
    assert in_run == "--posttrain-epochs 3 → 2, --set posttrain.lr=0.01 → 0.02"
    masks = between(ApplyMaskConfig, {"sparsity": 0.5, "prune_frozen": True}, {"zero": True, "criterion": "gamma"})
    assert "--sparsity 0.5 → none" in with_flags(masks)


def test_an_option_of_another_version_is_named_too():
    now = stored(PosttrainConfig())
    assert difference(PosttrainConfig, now | {"old_option": 3}, now) == "old-option 3 → none"


def test_a_long_value_is_cut():
    said = difference(RunConfig, {"hidden": ",".join(["100"] * 50)}, {"hidden": "3"})
    assert len(said) < 100
    assert "…` → 3" in said
