"""Attention, a recurrent layer and a named parameter from the first command to the last; patterns of weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from causalprune.models.checkpoint import load_checkpoint, save_checkpoint
from causalprune.trajectory import Store

NETWORKS = """
import torch
from torch import nn

class Rows(nn.Module):
    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.places = nn.Parameter(0.1 * torch.randn(8, 8))
        self.attend = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.recur = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, num_outputs)

    def forward(self, x):
        return self.head(self.recur(self.attend(x.flatten(0, 1) + self.places))[0][:, -1])
"""
MATRICES = [
    *(f"attend.{name}" for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight")),
    *("attend.linear1.weight", "attend.linear2.weight", "recur.weight_ih_l0", "recur.weight_hh_l0", "head.weight"),
]


@pytest.fixture
def start(causalprune, folder):
    (folder / "any_kind.py").write_text(NETWORKS)
    assert causalprune("pretrain", "--model", "any_kind:Rows", "--epochs", "0", "-q").code == 0


def names(index):
    return [entry.name for entry in index]


def test_what_is_named_is_recorded_fitted_pruned_trained_and_exported(causalprune, start):
    recorded = causalprune(
        "record", "--steps", "6", "--trust-code", "--prune", "places", "--layer-statistics", "--samples", "40", "--json"
    ).metrics
    assert names(Store.open("run/trajectory.zarr").index) == ["places", *MATRICES]
    assert "4 normalization tensors, 7 bias vectors, " in recorded["not_prunable"]
    total = recorded["columns"] + 4 * 8 + 24 + 8 + 16 + 8 + 48 + 10
    assert recorded["not_prunable"].endswith(f" of {total:,} parameters")
    assert causalprune("fit-gamma", "-q").code == 0
    masked = causalprune("apply-mask", "--sparsity", "0.5", "--trust-code", "--json").metrics
    assert [layer["name"] for layer in masked["layers"]] == ["places", *MATRICES]
    assert masked["sparsity"] == 0.5
    assert causalprune("posttrain", "--epochs", "1", "--trust-code", "-q").code == 0
    evaluated = causalprune("evaluate", "--trust-code", "--json").metrics["evaluation"]
    assert [layer["sparsity"] for layer in evaluated["layers"]] == [layer["sparsity"] for layer in masked["layers"]]
    assert evaluated["flops_theoretical"] < evaluated["flops_dense"]
    exported = causalprune("export", "--format", "torch", "--masks", "--trust-code", "--json")
    assert exported.code == 0, exported.error
    state = torch.load("run/exported.pt", weights_only=True)
    for name in ("places", *MATRICES):
        assert (state[f"{name}_orig"][state[f"{name}_mask"] == 0] == 0).all()
    # The statistics in the store know all but what is added.
    measured = causalprune("apply-mask", "--sparsity", "0.5", "--criterion", "wanda", "--trust-code", "--overwrite")
    assert "places (nothing is known of its inputs; left alone)" in measured.output
    assert "left alone: places, 64 weights" in measured.error
    repaired = causalprune("repair", "--from-statistics", "--trust-code", "--json").metrics
    assert [layer["name"] for layer in repaired["layers"]] == MATRICES


def test_a_pattern_holds_in_every_layer_but_those_that_are_kept(causalprune, start):
    common = ("apply-mask", "--checkpoint", "run/pretrained.safetensors", "--criterion", "magnitude", "--trust-code")
    masked = causalprune(*common, "--pattern", "2:4", "--prune", "places", "--keep", "head", "--json").metrics
    mask = load_checkpoint(Path("run/pruned.safetensors")).mask
    assert names(mask.index) == ["places", *MATRICES]
    for name, keep in mask.tensors().items():
        assert keep.all() if name == "head.weight" else (keep.view(-1, 4).sum(1) == 2).all()
    assert masked["sparsity_candidates"] == 0.5
    assert causalprune(*common, "--pattern", "3:16", "--overwrite").refuses(
        "found 8 in attend.self_attn.in_proj_weight"
    )
    assert causalprune(*common, "--pattern", "2:4", "--sparsity", "0.5").refuses("one of --sparsity S, --pattern N:M")
    assert causalprune(*common, "--pattern", "2:4", "--scope", "erk").refuses("--scope: expected global with --pattern")
    assert causalprune(*common, "--pattern", "4:2").refuses("--pattern: expected N:M with 0 < N < M, such as 2:4")
    assert causalprune(*common, "--sparsity", "0.5", "--prune", "place", "--overwrite").refuses(
        "--prune: expected a pattern"
    )


def test_what_a_recording_lacks_cannot_be_pruned_by_it(causalprune, start):
    assert causalprune("record", "--steps", "6", "--trust-code", "-q").code == 0
    assert causalprune("fit-gamma", "-q").code == 0
    refused = causalprune("apply-mask", "--sparsity", "0.5", "--prune", "places", "--trust-code")
    assert refused.refuses("--prune: expected parameters that run/trajectory.zarr has recorded")
    assert causalprune("record", "--steps", "6", "--prune", "placess", "--overwrite", "--trust-code").refuses(
        "--prune:"
    )


def test_a_checkpoint_of_an_earlier_version_says_what_it_lacks(causalprune, start):
    path = Path("run/pretrained.safetensors")
    checkpoint = load_checkpoint(path)
    layers = checkpoint.info.index.only([entry.name for entry in checkpoint.info.index if entry.kind == "layer"])
    save_checkpoint(path, replace(checkpoint, info=replace(checkpoint.info, index=layers)))
    recorded = causalprune("record", "--steps", "6", "--trust-code")
    assert recorded.code == 0, recorded.error
    said = "is of an earlier version and doesn't list them: attend.self_attn.in_proj_weight, recur.weight_ih_l0"
    assert said in recorded.error
    assert names(Store.open("run/trajectory.zarr").index) == names(layers)
    more = ("--prune", "*in_proj_weight", "--prune", "recur.weight*", "--overwrite")
    assert causalprune("record", "--steps", "6", "--trust-code", "-q", *more).code == 0
    assert names(Store.open("run/trajectory.zarr").index) == MATRICES
    # The checkpoint that the recording started from has these weights, too.
    pruned = causalprune(
        "apply-mask", "--criterion", "obd", "--sparsity", "0.5", "--checkpoint", path, "--trust-code", "--json"
    )
    assert [layer["name"] for layer in pruned.metrics["layers"]] == MATRICES


def test_run_and_sweep_take_a_pattern(causalprune, start):
    quick = ("--model", "any_kind:Rows", "--pretrain-epochs", "0", "--train-epochs", "0", "--posttrain-epochs", "0")
    refused = causalprune("run", *quick, "--run", "other", "--pattern", "2:3", "--criterion", "magnitude")
    assert refused.refuses("--pattern 2:3: expected a multiple of 3")
    assert causalprune("run", *quick, "--pattern", "2:4", "--sparsity", "0.5").refuses(
        "--sparsity: expected none beside"
    )
    done = causalprune(
        "run", *quick, "--run", "other", "--iterations", "2", "--pattern", "2:4", "--criterion", "magnitude", "--json"
    )
    assert [line["sparsity"] for line in done.metrics["iterations"]] == [0.5, 0.5]
    # Once, before the first stage, and not by each of them.
    (said,) = [line for line in done.error.splitlines() if "not prunable" in line]
    assert "not prunable: 1 other tensor (places), 4 normalization tensors, 7 bias vectors, " in said
    assert said.endswith(" parameters; --prune names more")
    assert done.error.index("not prunable") < done.error.index("pretrain")
    assert causalprune("sweep", "--pattern", "2:4", "--sparsity", "0.5,0.6").refuses("--sparsity: expected none beside")
    swept = causalprune(
        *("sweep", "--model", "any_kind:Rows", "--pretrain-epochs", "0", "--record-epochs", "1", "--seeds", "1"),
        *("--criterion", "magnitude", "--vary", "pattern=1:4,2:4", "--run", "swept", "--json"),
    )
    assert swept.code == 0, swept.error
    rows = [json.loads(line) for line in Path(swept.json["outputs"]["table"]).read_text().splitlines()]
    assert sorted((row["pattern"], row["sparsity"], row["sparsity_reached"]) for row in rows) == [
        ("1:4", 0.75, 0.75), ("2:4", 0.5, 0.5)
    ]  # fmt: skip
