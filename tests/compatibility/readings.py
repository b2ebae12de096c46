"""What the commands say of ``files``: the tests compare it with ``expected.json``, which ``main`` writes."""

import contextlib
import hashlib
import io
import json
import shutil
import struct
import sys
import tempfile
from pathlib import Path

import zarr
from causalprune_cli.main import main as causalprune

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.json"

CHECKPOINTS = ("pretrained", "recorded", "pruned", "final")
STORES = ("trajectory.zarr", "small.zarr")
SMALL = ["--store", "run/small.zarr", "--checkpoint", "run/small.safetensors"]
MASKS = {
    "effect": ["--sparsity", "0.6", "--exponent", "1", "--dead-ends", "scored"],
    "zero": ["--zero", "--fit", "path"],
    "gamma": ["--sparsity", "0.8", "--criterion", "gamma", "--fit", "path"],
    "obd": ["--sparsity", "0.7", "--criterion", "obd", "--scope", "layer"],
    "neuron": ["--sparsity", "0.4", "--criterion", "fisher", "--granularity", "neuron"],
    "chita": ["--sparsity", "0.6", "--criterion", "chita"],
    "small": ["--sparsity", "0.6", "--exponent", "1", "--dead-ends", "scored", *SMALL],
}
"""Ways to prune, each by its name."""
FITS = {
    "default": ["--store", "run/trajectory.zarr"],
    "path": ["--store", "run/trajectory.zarr", "--alphas", "5", "--normalize", "column"],
    "small": ["--store", "run/small.zarr"],
}
"""Ways to fit, each by its name."""


def command(*arguments):
    """JSON that a command prints, run in the folder that holds ``run`` and ``swept``."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = causalprune([*arguments, "--json", "--quiet"])
    assert code == 0, f"exit {code}: {' '.join(arguments)}"
    return json.loads(output.getvalue())


def info(path):
    """All that ``info`` says but when and of which versions."""
    said = command("info", path)
    return {key: said[key] for key in ("details", "healthy", "kind", "problems")}


def evaluation(checkpoint):
    return command("evaluate", "--checkpoint", f"run/{checkpoint}.safetensors")["metrics"]["evaluation"]


def verified(store):
    return command("store", "verify", f"run/{store}")["metrics"]


def mask_digest(path):
    """SHA-256 over the bytes of every mask of a checkpoint, read without causalprune.

    They were behind ``mask/`` in its own file; since the second version of the format they are in one beside it.
    """
    beside = Path(path).with_suffix(".mask.safetensors")
    data = (beside if beside.exists() else Path(path)).read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = {name: entry for name, entry in json.loads(data[8:start]).items() if name != "__metadata__"}
    masks = {f"mask/{name}": e for name, e in header.items()} if beside.exists() else header
    digest = hashlib.sha256()
    for name in sorted(n for n in masks if n.startswith("mask/")):
        first, last = masks[name]["data_offsets"]
        digest.update(f"{name}{masks[name]['shape']}".encode() + data[start + first : start + last])
    return digest.hexdigest()


def mask(way):
    """The mask that ``apply-mask`` makes from the recordings and the fits in the stores, and what it says of it."""
    output = f"made-{way}.safetensors"
    said = command("apply-mask", *MASKS[way], "--output", output)["metrics"]
    return {"sha256": mask_digest(output), "layers": said["layers"], "sparsity": said["sparsity"]}


def gamma(way):
    """γ fitted anew, under another name: the columns where it isn't zero, its values there, and the evidence."""
    said = command("fit-gamma", *FITS[way], "--name", f"made-{way}")["metrics"]
    fit = zarr.open_group(FITS[way][1], mode="r")[f"recordings/000/fits/made-{way}"]
    values = fit["gamma"][:].ravel()
    support = values.nonzero()[0]
    evidence = {key: said["evidence"][key] for key in ("alpha", "alpha_max", "certified", "num_nonzero", "num_rows")}
    return {"columns": support.tolist(), "values": values[support].tolist(), "evidence": evidence}


def report():
    """Numbers of the page that is made of the sweep's table and masks."""
    said = command("report", "--run", "swept")["metrics"]
    return {key: said[key] for key in ("phase_shift", "pictures", "points", "rows")}


def all_of_them():
    return {
        "info": {path: info(path) for path in ("run", *(f"run/{c}.safetensors" for c in CHECKPOINTS))}
        | {f"run/{store}": info(f"run/{store}") for store in STORES},
        "evaluate": {name: evaluation(name) for name in CHECKPOINTS},
        "store verify": {name: verified(name) for name in STORES},
        "apply-mask": {way: mask(way) for way in MASKS},
        "fit-gamma": {way: gamma(way) for way in FITS},
        "report": report(),
    }


def main():
    """Write ``expected.json`` with the causalprune that is installed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copytree(HERE / "files", folder, dirs_exist_ok=True)
        EXPECTED.write_text(json.dumps(all_of_them(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
