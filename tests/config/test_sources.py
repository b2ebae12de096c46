"""Where an option's value comes from, and what is said about one that can't be used."""

import itertools
from dataclasses import fields
from pathlib import Path

import pytest

from causalprune.config import STAGE_CONFIGS, FitGammaConfig, PosttrainConfig, PretrainConfig, RecordConfig, RunConfig
from causalprune.errors import CausalpruneError, DataError, ExitCode, UsageError
from causalprune.options import flag_of
from causalprune.settings import apply_settings, convert, resolve


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "c.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def one_line(caught, code=ExitCode.USAGE):
    assert caught.value.exit_code == code
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# Precedence -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)))
def test_option_beats_environment_beats_table_beats_file_beats_default(toml, present):
    option, environment, table, common = present
    text = ("lr = 0.4\n" if common else "") + ("[record]\nlr = 0.3\n" if table else "")
    config = resolve(
        RecordConfig,
        "record",
        {"lr": 0.1} if option else {},
        toml(text),
        {"CAUSALPRUNE_LR": "0.2"} if environment else {},
    )
    sources = [value for value, is_there in zip((0.1, 0.2, 0.3, 0.4), present, strict=True) if is_there]
    assert config.lr == (sources[0] if sources else RecordConfig().lr)


def test_values_of_all_types_from_the_file(toml):
    file = toml(
        """
        seed = 3
        [pretrain]
        run = "my runs/é"
        overwrite = true
        lr = 1            # a whole number is a number
        init-from = "w.pt"
        key-map = ["a=b", "c=d"]
        hidden = "30,10"
        """
    )
    config = resolve(PretrainConfig, "pretrain", {}, file, {})
    assert config == PretrainConfig(
        seed=3,
        run=Path("my runs/é"),
        overwrite=True,
        lr=1.0,
        init_from=Path("w.pt"),
        key_map=("a=b", "c=d"),
        hidden="30,10",
    )
    assert type(config.lr) is float


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("yes", True), ("on", True), ("0", False), ("No", False), ("", False)],
)
def test_switches_in_the_environment(text, value):
    environment = {"CAUSALPRUNE_DETERMINISTIC": text, "CAUSALPRUNE_NESTEROV": text}
    config = resolve(PretrainConfig, "pretrain", {}, None, environment)
    assert (config.deterministic, config.nesterov) == (value, value)


def test_optional_values_and_lists_in_the_environment():
    environment = {"CAUSALPRUNE_ALPHA": "0.5", "CAUSALPRUNE_LAGS": "1", "CAUSALPRUNE_STORE": "a b.zarr"}
    config = resolve(FitGammaConfig, "fit-gamma", {}, None, environment)
    assert (config.alpha, config.lags, config.store) == (0.5, 1, Path("a b.zarr"))
    environment = {"CAUSALPRUNE_SET": "record.lr=0.2,posttrain.epochs=3"}
    assert resolve(RunConfig, "run", {}, None, environment).set == ("record.lr=0.2", "posttrain.epochs=3")


def test_a_table_of_another_stage_and_an_option_of_another_stage_dont_apply(toml):
    file = toml("alpha = 0.5\n[posttrain]\nlr = 0.9\n")
    assert resolve(RecordConfig, "record", {}, file, {"CAUSALPRUNE_TOL": "nonsense"}) == RecordConfig()


@pytest.mark.parametrize(("stage", "kind"), STAGE_CONFIGS.items())
def test_every_option_of_every_stage_survives_text(stage, kind):
    """An option's default, written as text into the environment, is the default again."""
    needed = {
        "apply-mask": {"sparsity": 0.5},
        "store export": {"output": "delta.npz"},
        "store compact": {"codec": "small"},
        "store merge": {"stores": ("a.zarr", "b.zarr"), "output": "c.zarr"},
    }
    config = kind(**needed.get(stage, {}))
    environment = {}
    for f in fields(kind):
        value = getattr(config, f.name)
        if value is not None and value != ():
            environment[f"CAUSALPRUNE_{f.name.upper()}"] = ",".join(value) if isinstance(value, tuple) else str(value)
        assert flag_of(f).startswith("--") or flag_of(f).isupper()
    assert resolve(kind, stage, {}, None, environment) == config


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate = 1", "learning_rate in "),
        ("lrr = 1", "did you mean lr?"),
        ("[recrod]\nlr = 1", "did you mean record?"),
        ("[record]\nmomentun = 0.5", "did you mean momentum?"),
        ("[posttrain]\nlrr = 1", "posttrain.lrr in "),
        ("lr = 'high'", "expected a number, found 'high'"),
        ("epochs = 1.5", "expected a whole number, found 1.5"),
        ("epochs = true", "expected a whole number, found True"),
        ("lr = false", "expected a number, found False"),
        ("lr = [1]", "expected a number, found [1]"),
        ("force = 2", "expected true or false, found 2"),
        ("lr = -1", "--lr: expected a finite number above 0, found -1"),
        ("lr = inf", "--lr: expected a finite number above 0, found inf"),
        ("lr = nan", "--lr: expected a finite number above 0, found nan"),
        ("codec = 'exakt'", "did you mean 'exact'?"),
        ("lr = ", "expected TOML"),
        ("lr = 1\nlr = 2", "expected TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(toml, text, message):
    with pytest.raises(UsageError) as caught:
        resolve(RecordConfig, "record", {}, toml(text), {})
    assert message in one_line(caught)


def test_a_config_file_that_cannot_be_read(tmp_path):
    for path, found in ((tmp_path / "none.toml", "nothing"), (tmp_path, "a directory")):
        with pytest.raises(DataError, match=f"found {found}$") as caught:
            resolve(RecordConfig, "record", {}, path, {})
        one_line(caught, ExitCode.DATA)
    (tmp_path / "latin1.toml").write_bytes(b"data_root = '\xe9'")
    with pytest.raises(UsageError, match="expected TOML") as caught:
        resolve(RecordConfig, "record", {}, tmp_path / "latin1.toml", {})
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("EPOCHS", "many", "a whole number"), ("LR", "1,5", "a number"), ("FORCE", "perhaps", "true or false")],
)
def test_the_environment_is_named_in_its_errors(name, text, expected):
    with pytest.raises(UsageError) as caught:
        resolve(RecordConfig, "record", {}, None, {f"CAUSALPRUNE_{name}": text})
    assert one_line(caught) == f"CAUSALPRUNE_{name}: expected {expected}, found {text!r}"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (PretrainConfig, {"key_map": ("a=b",)}),
        (PretrainConfig, {"init_from": Path("w"), "key_map": ("ab",)}),
        (PretrainConfig, {"validation_fraction": 1.0}),
        (PretrainConfig, {"decay_at": "0.7,0.5"}),
        (PretrainConfig, {"hidden": "30,-1"}),
        (PretrainConfig, {"dataset": "nothing-like-this"}),
        (PretrainConfig, {"device": "tpu"}),
        (FitGammaConfig, {"alpha": 1.0, "alpha_ratio": 0.5}),
        (FitGammaConfig, {"lags": 2}),
        (FitGammaConfig, {"memory": "lots"}),
        (STAGE_CONFIGS["apply-mask"], {}),
        (STAGE_CONFIGS["apply-mask"], {"sparsity": 0.5, "zero": True}),
        (STAGE_CONFIGS["apply-mask"], {"sparsity": 1.0}),
        (STAGE_CONFIGS["apply-mask"], {"sparsity": 0.5, "iteration": 3, "iterations": 2}),
    ],
    ids=str,
)
def test_values_that_cannot_be_used_are_refused_in_one_line(kind, values):
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert "expected" in one_line(caught)


# Settings of the stages in a run --------------------------------------------------------------------------------------


def test_settings_reach_their_stage_only():
    settings = ("record.lr=0.2", "posttrain.epochs=3", "record.loss-change=next-batch", "record.lr=0.3")
    assert apply_settings(RecordConfig, "record", {"seed": 4}, settings) == RecordConfig(
        seed=4, lr=0.3, loss_change="next-batch"
    )
    assert apply_settings(PosttrainConfig, "train", {}, ("posttrain.lr=0.5", "train.epochs=2")).epochs == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("record.lr", "expected STAGE.OPTION=VALUE"),
        ("lr=1", "expected STAGE.OPTION=VALUE"),
        ("recrod.lr=1", "expected one of the stages"),
        ("record.lrr=1", "did you mean lr?"),
        ("record.lr=much", "--set record.lr: expected a number, found 'much'"),
        ("record.lr=-1", "--lr: expected a finite number above 0"),
    ],
)
def test_a_setting_that_cannot_be_used(setting, message):
    with pytest.raises(UsageError) as caught:
        apply_settings(RecordConfig, "record", {}, (setting,))
    assert message in one_line(caught)


def test_tables_of_stages_hold_inside_a_run_below_set(toml):
    file = toml("[record]\nlr = 0.4\nmomentum = 0.5\n[train]\nepochs = 7\nnesterov = false\n")
    config = resolve(RunConfig, "run", {"set": ("record.lr=0.1",)}, file, {})
    record = apply_settings(RecordConfig, "record", {}, config.set)
    assert (record.lr, record.momentum) == (0.1, 0.5)
    train = apply_settings(PosttrainConfig, "train", {}, config.set)
    assert (train.epochs, train.nesterov) == (7, False)


def test_converting_names_the_source():
    seed = next(f for f in fields(RecordConfig) if f.name == "seed")
    assert convert(RecordConfig, seed, "12", "here") == 12
    with pytest.raises(CausalpruneError, match=r"^there: expected a whole number, found 'x'$"):
        convert(RecordConfig, seed, "x", "there")
