"""A command or an option that isn't there: what was meant is named in the same line."""

import pytest
from causalprune_cli.main import main
from causalprune_cli.mistakes import meant

from causalprune.config.run import OF_A_COMMAND_ALONE, RUN_STAGES, RunConfig, settable


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("run --record-lr 1", "no such option: --record-lr; did you mean --set record.lr=…?"),
        ("run --gamma-alpha 1", "no such option: --gamma-alpha; did you mean --set fit-gamma.alpha=…?"),
        ("sweep --gamma-alpha 1", "no such option: --gamma-alpha; did you mean --set fit-gamma.alpha=…?"),
        ("sweep --fit-gamma-alpha 1", "no such option: --fit-gamma-alpha; did you mean --set fit-gamma.alpha=…?"),
        ("run --codec small", "no such option: --codec; did you mean --set record.codec=…?"),
        (
            "run --lr=1",
            "no such option: --lr; did you mean --set pretrain.lr=…, --set train.lr=…, --set record.lr=… or "
            "--set posttrain.lr=…?",
        ),
        ("sweep --dry-run", "no such option: --dry-run; did you mean --run, or the option of record, run?"),
        ("run --sparsty 0.9", "no such option: --sparsty; did you mean --sparsity?"),
        (
            "run --iteration 3",
            "no such option: --iteration; did you mean --iterations or --set apply-mask.iteration=…?",
        ),
        (
            "run --epochs 3",
            "no such option: --epochs; did you mean --pretrain-epochs, --train-epochs, --record-epochs or "
            "--posttrain-epochs?",
        ),
        ("sweep --record-hold", "no such option: --record-hold; did you mean --set record.hold=true?"),
        ("evaluate --hesian 3", "no such option: --hesian; did you mean --hessian?"),
        (
            "fit-gamma --sparsity 0.9",
            "no such option: --sparsity; did you mean --target-sparsity, or the option of apply-mask, run, sweep?",
        ),
        (
            "store verify --codec small",
            "no such option: --codec; it is an option of record, store compact, store merge",
        ),
        ("record --frobnicate", "no such option: --frobnicate; see causalprune record --help"),
        ("--verzion", "no such option: --verzion; did you mean --version?"),
        ("run somewhere", "run: expected no more arguments, found somewhere; see causalprune run --help"),
        ("pretrain --epochs", "option '--epochs' requires an argument; see causalprune --help"),
    ],
)
def test_what_was_meant_is_said(capsys, command, line):
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"causalprune: {line}\n"


COMMANDS = (
    "run, sweep, report, info, pretrain, record, fit-gamma, apply-mask, repair, posttrain, evaluate, diagnose, export, "
    "store"
)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("recrod", "record"),
        ("prune", "apply-mask"),
        ("fit", "fit-gamma"),
        ("train", "pretrain"),
        ("finetune", "posttrain"),
        ("fine-tune", "posttrain"),
        ("test", "evaluate"),
        ("eval", "evaluate"),
    ],
)
def test_the_command_that_was_meant_is_said(capsys, said, meant):
    assert main([said]) == 2
    assert capsys.readouterr().err == (
        f"causalprune: command: expected one of {COMMANDS}, found '{said}'; did you mean {meant}?\n"
    )


@pytest.mark.parametrize(
    ("said", "remedy"), [("verfy", "did you mean verify?"), ("prune", "see causalprune store --help")]
)
def test_a_command_of_two_words_is_one_of_its_group(capsys, said, remedy):
    assert main(["store", said]) == 2
    expected = f"command: expected one of verify, export, compact, merge, found '{said}'; {remedy}"
    assert capsys.readouterr().err == f"causalprune: {expected}\n"


@pytest.mark.parametrize(
    "command",
    [
        "sweep --sparsity 0.8 --sparsity 0.9",
        "sweep --criterion effect --criterion magnitude,random",
        "pretrain --hidden 3 --hidden 4",
        "run --hidden 3 --hidden 4",
        "pretrain --decay-at 0.5 --decay-at 0.7",
        "info --stop-signals TERM --stop-signals USR1",
    ],
)
def test_a_list_that_is_given_twice_is_refused(capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    _, flag, one, _, other = command.split()
    expected = f"{flag}: expected one list, found {one} and {other}; give them by commas: {flag} {one},{other}"
    assert capsys.readouterr().err == f"causalprune: {expected}\n"
    assert not list(tmp_path.iterdir())


def test_of_other_options_the_last_one_holds(capsys, tmp_path):
    """As scripts override what they pass on."""
    command = ["sweep", "--seeds", "0", "--seeds", "x", "--sparsity", "0.5", "--run", str(tmp_path / "run")]
    assert main([*command, "--seeds", "-1"]) == 2
    assert "--seeds: expected a whole number of at least 1, found -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "found"),
    [
        (["--criterion", "effect,magnetude"], "(did you mean 'magnitude'?), found 'magnetude'\n"),
        (["--sparsity", "0.8,1.5"], "--sparsity: expected a number in [0, 1), found 1.5\n"),
        (["--sparsity", "0.8,most"], ": expected different numbers in [0, 1) such as 0.5,0.9, found 'most'\n"),
        (["--sparsity", "0.8,0.80"], ", found '0.8,0.8'\n"),
    ],
)
def test_of_a_list_the_wrong_item_is_shown(capsys, tmp_path, option, found):
    assert main(["sweep", *option, "--run", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.endswith(found)


def test_what_is_proposed_is_taken():
    """Every option of every stage, said as an option of run, leads to a setting that there is, or to run's own."""
    for stage in RUN_STAGES:
        for name in settable(stage):
            if f"{stage}_{name}" in RunConfig.option_fields():
                assert meant("run", f"--{name}", ["--set"]).count(f"--{stage}-{name}") == 1
                continue
            said = meant("run", f"--{stage}-{name.replace('_', '-')}", ["--set"])
            proposed = [part.split("=")[0] for part in said.split("--set ")[1:]]
            assert f"{stage}.{name.replace('_', '-')}" in proposed
            for setting in proposed:
                of, _, option = setting.partition(".")
                assert option.replace("-", "_") in RUN_STAGES[of].option_fields()


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    "setting",
    [
        *("record.dry-run=true", "pretrain.output=x", "posttrain.checkpoint=x", "train.run=x"),
        *("evaluate.overwrite=true", "apply-mask.fit=x", "apply-mask.weights=x.pt"),
    ],
)
def test_what_only_a_command_of_its_own_can_do_is_no_setting(capsys, tmp_path, command, setting):
    """A sweep with a dry recording would fail in each cell, for ever."""
    assert main([command, "--set", setting, "--run", str(tmp_path / "run"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert f"expected an option of {setting.partition('.')[0]} that a run leaves to it" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize("setting", ["sparsity=0.5", "criterion=gamma", "pattern=2:4", "zero=true"])
def test_what_an_option_of_run_is_for_is_no_setting(capsys, tmp_path, command, setting):
    """The result would show the sparsity of run, and be of another."""
    assert main([command, "--set", f"apply-mask.{setting}", "--run", str(tmp_path / "run"), "--quiet"]) == 2
    option = setting.partition("=")[0]
    expected = f"--set apply-mask.{setting}: expected --{option} for it, found --set"
    assert capsys.readouterr().err == f"causalprune: {expected}\n"
    assert not (tmp_path / "run").exists()


def test_what_a_setting_refuses_is_an_option_of_some_stage():
    known = {name for stage in RUN_STAGES.values() for name in stage.option_fields()}
    assert known >= OF_A_COMMAND_ALONE


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run --criterion effectt", "(did you mean 'effect'?)"),
        ("run --scope globle", "(did you mean 'global'?)"),
        ("run --rewind pretraind", "(did you mean 'pretrained'?)"),
        ("run --recipe paper-v2", "(did you mean 'paper-v1'?)"),
        ("run --granularity filtr", "(did you mean 'filter'?)"),
        ("sweep --criterion gamma,magnitud", "(did you mean 'magnitude'?)"),
        ("pretrain --dataset brest-cancer", "(did you mean 'breast-cancer'?)"),
        ("pretrain --model lenett", "(did you mean 'lenet'?)"),
        ("pretrain --optimizer adamm", "(did you mean 'adam'?)"),
        ("pretrain --task regressio", "(did you mean 'regression'?)"),
        ("record --codec smalll", "(did you mean 'small'?)"),
        ("fit-gamma --solver laso", "(did you mean 'lasso'?)"),
        ("export --format onx", "(did you mean 'onnx'?)"),
        ("run --set record.codec=smalll", "(did you mean 'small'?)"),
    ],
)
def test_the_nearest_value_is_proposed(capsys, tmp_path, command, says):
    assert main([*command.split(), "--run", str(tmp_path / "run"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
