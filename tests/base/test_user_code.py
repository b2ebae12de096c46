"""The importer of user code: files of the working directory by their location, and nothing else hidden by them."""

import subprocess
import sys
from textwrap import dedent

import pytest


@pytest.fixture
def project(tmp_path):
    """Write files of a user, and run a program beside them in a process of its own."""

    class Project:
        folder = tmp_path / "project"
        installed = tmp_path / "installed"

        def write(self, name, text, *, folder=None):
            path = (folder or self.folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))

        def run(self, program):
            # As a console script: the first entry of the path is the folder of the script.
            self.write("program.py", program, folder=tmp_path / "bin")
            command = [sys.executable, str(tmp_path / "bin" / "program.py")]
            environment = {"PYTHONPATH": str(self.installed), "PATH": ""}
            done = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.split(), done.stderr

    made = Project()
    made.folder.mkdir()
    made.installed.mkdir()
    return made


IMPORT = "from causalprune.base.user_code import import_user_module\n"


def test_files_named_like_the_standard_library_hide_none_of_it(project):
    for name in ("statistics", "random", "fractions"):
        project.write(f"{name}.py", "raise RuntimeError('the user\\'s file was taken')\n")
    project.write("mine.py", "import statistics, random\ndef make(): return statistics.mean([1, 3]), random.Random\n")
    out, err = project.run(
        IMPORT
        + """
make = import_user_module("mine").make
import fractions, json
print(make()[0], fractions.Fraction(1, 2))
"""
    )
    assert (out, err) == (["2", "1/2"], "")


def test_a_file_named_like_the_standard_library_is_loaded_where_it_is_asked_for(project):
    project.write(
        "statistics.py",
        """
        import dataclasses, statistics
        @dataclasses.dataclass
        class Mean:
            values: "list[float]"
        def make(): return statistics.mean(Mean([1, 3]).values)
        """,
    )
    out, err = project.run(
        IMPORT
        + """
print(import_user_module("statistics").make())
assert import_user_module("statistics") is import_user_module("statistics")
import statistics
print(statistics.mean([4]), hasattr(statistics, "Mean"))
"""
    )
    assert out == ["2", "4", "False"]
    assert err == f"statistics exists twice: the one in the working directory {project.folder} is used, not the other\n"


@pytest.mark.parametrize("imported_before", [False, True])
def test_a_name_that_is_installed_as_well_is_the_working_directorys_and_that_is_said_once(project, imported_before):
    project.write("nets/__init__.py", "where = 'installed'\n", folder=project.installed)
    project.write("nets/parts.py", "where = 'installed'\n", folder=project.installed)
    project.write("nets/__init__.py", "from .parts import where\n")
    project.write("nets/parts.py", "where = 'here'\n")
    out, err = project.run(
        ("import nets\n" if imported_before else "")
        + IMPORT
        + """
print(import_user_module("nets").where, import_user_module("nets.parts").where)
import nets
print(nets.where)
"""
    )
    # Whoever imported the installed one before keeps it.
    assert out == ["here", "here", "installed" if imported_before else "here"]
    assert err.count("nets exists twice") == 1


def test_the_same_file_on_the_path_is_not_there_twice(project):
    project.write("nets.py", "where = 'here'\n")
    project.installed.rmdir()
    project.installed.symlink_to(project.folder)
    out, err = project.run(IMPORT + "print(import_user_module('nets').where, import_user_module('nets').where)")
    assert (out, err) == (["here", "here"], "")


def test_packages_import_relatively_and_a_module_is_loaded_once(project):
    project.write("code/__init__.py", "raise RuntimeError('not asked for')\n")
    project.write("mine/__init__.py", "from mine.sizes import SIZE\n")
    project.write("mine/sizes.py", "print('loaded')\nSIZE = 3\n")
    project.write("mine/deep/__init__.py", "")
    project.write(
        "mine/deep/nets.py",
        """
        from ..sizes import SIZE
        def make():
            import mine.deep.nets
            return SIZE, mine.deep.nets.make is make
        """,
    )
    out, err = project.run(IMPORT + "print(*import_user_module('mine.deep.nets').make())")
    assert (out, err) == (["loaded", "3", "True"], "")


def test_a_folder_counts_only_with_the_wanted_module_in_it(project):
    project.write("nets/__init__.py", "where = 'installed'\n", folder=project.installed)
    project.write("nets/parts.py", "where = 'installed'\n", folder=project.installed)
    project.write("nets/notes.txt", "no module\n")
    out, err = project.run(IMPORT + "print(import_user_module('nets.parts').where, import_user_module('nets').where)")
    assert (out, err) == (["installed", "installed"], "")
    project.write("nets/parts.py", "where = 'here'\n")
    out, err = project.run(IMPORT + "print(import_user_module('nets.parts').where)")
    assert out == ["here"]
    assert "nets exists twice" in err


def test_a_factory_imports_when_it_is_called_also_in_workers(project):
    project.write("helper.py", "SIZE = 3\n")
    project.write(
        "mine.py",
        """
        import torch
        class Numbers(torch.utils.data.Dataset):
            def __len__(self): return 4
            def __getitem__(self, i):
                import helper
                return i * helper.SIZE
        """,
    )
    out, err = project.run(
        IMPORT
        + """
if __name__ == "__main__":
    from torch.utils.data import DataLoader
    numbers = import_user_module("mine").Numbers()
    for method in ("fork", "spawn"):
        print(*(int(x) for x in DataLoader(numbers, batch_size=None, num_workers=2, multiprocessing_context=method)))
"""
    )
    assert (out, err) == (["0", "3", "6", "9"] * 2, "")


def test_the_working_directory_is_put_last_once(project):
    project.write("mine.py", "")
    out, _ = project.run(
        "import sys\nbefore = list(sys.path)\n"
        + IMPORT
        + """
for _ in range(2): import_user_module("mine")
print(sys.path[:-1] == before, sys.path[-1])
"""
    )
    assert out == ["True", str(project.folder)]


def test_a_module_that_fails_can_be_imported_once_it_is_mended(project):
    project.write("statistics.py", "raise ValueError('no luck')\n")
    out, err = project.run(
        IMPORT
        + """
from pathlib import Path
try: import_user_module("statistics")
except ValueError as error: print(error)
Path("statistics.py").write_text("where = 'a longer file, here'")
print(import_user_module("statistics").where)
"""
    )
    assert " ".join(out) == "no luck a longer file, here"
    assert err.count("exists twice") == 2


def test_the_command_started_as_a_module_is_not_fooled_either(tmp_path):
    for name in ("random", "statistics", "typing"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the user\\'s file was taken')\n")
    (tmp_path / "mine.py").write_text("def make(): return {'x': [[0.5, i] for i in range(40)], 'y': [0, 1] * 20}\n")
    command = [sys.executable, "-m", "causalprune", "pretrain", "--dataset", "mine:make", "--epochs", "0", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
