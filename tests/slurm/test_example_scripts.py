"""The example scripts, run for real under a stand-in for SLURM that sends the signals."""

import json
import re
import subprocess
import sys

import pytest
from causalprune_cli.main import main
from stand_in import CANCEL, TIME_LIMIT, Cluster

from causalprune.commands.names import CONFIGS

LONG = ["--epochs", "60", "--model", "mlp", "--hidden", "16"]


def events(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_stage_that_is_stopped_is_queued_again_until_it_is_done(tmp_path, scripts, capsys):
    cluster = Cluster(tmp_path / "cluster", {"pretrain": [0.05, 0.1]})
    run = tmp_path / "my run"
    options = [*LONG, "--run", str(run)]
    cluster.environment["CAUSALPRUNE_SLURM"] = str(scripts)
    cluster.submit("sbatch", str(scripts / "pretrain.sbatch"), *options)
    assert cluster.run() == {1: 0}
    assert cluster.history == [("pretrain", 75, True)] * 2 + [("pretrain", 0, False)]
    jobs = [(e["event"], e["job_id"], e.get("restart_count")) for e in events(run)]
    assert jobs == [("interrupted", "1", None), ("interrupted", "1", "1"), ("finished", "1", "2")]
    result = json.loads((run / "results/pretrain.json").read_text())
    assert result["job"] == {"job_id": "1", "restart_count": "2"}
    assert main(["pretrain", *LONG, "--run", str(tmp_path / "quiet"), "--quiet"]) == 0
    resumed = (run / "pretrained.safetensors").read_bytes()
    assert resumed == (tmp_path / "quiet/pretrained.safetensors").read_bytes()


def test_a_stage_that_fails_is_not_queued_again_and_ends_the_chain(tmp_path, scripts):
    cluster = Cluster(tmp_path / "cluster", {})
    run = tmp_path / "run"
    run.mkdir()
    (run / "pretrained.safetensors").write_bytes(b"damaged")
    printed = cluster.submit("bash", str(scripts / "pipeline.sh"), str(run))
    assert re.findall(r"job (\d+)", printed) == ["1", "2", "3", "4", "5", "6"]
    assert cluster.run() == {1: 4}
    assert cluster.history == [("pretrain", 4, False)]


@pytest.mark.slow
def test_the_whole_pipeline_with_every_long_stage_stopped(tmp_path, scripts):
    cluster = Cluster(tmp_path / "cluster", {"pretrain": [0.1], "record": [0.1], "posttrain": [0.1]})
    run = tmp_path / "run"
    cluster.submit("bash", str(scripts / "pipeline.sh"), str(run))
    assert set(cluster.run().values()) == {0}
    stages = ["pretrain", "record", "fit-gamma", "apply-mask", "posttrain", "evaluate"]
    assert list(dict.fromkeys(stage for stage, _, _ in cluster.history)) == stages
    assert all(code in (0, 75) and requeued == (code == 75) for _, code, requeued in cluster.history)
    assert any(code == 75 for _, code, _ in cluster.history)
    assert (run / "results/evaluate.json").exists()


STAGE = f"""#!{sys.executable} -IS
import os, signal
if "SLURM_RESTART_COUNT" in os.environ:
    os._exit(0)
def save(*_):
    os._exit(75)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGUSR1, {{}})
print("3 steps", flush=True)
while True:
    signal.pause()
"""
SAVES, STILL_SAVING, NOT_YET_LISTENING = map(
    STAGE.format, ("save", "lambda *_: print('4 steps', flush=True)", "signal.SIG_DFL")
)


def stand_in_stage(cluster, text):
    """Let another program be ``causalprune``."""
    (cluster.home / "bin/causalprune").write_text(text)


@pytest.mark.parametrize(
    ("stage", "warns", "ends", "again"),
    [
        (SAVES, True, [], True),
        (NOT_YET_LISTENING, True, [], True),
        (SAVES, False, [CANCEL], False),
        (STILL_SAVING, True, [CANCEL], False),
        (STILL_SAVING, True, [TIME_LIMIT], True),
        # Once it was to be queued again, but it had not asked for that.
        (SAVES, False, [TIME_LIMIT], False),
    ],
    ids=["warned", "warned too early", "canceled", "canceled while saving", "saving at the limit", "never warned"],
)
def test_only_a_warning_queues_a_job_again(tmp_path, scripts, stage, warns, ends, again):
    cluster = Cluster(tmp_path / "cluster", {"pretrain": [0.1]}, ends=ends, warns=warns)
    cluster.environment["CAUSALPRUNE_SLURM"] = str(scripts)
    stand_in_stage(cluster, stage)
    cluster.submit("sbatch", str(scripts / "pretrain.sbatch"))
    code = 138 if stage == NOT_YET_LISTENING else 75
    assert cluster.run() == {1: 0 if again else code}
    assert cluster.history == [("pretrain", code, again)] + [("pretrain", 0, False)] * again


@pytest.mark.parametrize(
    ("array", "shards"),
    [
        ("0-2", ["0/3", "1/3", "2/3"]),
        ("3", ["0/1"]),
        ("1-2", ["0/2", "1/2"]),
        ("2-6:2", ["0/3", "1/3", "2/3"]),
        # Whoever has no place of its own does what is left; nothing is left out.
        ("1,2,9", ["0/3", "1/3", "0/1"]),
    ],
)
def test_the_array_shares_the_sweep_out(tmp_path, scripts, array, shards):
    cluster = Cluster(tmp_path / "cluster", {})
    calls = tmp_path / "calls"
    stand_in_stage(cluster, f'#!/bin/sh\necho "$@" >> "{calls}"\n')
    cluster.environment["CAUSALPRUNE_SLURM"] = str(scripts)
    cluster.submit("sbatch", f"--array={array}", str(scripts / "sweep.sbatch"), "my.toml")
    assert cluster.run() == {1: 0}
    assert calls.read_text().splitlines() == [f"sweep my.toml --shard {shard}" for shard in shards]


def test_one_task_of_an_array_is_queued_again_alone(tmp_path, scripts):
    cluster = Cluster(tmp_path / "cluster", {"sweep": [0.1, 0, 0.1]})
    cluster.environment["CAUSALPRUNE_SLURM"] = str(scripts)
    stand_in_stage(cluster, SAVES)
    cluster.submit("sbatch", "--array=0-1", str(scripts / "sweep.sbatch"))
    assert cluster.run() == {1: 0}
    assert cluster.history == [("sweep", 75, True), ("sweep", 0, False)] * 2


def test_every_script_is_sound(scripts):
    for path in sorted(scripts.iterdir()):
        assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
        text = path.read_text()
        if path.suffix == ".sbatch":
            assert "--signal=B:USR1@120" in text
            assert "--requeue" in text
            # Clusters without them would refuse the job.
            assert not re.search(r"^#SBATCH --(gpu|gres|partition|account)", text, flags=re.MULTILINE)
            assert path.stem in CONFIGS or path.stem == "sweep"
