"""The loops of docs/recording.md work as they stand, one after the other."""

import importlib.util
import re
from pathlib import Path

import pytest

from causalprune import Store

PAGE = Path(__file__).parents[2] / "docs/recording.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::Warning:lightning.pytorch")
def test_every_loop_runs_and_its_recording_is_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in BLOCKS:
        if "lightning" in block and importlib.util.find_spec("lightning") is None:
            continue
        exec(block, namespace)
    stores = sorted(tmp_path.glob("*.zarr"))
    named = {name for block in BLOCKS for name in re.findall(r"\"(\w+\.zarr)\"", block)}
    assert {path.name for path in stores} | {"lightning.zarr"} == named
    for path in stores:
        store = Store.open(path)
        reader = store.recording()
        assert reader.finished
        assert store.verify() == []
        assert (reader.loss_change < 0).mean() > 0.5
