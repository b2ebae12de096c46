"""An option that isn't there: what was meant is named in the same line."""

import pytest
from causalprune_cli.main import main
from causalprune_cli.mistakes import meant

from causalprune.config.run import RUN_STAGES


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
        ("run --sparsty 0.9", "no such option: --sparsty; did you mean --sparsity?"),
        ("run --iteration 3", "no such option: --iteration; did you mean --set apply-mask.iteration=…?"),
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
        ("recrod", "no such command 'recrod'; did you mean record?"),
        ("run somewhere", "run: expected no more arguments, found somewhere; see causalprune run --help"),
        ("pretrain --epochs", "option '--epochs' requires an argument; see causalprune --help"),
    ],
)
def test_what_was_meant_is_said(capsys, command, line):
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"causalprune: {line}\n"


def test_what_is_proposed_is_taken():
    """Every option of every stage, said as an option of run, leads to a setting that there is."""
    for stage, config in RUN_STAGES.items():
        for name in config.option_fields():
            said = meant("run", f"--{stage}-{name.replace('_', '-')}", ["--set"])
            proposed = [part.split("=")[0] for part in said.split("--set ")[1:]]
            assert f"{stage}.{name.replace('_', '-')}" in proposed
            for setting in proposed:
                of, _, option = setting.partition(".")
                assert option.replace("-", "_") in RUN_STAGES[of].option_fields()


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
