"""What docs/data.md says of a new sample gives the network what it was trained on."""

import re
from pathlib import Path

import torch
from causalprune_cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def test_a_new_sample_is_standardized_as_the_training_split_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--epochs", "0", "--quiet"]
    assert main(["pretrain", *options, "--output", "run/final.safetensors"]) == 0
    (block,) = re.findall(r"## A new sample.*?```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    found = {}
    exec(block, found)
    raw = found["data"].test.inputs[:5].double()
    assert torch.allclose(found["inputs"].double(), (raw - found["mean"]) / found["std"], atol=1e-5)
    assert torch.allclose(found["data"].train.inputs.double().mean(0), found["mean"].double())
    assert found["names"] == ("malignant", "benign")
