"""What a shell gets when it asks for completions, by its own protocol and in bash itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from causalprune_cli.main import main

from causalprune.base.options import option_text
from causalprune.config.run import RunConfig
from causalprune.config.sweep_values import Axis
from causalprune.pruning.names import CRITERIA


@pytest.fixture
def completed(monkeypatch, capsys):
    """The completions of the last word of a line, as bash asks for them."""

    def ask(line):
        words = line.split(" ")
        monkeypatch.setenv("_CAUSALPRUNE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        assert main([]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.split()

    return ask


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("causalprune ev", ["evaluate"]),
        ("causalprune store co", ["compact"]),
        ("causalprune run --pretrain-e", ["--pretrain-epochs"]),
        ("causalprune run --criterion o", ["obd", "obs"]),
        ("causalprune run --dataset d", ["digits", "diabetes"]),
        ("causalprune pretrain --model resn", ["resnet18", "resnet20", "resnet50"]),
        ("causalprune fit-gamma --solver ", ["lasso", "sklearn", "sgd"]),
        ("causalprune sweep --criterion magnitude,o", ["magnitude,obd", "magnitude,obs"]),
        ("causalprune run --set fit-gamma.alpha", [f"fit-gamma.alpha{e}=" for e in ("", "-ratio", "s", "-min-ratio")]),
        ("causalprune run --device cu", ["cuda"]),
        # Names of files are the shell's.
        ("causalprune evaluate final", []),
        ("causalprune evaluate --reference run/", []),
        ("causalprune record --store ", []),
    ],
)
def test_values_and_names_are_offered(completed, line, offered):
    assert completed(line) == offered


def test_all_criteria_are_offered(completed):
    assert completed("causalprune apply-mask --criterion ") == list(CRITERIA)


def test_only_what_a_sweep_can_vary_is_offered(completed):
    offered = completed("causalprune sweep --vary ")
    own = [option for option in offered if "." not in option]
    assert {"rewind=", "pretrain-epochs=", "keep-zeros="} < set(own)
    assert not {"dry-run=", "set=", "said=", "run=", "quiet=", "sparsity=", "seed="} & set(own)
    defaults = RunConfig()
    examples = {"layer-sparsity": "fc1=0.5", "model": "mlp", "hidden": "4", "pattern": "2:4"}
    for option in own:
        key = option.removesuffix("=")
        value = getattr(defaults, key.replace("-", "_"))
        given = option_text(value) if value not in (None, "", ()) else examples.get(key, "a")
        assert Axis.parse(option + given).key == key.replace("-", "_")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_help_beside_the_names(shell, monkeypatch, capsys):
    monkeypatch.setenv("_CAUSALPRUNE_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "causalprune run --sp")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "--sparsity" in out
    assert "--split-seed" in out
    assert "Fraction of prunable weights" in out


def test_fish_is_told_whether_there_are_names(monkeypatch):
    """By the exit code; without names it completes files."""
    monkeypatch.setenv("_CAUSALPRUNE_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "is-args")
    for line, code in (("causalprune run --criterion ", 0), ("causalprune evaluate ", 1)):
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        assert main([]) == code


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_choices_and_files(tmp_path):
    """With the script that --show-completion prints, in a shell that has it."""
    (tmp_path / "final.safetensors").touch()
    binary = Path(sys.executable).with_name("causalprune")
    script = f"""
PATH={binary.parent}:$PATH
source <(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 causalprune --show-completion bash)
complete -p causalprune
COMP_WORDS=(causalprune run --criterion ob) COMP_CWORD=3
_causalprune_completion causalprune
echo "${{COMPREPLY[@]}}"
COMP_WORDS=(causalprune evaluate fin) COMP_CWORD=2
_causalprune_completion causalprune
echo "none: ${{COMPREPLY[@]}}"
"""
    environment = {n: v for n, v in os.environ.items() if n != "_CAUSALPRUNE_COMPLETE"}
    command = ["bash", "--norc", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    registered, choices, files = done.stdout.splitlines()
    # With -o default, bash completes names of files where there are no others.
    assert registered == "complete -o default -F _causalprune_completion causalprune"
    assert (choices, files, done.stderr) == ("obd obs", "none: ", "")


def test_installing_writes_into_the_home_directory_alone(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "causalprune", "--install-completion", "bash"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "bash completion installed" in done.stdout
    assert "_causalprune_completion" in (tmp_path / ".bash_completions/causalprune.sh").read_text()


def test_completion_loads_neither_torch_nor_numpy():
    code = """
import os, sys
os.environ |= {"_CAUSALPRUNE_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
os.environ["COMP_WORDS"] = "causalprune run --criterion "
from causalprune_cli.main import main
code = main([])
sys.exit(code or [m for m in ("torch", "numpy", "click") if m in sys.modules] or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == list(CRITERIA)
