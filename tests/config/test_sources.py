"""Where an option's value comes from, and what is said about one that can't be used."""

import itertools
from pathlib import Path

import pytest

from causalprune.base.errors import CausalpruneError, DataError, ExitCode, UsageError
from causalprune.base.options import flag_of, option_text
from causalprune.commands._plan import PipelinePlan
from causalprune.commands.names import load_configs
from causalprune.config import sources
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig
from causalprune.config.run import RunConfig
from causalprune.config.sweep import SweepConfig
from causalprune.config.sweep_values import Axis
from causalprune.config.values import convert

CONFIGS = load_configs()


def resolve(*args):
    return sources.resolve(CONFIGS, *args)


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
    config = resolve("pretrain", {}, file, {})
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
    config = resolve("pretrain", {}, None, environment)
    assert (config.deterministic, config.nesterov) == (value, value)


def test_optional_values_and_lists_in_the_environment():
    environment = {"CAUSALPRUNE_ALPHA": "0.5", "CAUSALPRUNE_LAGS": "1", "CAUSALPRUNE_STORE": "a b.zarr"}
    config = resolve("fit-gamma", {}, None, environment)
    assert (config.alpha, config.lags, config.store) == (0.5, 1, Path("a b.zarr"))
    environment = {"CAUSALPRUNE_SET": "record.lr=0.2,posttrain.epochs=3"}
    settings = resolve("run", {}, None, environment).set
    assert [(s.stage, s.option, s.value) for s in settings] == [("record", "lr", 0.2), ("posttrain", "epochs", 3)]


def test_a_table_of_another_stage_and_an_option_of_another_stage_dont_apply(toml):
    file = toml("alpha = 0.5\n[posttrain]\nlr = 0.9\n")
    assert resolve("record", {}, file, {"CAUSALPRUNE_TOL": "nonsense"}) == RecordConfig()


@pytest.mark.parametrize(("stage", "kind"), CONFIGS.items())
def test_every_option_of_every_stage_survives_text(stage, kind):
    """An option's default, written as text into the environment, is the default again."""
    needed = {
        "apply-mask": {"sparsity": 0.5},
        "store export": {"output": "delta.npz"},
        "store compact": {"codec": "small"},
        "store merge": {"stores": ("a.zarr", "b.zarr"), "output": "c.zarr"},
    }
    config = kind.of(**needed.get(stage, {}))
    environment = {}
    for name, f in kind.option_fields().items():
        value = getattr(config, name) if hasattr(config, name) else getattr(config.base, name)
        if value is not None and value != ():
            environment[f"CAUSALPRUNE_{name.upper()}"] = option_text(value)
        assert flag_of(f).startswith("--") or flag_of(f).isupper()
    assert resolve(stage, {}, None, environment) == config


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
        ("lr = -1", "--lr: expected a finite number above 0, at most 1e18, found -1"),
        ("lr = inf", "--lr: expected a finite number above 0, at most 1e18, found inf"),
        ("lr = nan", "--lr: expected a finite number above 0, at most 1e18, found nan"),
        ("codec = 'exakt'", "did you mean 'exact'?"),
        ("lr = ", "expected TOML"),
        ("lr = 1\nlr = 2", "expected TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(toml, text, message):
    with pytest.raises(UsageError) as caught:
        resolve("record", {}, toml(text), {})
    assert message in one_line(caught)


def test_a_config_file_that_cannot_be_read(tmp_path):
    for path, found in ((tmp_path / "none.toml", "nothing"), (tmp_path, "a directory")):
        with pytest.raises(DataError, match=f"found {found}$") as caught:
            resolve("record", {}, path, {})
        one_line(caught, ExitCode.DATA)
    (tmp_path / "latin1.toml").write_bytes(b"data_root = '\xe9'")
    with pytest.raises(UsageError, match="expected TOML") as caught:
        resolve("record", {}, tmp_path / "latin1.toml", {})
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("EPOCHS", "many", "a whole number"),
        ("LR", "half", "a number"),
        ("FORCE", "perhaps", "true or false"),
    ],
)
def test_the_environment_is_named_in_its_errors(name, text, expected):
    with pytest.raises(UsageError) as caught:
        resolve("record", {}, None, {f"CAUSALPRUNE_{name}": text})
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
        (CONFIGS["apply-mask"], {}),
        (CONFIGS["apply-mask"], {"sparsity": 0.5, "zero": True}),
        (CONFIGS["apply-mask"], {"sparsity": 1.0}),
        (CONFIGS["apply-mask"], {"sparsity": 0.5, "iteration": 3, "iterations": 2}),
    ],
    ids=str,
)
def test_values_that_cannot_be_used_are_refused_in_one_line(kind, values):
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert "expected" in one_line(caught)


# Settings of the stages in a run --------------------------------------------------------------------------------------


def test_settings_reach_their_stage_only():
    settings = (
        "record.lr=0.2",
        "posttrain.epochs=3",
        "record.loss-change=next-batch",
        "record.lr=0.3",
        "train.epochs=2",
    )
    plan = PipelinePlan(RunConfig(set=settings, iterations=1))
    first = plan.iteration(0)
    train, record = first.train, first.record
    assert (record.lr, record.loss_change) == (0.3, "next-batch")
    assert (train.epochs, train.lr, plan.posttrain().epochs) == (2, 0.01, 3)
    assert plan.pretrain().epochs == RunConfig().pretrain_epochs


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("record.lr", "--set: expected STAGE.OPTION=VALUE such as record.lr=0.02, found 'record.lr'"),
        ("lr=1", "--set: expected STAGE.OPTION=VALUE such as record.lr=0.02, found 'lr=1'"),
        (".seed=1", "--set: expected STAGE.OPTION=VALUE such as record.lr=0.02, found '.seed=1'"),
        ("recrod.lr=1", "--set recrod.lr=1: expected one of the stages"),
        ("record.lrr=1", "--set record.lrr=1: expected an option of record, found 'lrr'; did you mean lr?"),
        ("record.lr=much", "--set record.lr: expected a number, found 'much'"),
        ("record.lr=-1", "--set record.lr: expected a finite number above 0"),
    ],
)
def test_a_setting_that_cannot_be_used(setting, message):
    with pytest.raises(UsageError) as caught:
        PipelinePlan(RunConfig(set=(setting,))).iteration(0)
    assert message in one_line(caught)


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_what_is_wrong_with_a_setting_names_the_place_where_it_was_said(toml, name):
    file = toml("[record]\nlr = 'much'\n")
    with pytest.raises(UsageError) as caught:
        resolve(name, {}, file, {})
    assert one_line(caught) == f"record.lr in {file}: expected a number, found 'much'"
    with pytest.raises(UsageError) as caught:
        resolve(name, {}, None, {"CAUSALPRUNE_SET": "posttrain.epochs=2,record.lr=much"})
    assert one_line(caught) == "CAUSALPRUNE_SET record.lr: expected a number, found 'much'"


def test_tables_of_stages_hold_inside_a_run_below_set(toml):
    file = toml("[record]\nlr = 0.4\nmomentum = 0.5\n[train]\nepochs = 7\nnesterov = false\n")
    config = resolve("run", {"set": ("record.lr=0.1",)}, file, {})
    first = PipelinePlan(config).iteration(0)
    train, record = first.train, first.record
    assert (record.lr, record.momentum) == (0.1, 0.5)
    assert (train.epochs, train.nesterov) == (7, False)


@pytest.mark.parametrize("name", ["run", "sweep"])
@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)))
def test_of_the_places_where_a_stages_option_is_said_the_strongest_holds_and_others_stay(toml, name, present):
    option, environment, common, table = present
    text = ("set = ['record.lr=0.3', 'record.stride=3']\n" if common else "") + (
        "[record]\nlr = 0.4\n" if table else ""
    )
    said = {"CAUSALPRUNE_SET": "record.lr=0.2,train.epochs=9"} if environment else {}
    config = resolve(name, {"set": ("record.lr=0.1",)} if option else {}, toml(text), said)
    run = config if name == "run" else config.cell([axis.settings[0] for axis in config.axes()])
    first = PipelinePlan(run).iteration(0)
    train, record = first.train, first.record
    values = [value for value, is_there in zip((0.1, 0.2, 0.3, 0.4), present, strict=True) if is_there]
    assert record.lr == (values[0] if values else RecordConfig().lr)
    assert record.stride == (3 if common else 1)
    assert train.epochs == (9 if environment else run.train_epochs)


def test_converting_names_the_source():
    assert convert(RecordConfig, "seed", "12", "here") == 12
    with pytest.raises(CausalpruneError, match=r"^there: expected a whole number, found 'x'$"):
        convert(RecordConfig, "seed", "x", "there")


# Sweeps ---------------------------------------------------------------------------------------------------------------


def test_a_sweep_contains_the_options_of_a_run(toml):
    file = toml("sparsity = [0.5, 0.9]\nbatch-size = 16\nrewind = ['none', 'pretrained']\n[record]\nlr = [0.01, 1]\n")
    config = resolve("sweep", {"criterion": "effect", "seed": 4, "vary": ("train.nesterov=true,false",)}, file, {})
    assert config.base == RunConfig(batch_size=16, seed=4)
    assert (config.sparsity, config.criterion) == ((0.5, 0.9), ("effect",))
    assert [(axis.key, axis.values) for axis in config.axes()] == [
        ("rewind", ("none", "pretrained")),
        ("record.lr", (0.01, 1)),
        ("train.nesterov", (True, False)),
        ("seed", (4, 5, 6)),
        ("criterion", ("effect",)),
        ("sparsity", (0.5, 0.9)),
    ]
    assert config == SweepConfig(
        base=RunConfig(batch_size=16, seed=4), sparsity=(0.5, 0.9), criterion=("effect",), vary=config.vary
    )


def test_a_cell_is_the_base_with_a_setting_of_each_axis():
    config = SweepConfig(base=RunConfig(scope="layer"), vary=("record.lr=0.01,1", "iterations=1,3"))
    cells = [config.cell([axis.settings[i] for axis in config.axes()]) for i in (0, 1)]
    assert [(c.scope, c.sparsity, c.criterion, c.seed, c.iterations) for c in cells] == [
        ("layer", 0.5, "gamma", 0, 1),
        ("layer", 0.7, "effect", 1, 3),
    ]
    # A single mask is measured as it is.
    assert [(c.train_epochs, c.posttrain_epochs) for c in cells] == [(0, 0), (2, 30)]
    rates = [PipelinePlan(cell).iteration(0).record.lr for cell in cells]
    assert rates == [0.01, 1.0]
    assert [type(rate) for rate in rates] == [float, float]


def test_of_two_axes_for_one_option_the_later_holds(toml):
    file = toml("[record]\nlr = [0.01, 0.02]\n")
    config = resolve("sweep", {"vary": ("record.lr=0.3",)}, file, {})
    assert [axis.values for axis in config.axes() if axis.key == "record.lr"] == [(0.3,)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[record]\nlr = [0.1, 'much']\n", "record.lr in {file}: expected a number, found 'much'"),
        ("[record]\nlr = [0.1, 0.1]\n", "record.lr in {file}: expected different values, found [0.1, 0.1]"),
        ("[record]\nlr = []\n", "record.lr in {file}: expected values such as 0.01,0.02, found '[]'"),
        ("device = ['cpu', 'cuda']\n", "device in {file}: expected an option of run that decides its result"),
        ("sparsity = [0.5, 'half']\n", "sparsity in {file}: expected different numbers in [0, 1)"),
    ],
)
def test_what_is_wrong_with_a_list_names_the_key(toml, text, message):
    file = toml(text)
    with pytest.raises(UsageError) as caught:
        resolve("sweep", {}, file, {})
    assert message.format(file=file) in one_line(caught)


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("record.lr=0.01, 1", "record.lr", (0.01, 1)),
        ("fit-gamma.alpha-ratio=0.1", "fit-gamma.alpha_ratio", (0.1,)),
        ('dataset=["npz:a,b.npz", "digits"]', "dataset", ("npz:a,b.npz", "digits")),
        ("pretrain.nesterov=true,false", "pretrain.nesterov", (True, False)),
    ],
)
def test_an_axis_keeps_its_values_as_they_were_said(text, key, values):
    axis = Axis.parse(text)
    assert (axis.key, axis.values, str(axis)) == (key, values, text)
    assert [type(value) for value in axis.values] == [type(value) for value in values]


# What decides a result ------------------------------------------------------------------------------------------------


def test_deterministic_kernels_decide_what_runs_the_network_and_no_mask():
    needed = {"apply-mask": {"sparsity": 0.5}}
    decides = {
        name: "deterministic" in kind.of(**needed.get(name, {})).identity_fields()
        for name, kind in CONFIGS.items()
        if "deterministic" in kind.option_fields()
    }
    assert [name for name, it_does in decides.items() if not it_does] == ["apply-mask"]
    assert len(decides) == 9


def test_only_what_writes_has_options_about_what_is_there():
    reading = {name for name, kind in CONFIGS.items() if not {"overwrite", "break_lock"} & kind.option_fields().keys()}
    assert reading == {"info", "store verify"}


def test_a_path_that_no_file_system_takes(toml):
    with pytest.raises(UsageError, match=r"--init-from: expected a path, found 'a.*b'"):
        resolve("pretrain", {}, toml('init-from = "a\\u0000b"'))
