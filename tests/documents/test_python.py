"""Every block of Python in the documents: those that no test of a page of its own executes work as they stand."""

import pytest
import torch
from causalprune_cli.main import main
from torch import nn
from typed import DOCUMENTS, ROOT, blocks

PAGES_OF_THEIR_OWN = {
    *("README.md", "docs/own-model.md", "docs/recording.md", "docs/data.md"),  # test_NAME.py beside this file
    *("docs/export.md", "docs/criteria.md"),  # tests/models/export/test_recipes.py, tests/pipeline/test_added_criterion
    "docs/pruning.md",  # it needs a GPU; tests/pruning/network/test_pattern.py counts its groups
}
EXECUTED = ("docs/index.md", "docs/weights.md", "docs/store.md")


def python_of(page):
    return [block.text for block in blocks(ROOT / page) if block.language == "python"]


def test_every_page_with_python_has_a_test():
    pages = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert {page for page in pages if python_of(page)} == {*EXECUTED, *PAGES_OF_THEIR_OWN}


@pytest.mark.parametrize("page", sorted(PAGES_OF_THEIR_OWN))
def test_it_is_python(page):
    assert all(compile(text, page, "exec") for text in python_of(page))


def test_the_start_page_prunes_and_repairs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (text,) = python_of("docs/index.md")
    exec(text, {})
    assert capsys.readouterr().out == "90% of the weights are zero\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A working directory with a recording and a network."""
    monkeypatch.chdir(tmp_path)
    options = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--epochs", "0", "--quiet"]
    assert main(["pretrain", *options]) == 0
    assert main(["record", "--steps", "3", "--quiet"]) == 0
    return tmp_path / "run"


def test_a_checkpoint_is_a_state_dict(run):
    (run / "pretrained.safetensors").rename(run / "final.safetensors")
    (text,) = python_of("docs/weights.md")
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Linear(30, 4), nn.Linear(4, 2)])
    before = model.layers[0].weight.detach().clone()
    exec(text, {"model": model})
    assert not torch.equal(before, model.layers[0].weight)


def test_a_store_is_zarr_and_has_a_reader(run):
    by_zarr, by_us, _ = python_of("docs/store.md")
    found = {}
    exec(by_zarr, found)
    assert (found["loss_after"] < found["loss_before"]).all()
    exec(by_us, found)
    assert (found["block"] == found["delta"][:, found["first"] :]).all()


def test_zarr_reads_object_storage(run, s3):
    assert main(["record", "--steps", "3", "--store", f"{s3}/trajectory.zarr", "--quiet", "--overwrite"]) == 0
    bucket, prefix = s3.removeprefix("s3://").split("/", 1)
    *_, text = python_of("docs/store.md")
    text = text.replace('"bucket"', repr(bucket)).replace("prefix/", f"{prefix}/")
    found = {}
    exec(text, found)
    assert found["delta"].shape[0] == 3
