"""What a recipe of the authors sets in each stage, and that whatever else is said wins."""

import pytest

from causalprune.base.errors import UsageError
from causalprune.commands._plan import PipelinePlan
from causalprune.commands.names import load_configs
from causalprune.config import sources
from causalprune.config.recipes.authors import RECIPES
from causalprune.config.run import (
    RUN_STAGES,
    UNLIKE_RUN,
    RunConfig,
    Setting,
    recipe_changes,
    recipe_settings,
)
from causalprune.config.sweep import SweepConfig
from causalprune.config.sweep_values import Axis

SGD = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "lr_schedule": "cosine"}
SGD |= {"label_smoothing": 0.1, "batch_size": 256, "nesterov": False}
ADAM = {"optimizer": "adam", "lr": 5e-4, "batch_size": 512, "weight_decay": 0}

# The table of the variants, stage by stage.
TABLE = {
    "paper-v1": {
        "pretrain": ADAM | {"epochs": 10},
        "train": {"epochs": 0},
        "record": {"lr": 1e-3, "momentum": 0, "loss_change": "next-batch", "label_smoothing": 0, "epochs": 10},
        "fit": {"solver": "sgd", "preset": "paper-v1", "scope": "layer", "alpha": None, "normalize": "none"},
        "mask": {"zero": True, "sparsity": None, "rewind": "pretrained", "reset_batchnorm": True, "criterion": "gamma"},
        "posttrain": ADAM | {"epochs": 200},
    },
    "june-2025": {
        "pretrain": SGD | {"epochs": 10},
        "train": SGD | {"epochs": 10},
        "record": {"lr": 1e-3, "momentum": 0, "loss_change": "same-batch", "label_smoothing": 0.1, "epochs": 1},
        "fit": {"solver": "sgd", "preset": "june-2025", "scope": "global", "alpha": None},
        "mask": {"zero": False, "criterion": "gamma", "schedule": "cubic", "rewind": "recording", "iterations": 10},
        "posttrain": SGD | {"epochs": 300, "warmup": 0, "clip_norm": 0},
    },
}
TABLE["oct-2025"] = TABLE["june-2025"] | {
    "fit": {"solver": "sgd", "preset": "oct-2025", "scope": "global", "alpha": None},
    "mask": TABLE["june-2025"]["mask"] | {"schedule": "geometric"},
}


def stages(config):
    plan = PipelinePlan(config)
    first = plan.iteration(0)
    parts = {name: getattr(first, name) for name in ("train", "record", "fit", "mask")}
    return {"pretrain": plan.pretrain(), **parts, "posttrain": plan.posttrain()}


@pytest.mark.parametrize("name", RECIPES)
def test_each_stage_gets_what_the_version_has(name):
    found = stages(RunConfig.of(recipe=name))
    wrong = {
        f"{stage}.{option}": getattr(found[stage], option)
        for stage, options in TABLE[name].items()
        for option, value in options.items()
        if getattr(found[stage], option) != value
    }
    assert wrong == {}
    assert RunConfig.of(recipe=name).iterations == 10


@pytest.mark.parametrize("name", RECIPES)
def test_no_setting_of_a_recipe_hides_an_option_of_run(name):
    """``--batch-size`` has to win over a recipe, so the recipe may not set ``record.batch-size``."""
    hidden = [
        setting.text
        for setting in recipe_settings(name)
        if setting.option in RunConfig.option_fields() and setting.option not in UNLIKE_RUN.get(setting.stage, ())
    ]
    assert hidden == []


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_same_work_as_its_options(name):
    choices = RECIPES[name].choices
    own = {c.key.replace("-", "_"): c.value for c in choices if "." not in c.key}
    spelled = RunConfig(**own, set=tuple(f"{c.key}={c.value}" for c in choices if "." in c.key))
    assert PipelinePlan(spelled).identity() == PipelinePlan(RunConfig.of(recipe=name)).identity()
    assert all(c.source for c in choices)


def test_whatever_is_said_wins_over_the_recipe(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('recipe = "june-2025"\nbatch-size = 32\niterations = 3\n[record]\nlr = 0.01\n[train]\nlr = 0.2\n')
    environment = {"CAUSALPRUNE_ITERATIONS": "4", "CAUSALPRUNE_SET": "train.lr=0.3"}
    given = {"posttrain_epochs": 1, "set": (Setting.parse("fit-gamma.alpha=1e-9"),)}
    config = sources.resolve(load_configs(), "run", given, file, environment)
    found = stages(config)
    assert (config.iterations, found["record"].lr, found["train"].lr) == (4, 0.01, 0.3)
    assert (found["record"].batch_size, found["posttrain"].epochs, found["fit"].alpha) == (32, 1, 1e-9)
    assert (found["posttrain"].lr, found["record"].label_smoothing) == (0.1, 0.1)
    assert recipe_changes(config.recipe, vars(config), config.set) == [
        "iterations=4 instead of 10",
        "posttrain-epochs=1 instead of 300",
        "batch-size=32 instead of 256",
        "train.lr=0.3 instead of 0.1",
        "record.lr=0.01 instead of 0.001",
    ]


def test_a_sparsity_that_is_said_takes_the_place_of_the_rule():
    config = RunConfig.of(recipe="paper-v1", sparsity=0.5)
    mask = stages(config)["mask"]
    assert (mask.zero, mask.sparsity, mask.criterion) == (False, 0.5, "gamma")
    assert recipe_changes("paper-v1", vars(config), config.set) == ["zero=false instead of true"]
    assert SweepConfig.of(recipe="paper-v1", sparsity=(0.5, 0.9)).criterion == ("gamma",)


def test_the_rule_with_a_recipe_that_ranks():
    for name in ("june-2025", "oct-2025"):
        mask = stages(RunConfig.of(recipe=name, zero=True))["mask"]
        assert (mask.zero, mask.sparsity, mask.rewind) == (True, None, "recording")


def test_a_recipe_in_a_sweep():
    config = SweepConfig.of(recipe="paper-v1", iterations=2, vary=(Axis.parse("fit-gamma.alpha=1e-15,1e-13"),))
    assert (config.criterion, config.train_epochs, config.posttrain_epochs) == (("gamma",), 0, 200)
    assert [axis.key for axis in config.axes()] == ["fit-gamma.alpha", "seed", "criterion"]
    cell = config.cell([setting for axis in config.axes() for setting in axis.settings[-1:]])
    assert PipelinePlan(cell).iteration(1).fit.alpha == 1e-13
    assert PipelinePlan(cell).iteration(1).mask.zero


@pytest.mark.parametrize(
    ("kind", "said", "says"),
    [
        (RunConfig, {"recipe": "june"}, "--recipe: expected one of paper-v1, june-2025, oct-2025"),
        (RunConfig, {"zero": True, "sparsity": 0.9}, "--sparsity: expected none with --zero"),
        (RunConfig, {"zero": True, "criterion": "magnitude"}, "--criterion: expected gamma with --zero"),
        (RunConfig, {"recipe": "paper-v1", "criterion": "magnitude"}, "or ask for a --sparsity instead"),
        (RunConfig, {"zero": True, "schedule": "geometric"}, "--schedule: expected none with --zero"),
        (RunConfig, {"set": ("apply-mask.zero=true",)}, "--set apply-mask.zero=true: expected --zero for it"),
        (SweepConfig, {"zero": True, "sparsity": (0.5,)}, "--sparsity: expected none with --zero"),
        (SweepConfig, {"zero": True, "criterion": ("gamma", "effect")}, "--criterion: expected gamma with --zero"),
        (SweepConfig, {"recipe": "june-2025", "recorded": "other"}, "--recipe: expected none beside --recorded"),
        (SweepConfig, {"vary": ("zero=true,false",)}, "expected --zero, and another sweep without it"),
        (SweepConfig, {"vary": ("recipe=paper-v1,june-2025",)}, "expected --recipe, and a sweep of each"),
    ],
)
def test_what_does_not_go_together(kind, said, says):
    with pytest.raises(UsageError) as caught:
        kind.of(**said)
    assert says in str(caught.value)


def test_the_constructor_takes_no_recipe_by_its_name_only():
    with pytest.raises(UsageError, match=r"RunConfig.of\(recipe=…\)"):
        RunConfig(recipe="june-2025")


def test_every_stage_of_a_recipe_exists():
    assert {s.stage for name in RECIPES for s in recipe_settings(name)} <= set(RUN_STAGES)
