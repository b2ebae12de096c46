"""Layers that are named stay dense, or get the sparsity that they were given, in every command that prunes."""

import json

import pytest
from commands import call, call_json

from causalprune.base.errors import UsageError
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.models.checkpoint import load_checkpoint

TABLE = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "16,8"]
FIRST, SECOND, LAST = 30 * 16, 16 * 8, 8 * 2
NAMES = [f"layers.{n}.weight" for n in range(3)]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    path = tmp_path_factory.mktemp("named") / "run/pretrained.safetensors"
    assert call("pretrain", *TABLE, "--epochs", "1", "--output", path, "--run", path.parent, "--quiet") == 0
    return path


@pytest.fixture
def mask(dense, tmp_path, capsys):
    """Prune by magnitude; returns the metrics of the result."""

    def run(*options):
        options = ["--checkpoint", dense, "--output", tmp_path / "pruned.safetensors", "--no-measure", *options]
        return call_json(capsys, "apply-mask", "--criterion", "magnitude", "--run", dense.parent, *options)["metrics"]

    return run


def pruned(metrics):
    return [layer["total"] - layer["kept"] for layer in metrics["layers"]]


@pytest.mark.parametrize("patterns", [["layers.0", "layers.2"], ["*.[02].weight"], ["*.0*", "layers.2", "layers.2"]])
def test_what_is_kept_stays_dense_and_does_not_count(mask, patterns):
    metrics = mask("--sparsity", "0.75", *[word for pattern in patterns for word in ("--keep", pattern)])
    assert metrics["kept_dense"] == [NAMES[0], NAMES[2]]
    assert pruned(metrics) == [0, 0.75 * SECOND, 0]
    assert (metrics["candidates"], metrics["sparsity_candidates"]) == (SECOND, 0.75)


def test_the_others_make_up_for_a_sparsity_of_its_own(mask):
    metrics = mask("--sparsity", "0.5", "--layer-sparsity", "layers.1=0.9", "--layer-sparsity", "*.1=0.25")
    assert pruned(metrics)[1] == 0.25 * SECOND, "the last one holds"
    assert sum(pruned(metrics)) == (FIRST + SECOND + LAST) / 2
    assert metrics["kept_dense"] == []


def test_scope_lamp_reads_the_weights_of_the_checkpoint(mask, dense, tmp_path):
    """Ranked by magnitude, it is the mask of a global ranking by LAMP scores, computed here weight by weight."""
    mask("--sparsity", "0.6", "--scope", "lamp")
    weights = load_checkpoint(dense).weights
    scores = {}
    for name in NAMES:
        squares = weights[name].flatten().double() ** 2
        scores |= {(name, n): float(s / squares[squares >= s].sum()) for n, s in enumerate(squares)}
    stay = sorted(scores, key=scores.__getitem__)[round(0.6 * len(scores)) :]
    mask = load_checkpoint(tmp_path / "pruned.safetensors").mask.tensors()
    assert {(name, n) for name in NAMES for n in mask[name].flatten().nonzero().flatten().tolist()} == set(stay)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--keep", "fc1"], "--keep: expected a pattern that matches one of layers.0, layers.1, layers.2, found 'fc1'"),
        (["--keep", "*"], "--keep: expected a layer to prune beside those it keeps, found none"),
        (["--layer-sparsity", "conv1=0.5"], "--layer-sparsity: expected a pattern that matches one of layers.0, "),
        (
            ["--layer-sparsity", "*.1=0.5", "--keep", "layers.[12]"],
            "--keep and --layer-sparsity: expected one of them for a layer, found both for layers.1.weight",
        ),
        (["--layer-sparsity", "layers.0=0.1"], "--layer-sparsity: expected a --sparsity of 0.07692 to 0.3077, which"),
        (["--scope", "uniform", "--keep", "layers.[01]"], "--scope uniform: expected at most 75% to prune of the"),
    ],
)
def test_what_cant_be_met_is_one_line_and_nothing_is_written(dense, tmp_path, capsys, options, says):
    output = tmp_path / "pruned.safetensors"
    paths = ["--checkpoint", dense, "--output", output, "--run", tmp_path]
    capsys.readouterr()
    assert call("apply-mask", "--criterion", "random", "--sparsity", "0.9", *paths, *options, "--quiet") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"causalprune: {says}")
    assert (error.count("\n"), output.exists()) == (1, False)
    # The same is said by run and sweep, before anything is trained.
    pipeline = [*TABLE, "--criterion", "random", "--sparsity", "0.9", "--run", tmp_path / "new", "--quiet"]
    for command in (["run"], ["sweep", "--seeds", "1"]):
        assert call(*command, *pipeline, *options) == 2
        assert capsys.readouterr().err.startswith(f"causalprune: {says}")
        assert not (tmp_path / "new").exists()


def test_a_run_that_keeps_all_layers_with_groups_is_refused_before_it_trains(tmp_path, capsys):
    options = ["--granularity", "neuron", "--keep", "layers.[01]", "--run", tmp_path / "run", "--quiet"]
    assert call("run", *TABLE, *options) == 2
    assert "--keep: expected a layer to prune beside those it keeps, found none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_with_zero_layers_can_be_kept_but_have_no_budgets():
    config = ApplyMaskConfig(zero=True, keep=("conv1",))
    assert config.keep == ("conv1",)
    for options, found in (({"scope": "erk"}, "global"), ({"layer_sparsity": ("a=0.5",)}, "none")):
        with pytest.raises(UsageError, match=f"expected {found} with `zero`, which prunes every γ = 0"):
            ApplyMaskConfig(zero=True, **options)


def test_at_their_defaults_the_options_are_no_part_of_what_a_mask_is_made_by():
    plain = ApplyMaskConfig(sparsity=0.5).identity_fields()
    assert not {"keep", "layer_sparsity"} & plain.keys()
    said = ApplyMaskConfig(sparsity=0.5, keep=("a*",), layer_sparsity=("b=.50",)).identity_fields()
    assert said == plain | {"keep": ["a*"], "layer_sparsity": ["b=0.5"]}


def test_every_mask_of_a_run_keeps_them_and_follows_the_schedule(tmp_path, capsys):
    run = tmp_path / "run"
    short = ["--iterations", "2", "--pretrain-epochs", "0", "--train-epochs", "0", "--posttrain-epochs", "1"]
    options = ["--sparsity", "0.8", "--criterion", "magnitude", "--keep", "*.2", "--layer-sparsity", "layers.1=0.5"]
    call_json(capsys, "run", *TABLE, *short, *options, "--scope", "erk", "--schedule", "geometric", "--run", run)
    kept = []
    for number, total in ((0, 1 - 0.2**0.5), (1, 0.8)):
        mask = load_checkpoint(run / f"iteration-00{number}/pruned.safetensors").mask
        layers = [layer.total - layer.kept for layer in mask.per_layer()]
        assert layers[1:] == [round(SECOND * 0.5 * total / 0.8), 0]
        assert sum(layers) == round(total * (FIRST + SECOND))
        kept.append(mask.keep)
    assert not (kept[1] & ~kept[0]).any()


def test_a_sweep_prunes_as_its_runs_do_and_varies_what_is_kept(tmp_path, capsys):
    options = ["--seeds", "1", "--criterion", "magnitude", "--sparsity", "0.5", "--vary", "keep=layers.0,*.[12]"]
    options += ["--layer-sparsity", "layers.[12]=0.5", "--pretrain-epochs", "0"]
    capsys.readouterr()
    # The second value is also given a sparsity.
    assert call("sweep", *TABLE, *options, "--run", tmp_path / "a", "--quiet") == 2
    assert "(at keep=*.[12])" in capsys.readouterr().err
    options = [word for word in options if word not in ("--layer-sparsity", "layers.[12]=0.5")]
    call_json(capsys, "sweep", *TABLE, *options, "--run", tmp_path / "a")
    rows = [json.loads(line) for line in (tmp_path / "a/sweep/results.jsonl").read_text().splitlines()]
    found = {row["keep"]: [layer["kept"] == layer["total"] for layer in row["layers"]] for row in rows}
    assert found == {"layers.0": [True, False, False], "*.[12]": [False, True, True]}
