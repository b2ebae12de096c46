"""``import causalprune``: light, lazy and typed."""

import doctest
import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch

import causalprune
from causalprune import api

ROOT = Path(__file__).parents[1]


def test_importing_the_package_loads_neither_pytorch_nor_numpy():
    code = "import sys, causalprune; dir(causalprune); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_all_names_are_there():
    assert causalprune.__all__ == sorted([*api.__all__, "__version__"])
    assert set(causalprune.__all__) <= set(dir(causalprune))
    for name in api.__all__:
        assert getattr(causalprune, name) is getattr(api, name)
    assert causalprune.__version__ == version("causalprune")


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'causalprune' has no attribute 'record'"):
        _ = causalprune.record
    assert not hasattr(causalprune, "Recording")


def test_a_command_is_a_module_whatever_was_imported_before():
    from causalprune.commands import pretrain

    assert isinstance(pretrain, ModuleType)
    assert callable(pretrain.pretrain)


def test_the_imports_of_the_docstring_work():
    result = doctest.testmod(causalprune)
    assert result.attempted >= 1
    assert result.failed == 0


@pytest.mark.parametrize(
    "thing", [api.prune, api.repair, api.compact, api.Mask.hold, api.Criterion], ids=lambda thing: thing.__name__
)
def test_the_examples_of_the_docstrings_work(thing):
    torch.manual_seed(0)
    (example,) = doctest.DocTestFinder(recurse=False).find(
        thing, thing.__name__, globs=vars(sys.modules[thing.__module__])
    )
    result = doctest.DocTestRunner().run(example)
    assert result.attempted >= 4
    assert result.failed == 0


def test_the_ten_lines_work(tmp_path, monkeypatch):
    """The example of Recorder, then that of fit, on the same store."""
    monkeypatch.chdir(tmp_path)
    finder = doctest.DocTestFinder(recurse=False)
    for thing in (api.Recorder, api.fit):
        (example,) = finder.find(thing, thing.__name__, globs={})
        assert doctest.DocTestRunner().run(example).failed == 0


def test_everything_exported_says_what_it_takes_returns_and_raises():
    for name in api.__all__:
        thing = getattr(api, name)
        assert inspect.getdoc(thing)
        if inspect.isfunction(thing):
            documented = re.findall(r"^    (\w+): ", inspect.getdoc(thing).partition("Returns:")[0], flags=re.MULTILINE)
            assert documented == list(inspect.signature(thing).parameters)
            assert "Returns:" in thing.__doc__
            assert "Raises:" in thing.__doc__
            assert all(p.annotation is not p.empty for p in inspect.signature(thing).parameters.values())


def test_type_checkers_know_the_exported_names(tmp_path):
    pytest.importorskip("mypy")
    code = "from causalprune import Recorder, __version__\nreveal_type(__version__)\n"
    code += "Recorder(1)\nRecorder.no_such_name\nimport torch, causalprune as cp\n"
    code += "reveal_type(cp.prune(torch.nn.Linear(2, 2), sparsity=0.5))\ncp.prune(torch.nn.Linear(2, 2), sparsty=0.5)\n"
    (tmp_path / "user.py").write_text(code + 'reveal_type(cp.fit("trajectory.zarr"))\n')
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(tmp_path / "user.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout
    assert 'user.py:2: note: Revealed type is "str"' in said
    assert 'user.py:3: error: Missing positional arguments "optimizer", "store" in call to "Recorder"' in said
    assert 'user.py:4: error: "type[Recorder]" has no attribute "no_such_name"' in said
    assert 'user.py:6: note: Revealed type is "causalprune.models.mask.Mask"' in said
    assert 'user.py:7: error: Unexpected keyword argument "sparsty" for "prune"' in said
    assert 'user.py:8: note: Revealed type is "causalprune.trajectory.array_groups.Fit"' in said
