"""info of a run directory at a glance, of an exported network, and of a recording of somebody's own loop."""

import json
import os
import shlex
import shutil
import signal
from itertools import count
from pathlib import Path

import pytest
import torch
from causalprune_cli.main import main
from commands import call, call_json

from causalprune import Recorder
from causalprune.commands._said import said_options
from causalprune.commands.names import CONFIGS
from causalprune.trajectory import Store

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
RUN = ["run", *TINY, "--iterations", "1", "--sparsity", "0.5", "--pretrain-epochs", "1", "--train-epochs", "0"]
RUN += ["--record-epochs", "1", "--posttrain-epochs", "1", "--set", "record.lr=0.02"]
PRUNED = ["--sparsity", "0.67"]
STAGES = [
    ["pretrain", *TINY, "--epochs", "1"],
    ["record", "--steps", "6"],
    ["fit-gamma", "--held-out", "0"],
    ["apply-mask", "--sparsity", "0.5", "--no-measure"],
    ["posttrain", "--epochs", "1"],
    ["evaluate"],
    ["export"],
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run by one command, in which nothing changes."""
    folder = tmp_path_factory.mktemp("overview")
    assert call(*RUN, "--run", folder / "run", "-q") == 0
    return folder / "run"


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


@pytest.mark.parametrize("change", ["shorter", "longer", "gone"])
def test_a_shard_of_another_length_is_named_without_reading_it(run, capsys, change):
    (shard,) = run.glob("iteration-000/trajectory.zarr/recordings/*/delta/c.0.0")
    size = shard.stat().st_size
    other = {"shorter": size - 1000, "longer": size + 1, "gone": None}[change]
    if other is None:
        shard.unlink()
    else:
        os.truncate(shard, other)
    for path in (run, run / "iteration-000/trajectory.zarr"):
        assert call("info", path, "--json") == 4
        found = json.loads(capsys.readouterr().out)
        assert not found["healthy"]
        (problem,) = found["problems"]
        found = "no file" if other is None else f"{other} bytes"
        assert f"delta/c.0.0: expected {size} bytes, found {found}" in problem


def test_a_network_that_lost_its_mask_is_made_again_by_the_run(made, run, capsys):
    network = run / "iteration-000/pruned.safetensors"
    (run / "iteration-000/pruned.mask.safetensors").unlink()
    advice = "in the directory of a run, delete pruned.safetensors and repeat the run, which makes both again"
    assert call("info", run, "--json") == 4
    assert any(advice in problem for problem in json.loads(capsys.readouterr().out)["problems"])
    assert call(*RUN, "--run", run, "-q") == 3
    assert advice in capsys.readouterr().err
    network.unlink()
    assert call(*RUN, "--run", run, "-q") == 0
    for name in ("iteration-000/pruned", "iteration-000/pruned.mask", "final", "final.mask"):
        assert (run / f"{name}.safetensors").read_bytes() == (made / f"{name}.safetensors").read_bytes()


def test_after_a_recording_that_failed_comes_the_recording(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*STAGES[0], "-q") == 0
    # As a full disk leaves it: rows, but neither an end nor a saved state.
    assert call("record", "--steps", "6", "-q") == 0
    (log,) = (tmp_path / "run/trajectory.zarr/recordings").glob("*/delta/commits.log")
    lines = log.read_bytes().splitlines(keepends=True)
    assert b'"finish"' in lines[-1]
    log.write_bytes(b"".join(lines[:-1]))
    (tmp_path / "run/recorded.safetensors").unlink()
    found = call_json(capsys, "info", "run")
    assert found["details"]["overview"]["next"] == "causalprune record"
    assert any("run the same record command again" in problem for problem in found["problems"])
    # Done again as it was said, it is finished.
    assert call("record", "--steps", "6", "-q") == 0
    assert call_json(capsys, "info", "run")["details"]["overview"]["next"] == "causalprune fit-gamma"


def overview(run, capsys):
    return call_json(capsys, "info", run)["details"]["overview"]


def test_each_stage_says_what_comes_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    followers = [stage[0] for stage in STAGES[1:]]
    for stage, follower in zip(STAGES, [*followers, None], strict=True):
        assert call(*stage, "-q") == 0
        found = call_json(capsys, "info", "run")["details"]
        more = " --sparsity 0.9" if follower == "apply-mask" else ""
        assert found["overview"]["next"] == (follower and f"causalprune {follower}{more}")
        assert (found["overview"]["command"], found["overview"]["finished"]) == (None, None)
    options = {line["name"]: line["options"] for line in found["artefacts"]}  # codespell:ignore artefacts
    assert sorted(options["pretrained.safetensors"]) == sorted(STAGES[0][1:])
    assert options["recorded.safetensors"] == ["--steps", "6"]
    assert options["final.safetensors"] == ["--epochs", "1"]
    (export,) = found["exports"]
    assert (export["name"], export["format"], export["state"]) == ("exported.pt", "torch", "done")
    assert export["made_from"] == {"checkpoint": "final.safetensors"}
    sizes = found["overview"]["bytes"]
    assert sizes["exports"] == (tmp_path / "run/exported.pt").stat().st_size
    names = ("pretrained", "recorded", "pruned", "final")
    assert sizes["networks"] == sum((tmp_path / f"run/{name}.safetensors").stat().st_size for name in names)
    assert main(["info"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "pretrain" in text
    assert "record --steps 6" in text
    assert "network mlp on breast-cancer" in text
    # A row is a line: the fit stands for its store.
    assert "pruned.safetensors recorded, fit default 50.00% zero" in text
    # What came last is stale once what it was made from is another.
    assert call("apply-mask", "--sparsity", "0.6", "--no-measure", "--overwrite", "-q") == 0
    found = call_json(capsys, "info")["details"]
    states = {line["name"]: line["state"] for line in found["artefacts"]}  # codespell:ignore artefacts
    assert states["final.safetensors"] == "stale"
    assert states["pruned.safetensors"] == "done"
    assert found["overview"]["next"] == "causalprune posttrain --epochs 1 --overwrite"
    assert main(["info"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("final.safetensors")]
    assert "(stale)" in line.split()


def follow(run, capsys):
    """Type each command that info prints as it is, until none is left; returns their names."""
    done = []
    while following := overview(run, capsys)["next"]:
        program, *arguments = shlex.split(following)
        assert program == "causalprune"
        capsys.readouterr()
        assert main([*arguments, "-q"]) == 0, following
        assert len(done) < 9, "it comes to an end"
        done.append(arguments[0])
    return done


def test_every_command_that_comes_next_runs_as_it_is_printed(tmp_path, capsys, monkeypatch):
    """From the first network on: stage by stage; after a repair, which no training follows; after a change."""
    monkeypatch.chdir(tmp_path)
    assert call(*STAGES[0], "-q") == 0
    assert follow("run", capsys) == ["record", "fit-gamma", "apply-mask", "posttrain", "evaluate", "export"]
    for folder in ("other run", "repaired"):
        Path(folder).mkdir()
        for name in ("pretrained", "recorded", "pruned", "pruned.mask"):
            shutil.copy(f"run/{name}.safetensors", folder)
    assert follow("other run", capsys) == ["posttrain", "evaluate", "export"]
    assert call("repair", "--samples", "32", "--run", "repaired", "-q") == 0
    assert overview("repaired", capsys)["next"] == "causalprune evaluate repaired/repaired.safetensors"
    assert follow("repaired", capsys) == ["evaluate", "export"]
    assert not Path("repaired/final.safetensors").exists()
    assert call("apply-mask", "--sparsity", "0.6", "--no-measure", "--overwrite", "-q") == 0
    assert follow("run", capsys)[:2] == ["posttrain", "evaluate"]


def test_what_comes_next_in_the_folder_of_a_loop_runs_as_it_is_printed(tmp_path, capsys, monkeypatch):
    """There is a store and a state dict, and no checkpoint."""
    monkeypatch.chdir(tmp_path)
    torch.save(loop("trajectory.zarr").state_dict(), "model.pt")
    command = "causalprune apply-mask --weights model.pt --store trajectory.zarr --sparsity 0.9"
    assert call("fit-gamma", "--run", ".", "-q") == 0
    assert overview(".", capsys)["next"] == command
    assert follow(".", capsys) == ["apply-mask"]
    shutil.copy("model.pt", "another.pt")
    assert overview(".", capsys)["next"] is None
    # Without its files nothing tells which weights are of the store.
    Path("model.pruned.safetensors").unlink()
    assert overview(".", capsys)["next"] is None


def test_weights_that_are_pruned_already_are_not_to_be_pruned(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(loop("trajectory.zarr").state_dict(), "model.pt")
    assert call("fit-gamma", "--run", ".", "-q") == 0
    assert follow(".", capsys) == ["apply-mask"]
    Path("model.pt").unlink()
    assert overview(".", capsys)["next"] is None


def test_while_a_loop_records_nothing_comes_next(tmp_path, capsys):
    said = []
    loop(tmp_path / "trajectory.zarr", meanwhile=lambda: said.append(overview(tmp_path, capsys)["next"]))
    assert said == [None]
    assert overview(tmp_path, capsys)["next"] == f"causalprune fit-gamma --run {tmp_path}"


def test_a_recording_of_a_run_is_finished_by_the_run(run, capsys):
    (log,) = run.glob("iteration-000/trajectory.zarr/recordings/*/delta/commits.log")
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    problems = call_json(capsys, "info", run)["problems"]
    assert any(problem.endswith("is not finished: run the same command again") for problem in problems)


def test_a_masked_state_dict_says_where_it_is_from(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(loop("trajectory.zarr").state_dict(), "model.pt")
    prune = ["apply-mask", "--weights", "model.pt", "--store", "trajectory.zarr", "--sparsity", "0.67"]
    assert call("fit-gamma", "--run", ".", "-q") == 0
    assert call(*prune, "-q") == 0
    found = call_json(capsys, "info", "model.pruned.safetensors")
    assert (found["kind"], found["healthy"], found["details"]["mask"]) == (
        "state dict",
        True,
        "model.pruned.mask.safetensors",
    )
    assert (found["details"]["kept"], found["details"]["prunable"]) == (1, 3)
    assert main(["info", "model.pruned.safetensors"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "written by apply-mask --sparsity 0.67" in text
    assert "kept 1 of 3 prunable weights (66.67% sparse)" in text
    # What its result says besides may be gone, and the mask may not.
    Path("model.pruned.safetensors.json").unlink()
    assert call_json(capsys, "info", "model.pruned.safetensors")["details"]["sparsity"] == pytest.approx(2 / 3)
    assert main(["info", "model.pruned.safetensors"]) == 0
    Path("model.pruned.mask.safetensors").rename("elsewhere")
    capsys.readouterr()
    assert main(["info", "model.pruned.safetensors"]) == 4
    assert "expected the mask of model.pruned.safetensors, found nothing" in " ".join(capsys.readouterr().out.split())


def test_a_masked_state_dict_is_no_checkpoint_but_becomes_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(loop("trajectory.zarr").state_dict(), "model.pt")
    options = ["--weights", "model.pt", "--store", "trajectory.zarr", "--criterion", "magnitude"]
    assert call("apply-mask", *options, *PRUNED, "--run", "own", "-q") == 0
    # In the run directory that was named.
    assert sorted(path.name for path in Path("own").glob("*.safetensors")) == [
        "model.pruned.mask.safetensors",
        "model.pruned.safetensors",
    ]
    for stage in ("evaluate", "export", "posttrain"):
        capsys.readouterr()
        assert call(stage, "own/model.pruned.safetensors", "-q") == 4
        assert capsys.readouterr().err == (
            "causalprune: own/model.pruned.safetensors: expected a checkpoint of causalprune, found the state dict "
            "that apply-mask --weights wrote, which says neither its network nor its data; load it in Python, "
            "or make a checkpoint of it: pretrain --init-from FILE --epochs 0 --keep-zeros with its --model and "
            "--dataset\n"
        )


def test_what_is_advised_for_a_masked_state_dict_works(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["pretrain", *TINY, "--epochs", "0"], ["record", "--steps", "3"]):
        assert call(*command, "-q") == 0
    options = ["--weights", "run/recorded.safetensors", "--store", "run/trajectory.zarr", "--criterion", "magnitude"]
    assert call("apply-mask", *options, *PRUNED, "-q", "--run", "own") == 0
    again = ["pretrain", *TINY, "--init-from", "own/recorded.pruned.safetensors", "--epochs", "0", "--keep-zeros"]
    assert call(*again, "--run", "own", "-q") == 0
    evaluated = call_json(capsys, "evaluate", "own/pretrained.safetensors")["metrics"]["evaluation"]
    assert evaluated["sparsity_prunable"] == pytest.approx(0.67, abs=0.01)


def test_a_result_says_what_it_is(run, capsys):
    for name, what, whole in (
        ("results/evaluate.json", "the result of evaluate", run),
        ("results/run.json", "the result of run", run),
        ("run.json", "the options of a run", run),
    ):
        assert call("info", run / name) == 3
        expected = f"{run / name}: expected a store, a checkpoint or a run directory, found {what}; read it as it is"
        assert capsys.readouterr().err == f"causalprune: {expected}, or name {whole}\n"
    (run / "notes.json").write_text("[1]")
    assert call("info", run / "notes.json") == 3
    assert capsys.readouterr().err.endswith("found another JSON file\n")
    path = run / "results/evaluate.json"
    path.write_text(path.read_text().replace("evaluate", "evaluated"))
    assert call("info", path) == 4
    assert "found an altered one" in capsys.readouterr().err


def test_a_file_of_torch_says_what_can_be_done_with_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(3, 2)}, "model.pt")
    assert call("info", "model.pt") == 4
    error = capsys.readouterr().err
    assert "found a file of torch.save; pretrain --init-from FILE --epochs 0 makes a checkpoint of its weights" in error
    assert "apply-mask --weights FILE prunes them" in error


def test_a_sweep_is_reported_once(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    sweep = ["sweep", *TINY, "--sparsity", "0.5", "--criterion", "magnitude", "--seeds", "1", "--pretrain-epochs", "1"]
    assert call(*sweep, "-q") == 0
    assert follow("run", capsys) == ["report"]
    # A page that is older than the table is one of another table.
    os.utime("run/report/index.html", (0, 0))
    assert overview("run", capsys)["next"] == "causalprune report"
    # The page is of no table that is there.
    Path("run/sweep/results.jsonl").unlink()
    assert overview("run", capsys)["next"] == "causalprune report"


def test_an_interrupted_stage_is_begun_again_with_what_was_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken = count(1)
    original = torch.optim.SGD.step

    def step(self, *arguments):
        if next(taken) == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        assert call("pretrain", *TINY, "--epochs", "40", "--lr", "0.02", "--run", "begun", "-q") == 75
    following = call_json(capsys, "info", "begun")["details"]["overview"]["next"]
    program, *arguments = shlex.split(following)
    assert program == "causalprune"
    assert {"--epochs", "40", "--lr", "0.02"} <= set(arguments)
    assert call(*arguments, "-q") == 0


def test_a_run_says_the_command_that_made_it(run, capsys):
    found = overview(run, capsys)
    assert found["finished"] is True
    said = found["command"].split()
    assert said[:2] == ["causalprune", "run"]
    wanted = [option for option in RUN[1:] if option.startswith("--")]
    assert sorted(option for option in said if option.startswith("--")) == sorted([*wanted, "--run"])
    assert "record.lr=0.02" in said
    assert (found["model"], found["dataset"]) == ("mlp", "breast-cancer")
    assert found["next"] == f"causalprune export --run {run}"
    # The very command, typed again, has nothing to do.
    capsys.readouterr()
    assert main(said[1:]) == 0
    assert "nothing to do" in capsys.readouterr().err
    # Not finished, it is to be run again.
    (run / "results/run.json").unlink()
    found = overview(run, capsys)
    assert found["finished"] is False
    assert found["next"] == found["command"]
    assert main(["info", str(run)]) == 0
    assert "--device as they were given)" in " ".join(capsys.readouterr().out.split())
    assert main([*said[1:], "--discard-stores", "-q"]) == 0
    (run / "results/run.json").unlink()
    assert overview(run, capsys)["next"] == found["command"].replace(" --run", " --discard-stores --run")


def test_a_network_says_how_its_training_went(run, capsys):
    trained = json.loads((run / "results/posttrain.json").read_text())["metrics"]
    ((first,), score) = trained["history"], trained["validation"]["top1"]
    assert main(["info", str(run / "final.safetensors")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    loss = f"{first['train_loss']:.4f}"
    assert f"training 1 epoch, loss {loss} → {loss}, best validation accuracy {score:.2%} in epoch 1" in text
    assert main(["info", str(run / "iteration-000/pruned.safetensors")]) == 0
    assert "training" not in capsys.readouterr().out


def test_a_recipe_stands_for_what_it_sets(tmp_path, capsys):
    run = tmp_path / "run"
    shorter = ["--pretrain-epochs", "0", "--train-epochs", "0", "--posttrain-epochs", "0", "--iterations", "1"]
    assert call("run", *TINY, "--recipe", "paper-v1", *shorter, "--sparsity", "0.5", "--run", run, "-q") == 0
    said = overview(run, capsys)["command"].split()
    assert said.count("--set") == 0
    assert said[said.index("--recipe") + 1] == "paper-v1"
    capsys.readouterr()
    assert main(said[1:]) == 0
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "values", "words"),
    [
        ("posttrain", {}, ""),
        ("posttrain", {"warmup": 0, "clip_norm": 0}, "--warmup 0.0 --clip-norm 0.0"),
        ("sweep", {}, "--model lenet"),
        ("sweep", {"train_epochs": 0}, "--train-epochs 0 --model lenet"),
        ("sweep", {"criterion": "gamma", "sparsity": "0.5,0.8"}, "--sparsity 0.5,0.8 --criterion gamma --model lenet"),
        ("run", {"recipe": "paper-v1"}, "--recipe paper-v1"),
        ("run", {"recipe": "paper-v1", "sparsity": 0.9}, "--sparsity 0.9 --recipe paper-v1"),
        ("run", {"recipe": "paper-v1", "pattern": "2:4"}, "--pattern 2:4 --recipe paper-v1"),
        ("run", {"recipe": "june-2025", "iterations": 5}, "--iterations 5 --recipe june-2025"),
        ("run", {"recipe": "june-2025", "zero": True}, "--zero --recipe june-2025"),
        ("sweep", {"recipe": "paper-v1", "sparsity": "0.5,0.8"}, "--sparsity 0.5,0.8 --recipe paper-v1"),
        ("apply-mask", {"sparsity": 0.5, "exponent": 1.0}, "--sparsity 0.5 --exponent 1.0"),
        ("apply-mask", {"sparsity": 0.5}, "--sparsity 0.5"),
        ("apply-mask", {"sparsity": 0.5, "dead_ends": "scored"}, "--sparsity 0.5 --dead-ends scored"),
        ("apply-mask", {"sparsity": 0.5, "criterion": "magnitude"}, "--sparsity 0.5 --criterion magnitude"),
    ],
)
def test_a_command_says_what_is_not_done_without_saying_it(command, values, words):
    kind = CONFIGS.load(command)
    stored = json.loads(json.dumps(kind.of(**values).identity_fields()))
    assert " ".join(said_options(command, stored)) == words


def test_an_evaluation_of_a_network_that_is_gone_is_named(run, capsys):
    assert overview(run, capsys)["next"].startswith("causalprune export")
    assert call("posttrain", "--run", run, "--epochs", "2", "--checkpoint", run / "iteration-000/pruned.safetensors",
                "--overwrite", "-q") == 0  # fmt: skip
    found = call_json(capsys, "info", run)
    assert [w for w in found["warnings"] if "is of a network that isn't here any more" in w]


def test_an_evaluation_of_another_network_is_not_that_of_the_run(run, capsys):
    pruned = run / "iteration-000/pruned.safetensors"
    assert call("evaluate", pruned, "--run", run, "-q") == 0
    found = call_json(capsys, "info", run)["details"]
    assert found["evaluated"] == "iteration-000/pruned.safetensors"
    assert found["overview"]["next"] == f"causalprune evaluate --run {run}"
    assert main(["info", str(run)]) == 0
    assert "test samples (iteration-000/pruned.safetensors)" in " ".join(capsys.readouterr().out.split())
    assert call("evaluate", "--run", run, "-q") == 0
    found = call_json(capsys, "info", run)["details"]
    assert found["evaluated"] == "final.safetensors"
    assert found["overview"]["next"] == f"causalprune export --run {run}"


def test_files_of_several_formats_have_records_of_their_own(run, capsys):
    """None makes another's a foreign file, and each is told by info."""
    formats = {"torch": "exported.pt", "safetensors": "exported.safetensors", "csr": "exported.csr.safetensors"}
    for _ in range(2):
        for number, name in enumerate(formats):
            assert call("export", "--format", name, "--run", run, "-q") == 0, (number, name)
    found = call_json(capsys, "info", run)["details"]["exports"]
    assert {line["format"]: line["name"] for line in found} == formats
    for name, file in formats.items():
        result = call_json(capsys, "info", run / file)
        assert (result["kind"], result["details"]["format"]) == ("export", name)
        assert result["details"]["made_from"] == {"checkpoint": "final.safetensors"}
        assert result["healthy"]
    assert call("info", run / "exported.csr.safetensors", "-q") == 0
    assert "read back bit for bit" in capsys.readouterr().out
    # One that somebody changed.
    path = run / "exported.pt"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert call_json(capsys, "info", path)["healthy"]
    assert call("info", path, "--verify", "-q") == 4
    path.write_bytes(content + b"x")
    assert call("info", path, "-q") == 4


def test_an_export_by_an_earlier_version_is_still_done(run, capsys):
    """It had one record for all formats."""
    assert call("export", "--run", run, "-q") == 0
    (run / "results/export.torch.json").rename(run / "results/export.json")
    assert call_json(capsys, "export", "--run", run)["already_done"]
    assert call_json(capsys, "info", run / "exported.pt")["kind"] == "export"
    assert not call_json(capsys, "export", "--format", "safetensors", "--run", run)["already_done"]
    assert call_json(capsys, "export", "--run", run)["already_done"]


def loop(store, meanwhile=lambda: None, **said):
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.randn(8, 3)
    with Recorder(model, optimizer, store, batch_size=said.pop("size", 1)) as recorder:
        for number in range(4):
            loss = model(data).square().mean()
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda: model(data).square().mean(), **dict.fromkeys(said, number))
        meanwhile()
    return model


def test_a_store_takes_the_room_of_all_its_recordings(tmp_path, capsys):
    store = tmp_path / "run/trajectory.zarr"
    loop(store)
    reader = Store.open(store).recording()
    with Store.open(store).create_recording(reader.info, reader.active, max_rows=1) as writer:
        writer.row()[:] = 0
        writer.append(writer.row(), loss_before=1.0, loss_after=0.5, lr=0.1, epoch=0, batch=0, grad_norm=1.0)
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    assert overview(tmp_path / "run", capsys)["bytes"]["stores"] == size


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({}, "same-batch, stride 1"),
        ({"size": 8}, "batch 8, same-batch, stride 1"),
        ({"batch": True}, "batch 1, same-batch, stride 1, 1 epoch"),
        ({"epoch": True, "size": 2}, "batch 2, same-batch, stride 1, 4 epochs"),
    ],
)
def test_what_a_loop_did_not_say_is_not_made_up(tmp_path, capsys, said, line):
    loop(tmp_path / "own.zarr", **dict(said))
    assert call("info", tmp_path / "own.zarr", "-q") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"momentum 0, {line} stored" in text
    capsys.readouterr()
    assert main(["info", str(tmp_path / "own.zarr"), "--json"]) == 0
    (recording,) = json.loads(capsys.readouterr().out)["details"]["recordings"]
    assert (recording["epochs"] is None) == ("epoch" not in line)
