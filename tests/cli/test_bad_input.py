"""Every bad input: one line on stderr, the documented exit code, and nothing half-written."""

import os
import pickle
import shutil
import struct

import numpy as np
import pytest
from causalprune_cli.main import main


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    run = tmp_path_factory.mktemp("bad input") / "run"
    model = ["--model", "mlp", "--hidden", "8"]
    assert main(["pretrain", "--epochs", "1", *model, "--run", str(run), "--quiet"]) == 0
    assert main(["record", "--epochs", "1", "--run", str(run), "--quiet"]) == 0
    assert main(["fit-gamma", "--run", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def run(pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "run")
    return tmp_path / "run"


def listing(folder):
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "lock" not in p.name}


def refused(capsys, code, *args, says=""):
    capsys.readouterr()
    assert main([str(a) for a in args]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("causalprune:")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert says in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["prune"], "prune"),
        (["pretrain", "--epochs", "many"], "--epochs"),
        (["pretrain", "--frobnicate"], "--frobnicate"),
        (["pretrain", "--model", "lenett"], "did you mean 'lenet'"),
        (["pretrain", "--model", "torchvision:resnet19"], "did you mean"),
        (["pretrain", "--model", "no_such_package.models:net"], "no_such_package"),
        (["pretrain", "--dataset", "digit"], "did you mean 'digits'"),
        (["pretrain", "--dataset", "data/bc.csv"], "(did you mean 'csv:data/bc.csv'?), found 'data/bc.csv'"),
        (["pretrain", "--dataset", "bc.NPZ"], "(did you mean 'npz:bc.NPZ'?)"),
        (["pretrain", "--dataset", "{tmp}"], "did you mean 'imagefolder:"),
        (["apply-mask", "--sparsity", "80%"], "--sparsity: expected a number (did you mean 0.8?), found '80%'"),
        (["apply-mask", "--sparsity", "90"], "--sparsity: expected a number in [0, 1) (did you mean 0.9?), found 90.0"),
        (["apply-mask", "--sparsity", "0,9"], "--sparsity: expected a number (did you mean 0.9?), found '0,9'"),
        (["record", "--lr", "1,5"], "--lr: expected a number (did you mean 1.5?), found '1,5'"),
        (["record", "--lr", "1,500"], "--lr: expected a number, found '1,500'"),
        (["apply-mask", "--sparsity", "100"], "--sparsity: expected a number in [0, 1), found 100.0"),
        (["apply-mask", "--sparsity", "-3"], "--sparsity: expected a number in [0, 1), found -3.0"),
        (["run", "--sparsity", "99.5"], "--sparsity: expected a number in [0, 1) (did you mean 0.995?), found 99.5"),
        (["run", "--sparsity", "0.9", "--layer-sparsity", "conv1=50"], "(did you mean 0.5?), found 50.0"),
        (["run", "--sparsity", "0.9", "--layer-sparsity", "conv1=50%"], "conv1=0.5 (did you mean 0.5?), found"),
        (["run", "--sparsity", "0.9", "--layer-sparsity", "conv1=0,5"], "conv1=0.5 (did you mean 0.5?), found"),
        (["record", "--columns", "20"], "--columns: expected a number in (0, 1] (did you mean 0.2?), found 20.0"),
        (["pretrain", "--validation-fraction", "10"], "a number in (0, 1) (did you mean 0.1?), found 10.0"),
        (["posttrain", "--distill", "50"], "a number in [0, 1] (did you mean 0.5?), found 50.0"),
        (["sweep", "--sparsity", "80,90"], "a number in [0, 1) (did you mean 0.8?), found 80.0"),
        (["sweep", "--sparsity", "80%,90%"], "such as 0.5,0.9 (did you mean 0.8?), found '80%'"),
        (["sweep", "--sparsity", "0.5,90"], "a number in [0, 1) (did you mean 0.9?), found 90.0"),
        (["sweep", "--sparsity", "0,9"], "such as 0.5,0.9 (did you mean 0.9?), found '0,9'"),
        (["sweep", "--sparsity", "0.5,0.5"], "such as 0.5,0.9, found '0.5,0.5'"),
        (["apply-mask", "--sparsity", "most"], "--sparsity: expected a number, found 'most'"),
        (["pretrain", "--epochs", "3.5"], "--epochs: expected a whole number, found '3.5'"),
        (["pretrain", "--lr", "0"], "above 0"),
        (["pretrain", "--lr", "inf"], "above 0"),
        (["pretrain", "--lr", "1e300"], "at most 1e18"),
        (["pretrain", "--weight-decay", "1e300"], "at most 1e18"),
        (["pretrain", "--lr-decay", "1e300"], "(0, 1]"),
        (["pretrain", "--batch-size", "0"], "at least 1"),
        (["evaluate", "--output", "."], "ends in a name"),
        (["store", "merge", "a.zarr", "b.zarr", "--output", ".."], "ends in a name"),
        (["pretrain", "--device", "cuda:7"], "--device"),
        (["pretrain", "--device", "cuda:99999999999"], "--device"),
        (["pretrain", "--device", "cuda:00"], "--device"),
        (["pretrain", "--device", "cuda:²"], "--device"),
        (["pretrain", "--device", "tpu"], "--device"),
        (["pretrain", "--hidden", "²"], "--hidden"),
        (["pretrain", "--hidden", "9" * 5000], "--hidden"),
        (["pretrain", "--dataset", "breast-cancer", "--model", "lenet"], "images"),
        (["pretrain", "--config", "{tmp}/typo.toml"], "did you mean epochs"),
        (["apply-mask", "--sparsity", "1.5"], "[0, 1)"),
        (["apply-mask", "--sparsity", "-0.1"], "[0, 1)"),
        (["apply-mask", "--sparsity", "nan"], "[0, 1)"),
        (["apply-mask", "--sparsity", "1.0"], "[0, 1)"),
        (["apply-mask"], "one of --sparsity S, --pattern N:M and --zero"),
        (["apply-mask", "--zero", "--criterion", "magnitude"], "--criterion: expected gamma with --zero"),
        (["apply-mask", "--zero", "--criterion", "chita", "--rewind", "pretrained"], "expected gamma with --zero"),
        (["apply-mask", "--zero", "--scope", "layer"], "--scope: expected global with --zero"),
        (["apply-mask", "--zero", "--schedule", "cubic"], "--schedule: expected one-shot with --zero"),
        (["apply-mask", "--zero", "--iterations", "2"], "--iterations: expected 1 with --zero"),
        (["apply-mask", "--sparsity", "0.5", "--criterion", "gama"], "did you mean"),
        (["apply-mask", "--sparsity", "0.5", "--iteration", "3", "--iterations", "2"], "at most"),
        (["apply-mask", "--sparsity", "0.5", "--output", "{run}/recorded.safetensors"], "output path"),
        (["fit-gamma", "--alpha", "-1"], "--alpha"),
        (["fit-gamma", "--alpha", "1", "--alpha-ratio", "0.5"], "both"),
        (["fit-gamma", "--solver", "newton"], "lasso"),
        (["fit-gamma", "--name", "other", "--alpha-ratio", "0.01", "--memory", "1kB"], "--memory"),
        (["run", "--set", "record.lrr=1"], "did you mean lr"),
        (["run", "--set", "pretrian.lr=1"], "one of the stages"),
    ],
)
def test_usage(capsys, run, tmp_path, command, says):
    (tmp_path / "typo.toml").write_text("[pretrain]\nepoch = 3\n")
    before = listing(run)
    command = [part.replace("{tmp}", str(tmp_path)).replace("{run}", str(run)) for part in command]
    if command[:1] == ["pretrain"]:
        command += ["--output", str(tmp_path / "new.safetensors")]
    if command[:1] in (["pretrain"], ["apply-mask"], ["fit-gamma"], ["run"]):
        command += ["--run", str(run), "--quiet"]
    refused(capsys, 2, *command, says=says)
    assert not (tmp_path / "new.safetensors").exists()
    assert listing(run) == before


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["record"], "causalprune pretrain"),
        (["fit-gamma"], "trajectory store"),
        (["apply-mask", "--sparsity", "0.5"], "causalprune record"),
        (["posttrain"], "causalprune apply-mask"),
        (["evaluate"], "causalprune posttrain"),
        (["info"], "nothing"),
        (["pretrain", "--init-from", "missing.safetensors"], "missing.safetensors"),
        (["pretrain", "--dataset", "mnist", "--data-root", "nowhere"], "--download"),
        (["pretrain", "--dataset", "npz:nothing.npz"], "nothing.npz"),
        (["pretrain", "--dataset", "imagefolder:nowhere"], "nowhere"),
        (["pretrain", "--config", "nothing.toml"], "nothing.toml"),
    ],
)
def test_what_is_missing(capsys, tmp_path, monkeypatch, command, says):
    monkeypatch.chdir(tmp_path)
    refused(capsys, 3, *command, "--quiet", says=says)


@pytest.mark.parametrize("kind", ["pipe", "circle", "/dev/zero"])
@pytest.mark.parametrize(
    ("command", "where"),
    [
        (["record"], "--checkpoint"),
        (["evaluate"], "--checkpoint"),
        (["info"], ""),
        (["pretrain"], "--init-from"),
        (["pretrain"], "--config"),
        (["fit-gamma", "--name", "other"], "--row-weights"),
        (["fit-gamma", "--name", "other"], "--store"),
    ],
)
def test_what_is_no_regular_file_is_not_opened(capsys, run, tmp_path, kind, command, where):
    """Opening a pipe would wait for a writer, and a device may have no end."""
    path = {"pipe": tmp_path / "pipe.pt", "circle": tmp_path / "circle.pt"}.get(kind, kind)
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "circle.pt").symlink_to("circle.pt")
    others = ["--output", tmp_path / "new.safetensors"] * (command[0] in ("pretrain", "record"))
    refused(capsys, 3, *command, *others, *[where] * bool(where), path, "--run", run, "--quiet", says=str(path))


def test_an_output_that_is_a_pipe_is_left_alone(capsys, run, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = ["posttrain", "--run", run, "--checkpoint", run / "recorded.safetensors", "--output", pipe, "--quiet"]
    for more in ([], ["--overwrite"]):
        refused(capsys, 6, *command, *more, says="special file")
    assert pipe.is_fifo()


def damage(path, kind):
    data = bytearray(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(data[:-40])
    elif kind == "flipped":
        data[-100] ^= 4
        path.write_bytes(data)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"weights": [1.0]}))
    elif kind == "absurd header":
        path.write_bytes(struct.pack("<Q", 2**60) + bytes(data[8:]))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "directory":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "code"),
    [("truncated", 4), ("flipped", 4), ("pickle", 4), ("absurd header", 4), ("empty", 3), ("directory", 3)],
)
def test_a_damaged_checkpoint_is_named(capsys, run, kind, code):
    damage(run / "recorded.safetensors", kind)
    line = refused(capsys, code, "apply-mask", "--sparsity", "0.5", "--run", run, "--quiet")
    assert "recorded.safetensors" in line
    assert not (run / "pruned.safetensors").exists()


@pytest.mark.parametrize("kind", ["truncated", "flipped", "missing"])
def test_a_damaged_shard_is_named_and_never_read_as_zeros(capsys, run, kind):
    shard = max((p for p in (run / "trajectory.zarr").rglob("c.*") if p.is_file()), key=lambda p: p.stat().st_size)
    shard.unlink() if kind == "missing" else damage(shard, kind)
    before = listing(run)
    line = refused(capsys, 4, "fit-gamma", "--name", "again", "--run", run, "--quiet")
    assert shard.name in line
    assert listing(run) == before


def test_a_store_of_another_model(capsys, run, tmp_path):
    other = tmp_path / "other"
    model = ["--model", "mlp", "--hidden", "9"]
    assert main(["pretrain", "--epochs", "0", *model, "--run", str(other), "--quiet"]) == 0
    args = ["--sparsity", "0.5", "--store", run / "trajectory.zarr", "--checkpoint", other / "pretrained.safetensors"]
    refused(capsys, 5, "apply-mask", *args, "--run", run, "--quiet", says="another model")


def test_a_mask_of_another_iteration(capsys, run):
    assert main(["apply-mask", "--sparsity", "0.5", "--run", str(run), "--quiet"]) == 0
    args = ["--sparsity", "0.8", "--checkpoint", run / "pruned.safetensors", "--output", run / "twice.safetensors"]
    refused(capsys, 5, "apply-mask", *args, "--run", run, "--quiet", says="the mask that recording")


def test_a_fit_that_is_not_there(capsys, run):
    args = ["--sparsity", "0.5", "--fit", "nightly"]
    refused(capsys, 5, "apply-mask", *args, "--run", run, "--quiet", says="fit named nightly")


def test_a_loss_that_is_not_a_number_while_recording(capsys, run):
    before = (run / "trajectory.zarr").stat().st_mtime_ns
    store = ["--store", run / "other.zarr", "--output", run / "other.safetensors"]
    refused(capsys, 3, "record", "--lr", "1e18", "--epochs", "1", *store, "--run", run, "--quiet", says="finite")
    assert (run / "trajectory.zarr").stat().st_mtime_ns == before
    assert not (run / "other.safetensors").exists()


def test_a_recording_of_one_row(capsys, run):
    store = ["--store", run / "other.zarr", "--output", run / "other.safetensors"]
    refused(capsys, 3, "record", "--steps", "1", *store, "--run", run, "--quiet", says="at least 2 rows")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory(capsys, tmp_path):
    tmp_path.chmod(0o555)
    refused(capsys, 6, "pretrain", "--epochs", "0", "--run", tmp_path / "run", "--quiet", says="permission")


def test_a_run_directory_below_a_file(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    refused(capsys, 6, "pretrain", "--epochs", "0", "--run", tmp_path / "file" / "run", "--quiet")


def test_bad_arrays(capsys, tmp_path):
    nan, objects = tmp_path / "nan.npz", tmp_path / "objects.npz"
    np.savez(nan, x=np.full((40, 3), np.nan, dtype=np.float32), y=np.arange(40) % 2)
    np.savez(objects, x=np.array([{}] * 40, dtype=object), y=np.arange(40) % 2)
    refused(capsys, 3, "pretrain", "--dataset", f"npz:{nan}", "--run", tmp_path / "a", "--quiet", says="nan.npz")
    refused(capsys, 4, "pretrain", "--dataset", f"npz:{objects}", "--run", tmp_path / "b", "--quiet")


@pytest.mark.parametrize("name", ["with space", 'quote\'s "name"', "line\nbreak", "naïve 名前"])
def test_hostile_paths_work(tmp_path, name, capsys):
    run = tmp_path / name
    for stage in (["pretrain", "--epochs", "0", "--model", "mlpnet"], ["record", "--epochs", "1"], ["fit-gamma"]):
        assert main([*stage, "--run", str(run), "--quiet"]) == 0, capsys.readouterr().err
    assert main(["apply-mask", "--sparsity", "0", "--run", str(run), "--quiet"]) == 0
    assert main(["info", str(run)]) == 0


@pytest.mark.parametrize("command", [["fit-gamma", "--name", "other"], ["apply-mask", "--sparsity", "0.5"]])
def test_a_granularity_that_the_model_lacks(capsys, run, command):
    says = "granularity filter: expected a network with Conv layers, found none; use --granularity neuron"
    before = listing(run)
    refused(capsys, 5, *command, "--granularity", "filter", "--run", run, says=says)
    assert listing(run) == before
