import io
from types import SimpleNamespace

import pytest
from causalprune_cli.show.evaluations import evaluation_table
from causalprune_cli.show.networks import NO_SPEEDUP, apply_mask, evaluate, repair, run
from rich.cells import cell_len
from rich.console import Console


def classification(**changes):
    return {
        "task": "classification",
        "model": "lenet",
        "dataset": "cifar10",
        "samples": 10_000,
        "loss": 0.8123,
        "top1": 0.7251,
        "top5": 0.9812,
        "per_class": [{"name": "cat", "count": 1_000, "accuracy": 0.5}],
        "r2": None,
        "mae": None,
        "reference": {"loss": 0.7999, "top1": 0.7312, "top5": 0.9831, "r2": None, "mae": None, "file_bytes": 2_628_000},
        "layers": [
            {"name": "conv1.weight", "shape": [20, 3, 5, 5], "total": 1_500, "kept": 375, "sparsity": 0.75},
            {"name": "fc1.weight", "shape": [500, 1250], "total": 625_000, "kept": 62_500, "sparsity": 0.9},
        ],
        "sparsity_prunable": 0.8996,
        "sparsity_all": 0.8988,
        "parameters_total": 657_080,
        "parameters_nonzero": 66_455,
        "flops_dense": 8_110_000,
        "flops_theoretical": 2_027_500,
        "file_bytes": 3_330_000,
        **changes,
    }


def printed(result, width=80):
    return shown(evaluation_table(result), width)


def shown(content, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width).print(content)
    return stream.getvalue()


def row(text, label):
    (line,) = [line for line in text.splitlines() if line.startswith(label)]
    return line.removeprefix(label).split()


def test_the_change_stands_beside_dense_and_pruned():
    """Percentage points of a share, the difference of a loss, percent of a count or a size."""
    text = printed(classification())
    assert row(text, "accuracy (top-1)") == ["73.12%", "72.51%", "-0.61", "points"]
    assert row(text, "top-5") == ["98.31%", "98.12%", "-0.19", "points"]
    assert row(text, "loss") == ["0.7999", "0.8123", "+0.0124"]
    assert row(text, "nonzero parameters") == ["657,080", "66,455", "-89.9%"]
    assert row(text, "FLOPs per sample, zeros skipped") == ["8,110,000", "2,027,500", "-75.0%"]
    assert row(text, "checkpoint") == ["2.63", "MB", "3.33", "MB", "+26.7%"]


def test_both_sparsities_are_named_by_what_they_are_a_fraction_of():
    text = printed(classification())
    assert row(text, "sparsity over prunable weights") == ["89.96%"]
    assert row(text, "sparsity over all parameters") == ["89.88%"]


def test_a_sparsity_below_one_never_rounds_to_all():
    layer = {"name": "fc1.weight", "shape": [1000, 1000], "total": 10**6, "kept": 7, "sparsity": 1 - 7e-6}
    text = printed(classification(sparsity_prunable=0.99999937, sparsity_all=1.0, layers=[layer]))
    assert row(text, "sparsity over prunable weights") == ["99.9999%"]
    assert row(text, "sparsity over all parameters") == ["100.00%"]
    assert row(text, "fc1.weight") == ["1,000,000", "7", "99.999%"]


def test_every_layer_has_a_line():
    text = printed(classification())
    assert row(text, "conv1.weight") == ["1,500", "375", "75.00%"]
    assert row(text, "fc1.weight") == ["625,000", "62,500", "90.00%"]


def test_what_zeros_are_not_good_for_is_said_once_and_not_under_every_table():
    result = SimpleNamespace(evaluation=classification(), outputs={})
    assert " ".join(shown(evaluate(result)).split()).count(NO_SPEEDUP) == 1
    assert "dense kernels" not in printed(classification())


def test_operations_that_are_not_counted_are_named() -> None:
    uncounted = classification(flops_uncounted=["_fft_r2c", "torchvision::deform_conv2d"])
    text = " ".join(shown(evaluate(SimpleNamespace(evaluation=uncounted, outputs={}))).split())
    assert "FLOPs without operations that nothing tells how to count: _fft_r2c, torchvision::deform_conv2d." in text
    none = classification(flops_uncounted=[])
    assert "nothing tells how" not in shown(evaluate(SimpleNamespace(evaluation=none, outputs={})))


def test_there_is_no_line_for_a_top5_of_few_classes() -> None:
    reference = {"loss": 0.7999, "top1": 0.7312, "top5": None, "file_bytes": 2_628_000}
    assert "top-5" not in printed(classification(top5=None, reference=reference))


def test_peak_memory_says_what_it_leaves_out() -> None:
    both = {"dense": 1.0, "compact": None}
    cost = {
        "device": "cpu",
        "threads": 1,
        "latency": {"1": both},
        "peak_memory": {"1": {"dense": 1000, "compact": None}},
        "bytes_deflate": 100,
        "no_compact": "no dead filter",
    }
    text = printed(classification(cost=cost))
    assert "without what a kernel allocates inside" in text
    assert "No compact network: no dead filter" in text


def test_regression_shows_its_own_metrics():
    reference = {"loss": 0.5, "top1": None, "top5": None, "r2": 0.9, "mae": 0.4, "file_bytes": 2_000}
    text = printed(classification(task="regression", top1=None, top5=None, r2=0.8765, mae=0.4321, reference=reference))
    assert row(text, "R²") == ["0.9000", "0.8765", "-0.0235"]
    assert row(text, "mean absolute error") == ["0.4", "0.4321", "+0.0321"]
    assert "accuracy" not in text
    assert "top-5" not in text


def test_without_a_reference_the_dense_column_stays_open():
    text = printed(classification(reference=None))
    assert row(text, "accuracy (top-1)") == ["–", "72.51%", "–"]
    assert row(text, "checkpoint") == ["–", "3.33", "MB", "–"]


@pytest.mark.parametrize("width", [60, 80])
def test_long_names_are_folded_not_cut(width):
    name = "module.backbone.features.0.block.1.residual.branch.2.convolution.depthwise.inner.weight"
    layers = [{"name": name, "shape": [10, 100], "total": 1_000, "kept": 100, "sparsity": 0.9}]
    text = printed(classification(layers=layers), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    assert name in "".join(line.split()[0] for line in text.splitlines() if line.strip()).replace("1,000", "")


def test_text_in_brackets_is_text():
    text = printed(classification(model="[bold]nets[/bold]:build", dataset="[red]mine.npz"))
    assert "[bold]nets[/bold]:build on [red]mine.npz" in text


def test_without_a_terminal_there_are_no_escape_codes():
    assert "\x1b" not in printed(classification())


def test_parts_of_the_flatness_stand_by_the_samples_that_they_were_measured_on():
    spectrum = {"dimension": 9, "eigenvalues": [1.5], "smallest": 0.1, "trace": 2.0, "trace_error": 0.1}
    noise = {"sigma": [0.1], "mean": [1.2], "std": [0.3], "loss": 0.5}
    both = {"hessian": {"unpruned": spectrum, "all": spectrum}, "noise": noise}
    text = printed(classification(**both, flatness_samples=50, flatness_split="test"))
    assert text.count("Flatness on 50 samples of the test split") == 1
    of = {"hessian": {"flatness_samples": 1000, "flatness_split": "validation"}}
    text = printed(classification(**both, flatness_samples=50, flatness_split="test", flatness_of=of))
    first, second = text.index("1,000 samples of the validation split"), text.index("50 samples of the test split")
    assert first < text.index("Hessian eigenvalue 1") < second < text.index("noise σ = 0.1")


def test_a_run_ends_with_where_its_network_is_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = {"iteration": 1, "rows": 12, "stored_bytes": 3_000, "r2": 0.5, "num_nonzero": 7, "sparsity": 0.9}
    for folder, where in (("run", ""), ("a b", " --run 'a b'")):
        outputs = {"checkpoint": f"{folder}/final.safetensors", "result": f"{folder}/results/run.json"}
        found = {"iterations": [line], "evaluation": classification(), "recipe": None, "stores": {}}
        result = SimpleNamespace(**found, outputs=outputs)
        text = " ".join(shown(run(result), 100).split())
        assert f"network {folder}/final.safetensors load its weights" in text
        assert f"safetensors.torch.load_file('{folder}/final.safetensors')" in text
        assert f"causalprune export{where} (" in text
        assert text.count("dense kernels") == 1
    (tmp_path / "run").mkdir()
    (tmp_path / "run/final.mask.safetensors").touch()
    result.outputs["checkpoint"] = "run/final.safetensors"
    assert "run/final.safetensors (its mask: final.mask.safetensors)" in shown(run(result), 100)


def mask_result(**changes):
    found = {
        "outputs": {},
        "sparsity": 0.1,
        "sparsity_before": 0.0,
        "layers": [],
        "frozen": [],
        "kept_dense": [],
        "inseparable": [],
        "unmeasured": [],
        "not_prunable": "",
        "candidates": 200,
        "sparsity_candidates": 0.5,
        "unmoved": None,
        "reconnected": None,
        "dead_ends_unknown": "",
        "lasso": None,
        "layer_statistics": None,
        "stale_statistics": False,
    }
    return SimpleNamespace(**found | changes)


def printed_mask(**changes):
    stream = io.StringIO()
    Console(file=stream, width=300).print(apply_mask(mask_result(**changes)))
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def test_a_mask_names_what_it_left_alone():
    lines = printed_mask(frozen=["a.weight", "b.weight"], inseparable=["c.weight"], unmoved=20, reconnected=3)
    assert lines[:5] == [
        "sparsity 50.00% of 200 trained weights, 10.00% of prunable weights (before: 0.00%)",
        "left alone a.weight, b.weight (frozen or never trained)",
        "kept whole c.weight (their channels can't be removed one by one)",
        "never moved 20 weights (10.00%): gradient 0, or steps lost in rounding",
        "dead ends pruned first; 3 weights kept instead, which reach an output",
    ]
    lines = printed_mask(kept_dense=["a.weight"], frozen=["b.weight"])
    assert lines[:3] == [
        "sparsity 50.00% of 200 other weights, 10.00% of prunable weights (before: 0.00%)",
        "kept dense a.weight (by --keep)",
        "left alone b.weight (frozen or never trained)",
    ]
    assert "dead ends ranked by their scores" in printed_mask(dead_ends_unknown="ranked by their scores")
    assert printed_mask()[0] == "sparsity 10.00% of prunable weights (before: 0.00%)"


def test_statistics_of_another_network_are_named():
    stale = "batch statistics those of before; evaluate and posttrain re-estimate them"
    assert stale in printed_mask(stale_statistics=True)
    assert not any("statistics" in line for line in printed_mask())


def test_a_mask_says_where_its_layers_were_measured():
    for place, ends in (("store", " by the recording"), ("samples", "")):
        lines = printed_mask(layer_statistics={"from": place, "samples": 600})
        assert f"layers measured on 600 samples{ends}" in lines


@pytest.mark.parametrize(
    ("saved", "said"), [(True, "mask."), (False, "mask, in memory only (posttrain --epochs 0 saves")]
)
def test_re_estimated_statistics_are_named(saved, said):
    text = printed(classification(batchnorm={"samples": 12_345, "saved": saved}), width=200)
    assert row(text, "samples of batch statistics") == ["12,345"]
    assert f"Running statistics of batch normalization re-estimated after the {said}" in text
    assert "statistics" not in printed(classification())


@pytest.mark.parametrize(
    ("most", "ends"),
    [
        (12, "; a Lasso keeps at most T, the 12 rows of its recording"),
        (36, "; a Lasso keeps at most T in each layer, the 12 rows of its recording"),
        (None, ""),
    ],
)
def test_a_mask_of_zeros_says_how_many_a_lasso_can_keep(most, ends):
    lasso = {"nonzero": 6, "columns": 1300, "rows": 12, "most": most, "what": "weights"}
    assert f"kept by the Lasso 6 of 1,300 weights (γ ≠ 0){ends}" in printed_mask(lasso=lasso)


def test_what_a_repair_missed_may_be_more_than_all_of_the_variance():
    layers = [{"name": "conv2.weight", "before": 1.2509, "after": 0.01}]
    result = SimpleNamespace(
        stage="repair", inputs={}, outputs={}, samples=100, from_statistics=False, sparsity=0.9, layers=layers
    )
    stream = io.StringIO()
    Console(file=stream, width=300).print(repair(result))
    text = " ".join(stream.getvalue().split())
    assert "conv2.weight 125.09% 1.00%" in text
    assert "relative to their variance; above 100% is worse than their mean" in text
    assert "part of the variance" not in text
