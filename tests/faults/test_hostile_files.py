"""Files made by somebody who knows the format and seals what he forged: one line, no hang, no allocation, no escape."""

import hashlib
import json
import os
import shutil
import socket
import struct

import google_crc32c
import pytest
from causalprune_cli.main import main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stage_cases import STAGE_OPTIONS, artifacts, command_of

from causalprune.base.paths import mask_path
from causalprune.trajectory.zarr_files import attributes_checksum, canonical_bytes

MEMORY = 256 * 2**20
"""What a command may allocate beyond what it starts with; the honest files are of a few kilobytes."""

SECONDS = 20

EXAMPLES = int(os.environ.get("CAUSALPRUNE_EXAMPLES", "25"))
"""Forgeries a test; a long search takes hundreds."""

VALUES = st.one_of(
    st.sampled_from([0, -1, 1, 2, 10**6, 2**31, 2**40, 10**18, 2**63, 2**64, 10**30]),
    st.sampled_from([0.5, -1.5, 1e300, float("inf"), True, False, None, [], {}, "", "0", "\x00", "é" * 300]),
    st.sampled_from(["/dev/zero", "../../x", "npz:/dev/zero", "imagefolder:/proc", "os:system", "torchvision:vgg19"]),
    st.sampled_from(
        [[10**18], [10**9, 10**9], [0], [-1], ["x"], [[]], {"a": 1}, "mlp", "lenet", "alexnet", "resnet20"]
    ),
)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def forge(data, value):
    """Replace or remove what stands at one place, or at two."""
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([p for p in places(value) if p]))
        target = value
        for key in path[:-1]:
            target = target[key]
        if data.draw(st.booleans()) or isinstance(target, list):
            target[path[-1]] = data.draw(VALUES)
        else:
            del target[path[-1]]


def require_one_line(runner, *command):
    """The command succeeds, or says on one line why it doesn't, quickly and within its memory."""
    code, _, error = runner(*command, memory=MEMORY, seconds=SECONDS)
    assert code in (0, 2, 3, 4, 5), (code, error)
    # What is wrong with a store is what info was asked, so that it says so on stdout.
    found = command[0] == "info" and code == 4 and error == ""
    assert found or error.count("\n") == (code != 0), error
    assert "Traceback" not in error


def reseal_checkpoint(data, change):
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    value = json.loads(header["__metadata__"]["causalprune"])
    del value["checksum"]
    change(header, value)
    value["checksum"] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    header["__metadata__"]["causalprune"] = json.dumps(value)
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data[8 + length :]


def metadata_of(path):
    with safe_open(path, "numpy") as file:
        return file.metadata()


class Interrupted:
    """Run directories with a saved state of a stage, from a death in mid-work."""

    def __init__(self, runner, stages, folder):
        self._runner, self._stages, self._folder = runner, stages, folder
        self._found = {}

    def run(self, stage):
        """The run directory."""
        if stage not in self._found:
            self._found[stage] = self._die(stage)
        return self._found[stage]

    def _die(self, stage):
        for number in range(1, len(self._stages.expected(stage)[1])):
            run = self._stages.copy(stage, self._folder / f"{stage} {number}")
            self._runner(*self._stages.command(stage, run), fault="SIGKILL", fail_at=number)
            if list(run.glob("*.progress")):
                return run
        raise AssertionError


@pytest.fixture(scope="module")
def interrupted(runner, stages, tmp_path_factory):
    return Interrupted(runner, stages, tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def honest(interrupted):
    return interrupted.run("posttrain")


FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=EXAMPLES < 100,
)


@FUZZ
@given(data=st.data())
def test_forged_checkpoints(runner, honest, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "forged.safetensors"
    original = (honest / "pruned.safetensors").read_bytes()
    path.write_bytes(reseal_checkpoint(original, lambda header, value: forge(data, value)))
    # So that it isn't the mask that is refused.
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    header = json.loads(metadata_of(honest / "pruned.mask.safetensors")["causalprune-tensors"])
    header["network"] = sha256
    if data.draw(st.booleans()):
        forge(data, header)
    tensors = load_file(honest / "pruned.mask.safetensors")
    save_file(tensors, mask_path(path), metadata={"causalprune-tensors": json.dumps(header)})
    require_one_line(runner, "info", path, "--json", "--quiet")
    output = path.with_name("new.safetensors")
    options = ["--epochs", "0", "--output", output, "--run", path.with_name("nowhere"), "--overwrite", "--quiet"]
    require_one_line(runner, "posttrain", "--checkpoint", path, *options)


@pytest.mark.parametrize("stage", ["posttrain", "record"])
@FUZZ
@given(data=st.data())
def test_forged_saved_states(runner, interrupted, stages, tmp_path_factory, stage, data):
    run = shutil.copytree(interrupted.run(stage), tmp_path_factory.mktemp("forged") / "run")
    (state,) = run.glob("*.progress")
    state.write_bytes(reseal_checkpoint(state.read_bytes(), lambda header, value: forge(data, value["position"])))
    require_one_line(runner, *stages.command(stage, run))
    shutil.rmtree(run)


def chain_of(store):
    metadata = json.loads((store / "recordings/000/zarr.json").read_text())
    return int(metadata["attributes"]["causalprune"]["checksum"], 16)


def reseal_log(store, records):
    chain, lines = chain_of(store), []
    for record in records:
        text = canonical_bytes(record)
        chain = google_crc32c.extend(chain, text)
        lines.append(b"%08x %s\n" % (chain, text))
    (store / "recordings/000/delta/commits.log").write_bytes(b"".join(lines))


@pytest.fixture(scope="module")
def measured(runner, stages, tmp_path_factory):
    """A run whose recording has statistics of its layers."""
    run = stages.copy("record", tmp_path_factory.mktemp("measured") / "run")
    code, _, error = runner(*stages.command("record", run), "--layer-statistics", "--samples", "40")
    assert (code, error) == (0, "")
    return run


@FUZZ
@given(data=st.data())
def test_forged_statistics_of_layers(runner, measured, data):
    path = measured / "trajectory.zarr/recordings/000/layer_statistics/zarr.json"
    original = path.read_bytes()
    document = json.loads(original)
    ours = document["attributes"]["causalprune"]
    forge(data, ours["attributes"])
    try:
        ours["checksum"] = f"{attributes_checksum(ours):08x}"
        path.write_text(json.dumps(document))
        prune = ["apply-mask", "--criterion", "surgeon", "--sparsity", "0.5", "--no-measure", "--overwrite"]
        code, _, error = runner(*prune, "--run", measured, "--quiet", memory=MEMORY, seconds=SECONDS)
        # What says that they are of other weights is a warning, and the layers are measured.
        assert (code, error.count("\n")) in ((0, 0), (0, 1), (4, 1)), (code, error)
        assert "Traceback" not in error
    except ValueError:
        pass
    finally:
        path.write_bytes(original)


@FUZZ
@given(data=st.data())
def test_forged_stores(runner, honest, data):
    store = honest / "trajectory.zarr"
    log = store / "recordings/000/delta/commits.log"
    files = [*sorted(store.rglob("zarr.json")), log]
    originals = {path: path.read_bytes() for path in files}
    path = data.draw(st.sampled_from(files))
    try:
        if path == log:
            records = [json.loads(line[9:]) for line in log.read_text().splitlines()]
            forge(data, records)
            try:
                reseal_log(store, records)
            except ValueError:
                return
        else:
            document = json.loads(path.read_text())
            forge(data, document)
            ours = document.get("attributes")
            ours = ours.get("causalprune") if isinstance(ours, dict) else None
            if isinstance(ours, dict) and "checksum" in ours:
                try:
                    ours["checksum"] = f"{attributes_checksum(ours):08x}"
                except ValueError:
                    return
            path.write_text(json.dumps(document))
        require_one_line(runner, "info", store, "--verify", "--json", "--quiet")
        require_one_line(runner, "fit-gamma", "--name", "forged", "--overwrite", "--run", honest, "--quiet")
    finally:
        shutil.rmtree(store / "recordings/000/fits/forged", ignore_errors=True)
        for file, content in originals.items():
            file.write_bytes(content)


@pytest.mark.parametrize(
    "place",
    [
        "zarr.json",
        "recordings",
        "recordings/000/zarr.json",
        "recordings/000/delta",
        "recordings/000/delta/c.0.0",
        "recordings/000/delta/commits.log",
        "recordings/000/fits",
        "recordings/000/fits/default",
        "recordings/000/fits/default/gamma/c.0.0",
        "recordings/000/extra",
    ],
)
def test_a_link_in_a_store_leads_nowhere(runner, stages, tmp_path, place):
    """What it points to is the very file that belongs there, so only the link itself can give it away."""
    run, outside = stages.copy("apply-mask", tmp_path / "run"), tmp_path / "outside"
    path = run / "trajectory.zarr" / place
    if path.exists():
        path.rename(outside)
    else:
        outside.mkdir()
    path.symlink_to(outside)
    before = artifacts(tmp_path)
    info = ["info", run / "trajectory.zarr"]
    for command in (["fit-gamma", "--name", "more"], ["record", *STAGE_OPTIONS["record"]], info):
        code, _, error = runner(*command, "--run", run, "--quiet")
        assert (code, error.count("\n")) == (4, 1), error
        assert "a link" in error
        assert str(path) in error
    assert artifacts(tmp_path) == before


def test_overwriting_deletes_nothing_but_stores(runner, stages, tmp_path):
    run, mine = stages.copy("record", tmp_path / "run"), tmp_path / "thesis"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    command = ["record", *STAGE_OPTIONS["record"], "--store", mine, "--overwrite", "--run", run, "--quiet"]
    code, _, error = runner(*command)
    assert (code, error.count("\n")) == (3, 1)
    assert "expected a trajectory store to replace" in error
    assert (mine / "thesis.tex").read_text() == "years of work"


def test_the_network_is_left_alone(stages, tmp_path, monkeypatch):
    """Not even a checkpoint that says `download` makes a stage connect; only the option does."""
    asked = []

    def refuse(*args, **kwargs):
        asked.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    run = stages.copy("evaluate", tmp_path / "run")
    for stage in STAGE_OPTIONS:
        where = run if stage != "run" else tmp_path / "whole"
        assert main([*command_of(stage, where), "--quiet"]) == 0
    path = run / "pretrained.safetensors"

    def mnist(_, value):
        value["data"] |= {"name": "mnist", "root": str(tmp_path / "empty"), "download": True}

    path.write_bytes(reseal_checkpoint(path.read_bytes(), mnist))
    assert main(["record", "--steps", "3", "--run", str(run), "--overwrite", "--quiet"]) == 3
    assert asked == []
    fetch = ["pretrain", "--dataset", "mnist", "--data-root", str(tmp_path / "empty"), "--download"]
    assert main([*fetch, "--run", str(tmp_path / "other"), "--quiet"]) == 3
    assert asked
