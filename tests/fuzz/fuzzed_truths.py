"""What has to be true of a command that succeeded, computed by other means than the command's."""

import contextlib
import importlib.util
import inspect
import json
from pathlib import Path

import numpy as np
import torch
import zarr
from kkt import true_gap
from safetensors.torch import load_file

from causalprune.base.paths import mask_path
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.models.checkpoint import load_checkpoint


def untruths(folder, words, output):
    """What the files and the result of a command say that isn't so: a list of sentences."""
    found = [*_weights_without_their_mask(folder)]
    if "--json" not in words:
        return found
    try:
        result = json.loads(output)
    except ValueError:
        return [*found, "stdout is not one JSON object"]
    if words[0] == "fit-gamma" and not result["already_done"]:
        found += _certificate(folder, result)
    if words[0] == "evaluate":
        found += _accuracy(folder, result)
    return found


def _weights_without_their_mask(folder):
    kept = {}
    # A pipe under such a name would be waited for.
    for path in sorted(p for p in (folder / "run").glob("*.safetensors") if p.is_file()):
        with contextlib.suppress(Exception):  # What is damaged is for the commands to find, also by its checksum.
            load_checkpoint(path)
            tensors = load_file(path)
            kept[path.stem] = load_file(mask_path(path)) if mask_path(path).exists() else {}
            for name, keep in kept[path.stem].items():
                if tensors[name][~keep].count_nonzero():
                    yield f"{path.name} has weights that its mask prunes"
    for name, keep in kept.get("final", {}).items():
        before = kept.get("pruned", {}).get(name)
        if before is not None and before.shape == keep.shape and (keep & ~before).any():
            yield "final.safetensors has weights that pruned.safetensors had pruned"


def _certificate(folder, result):
    metrics, evidence = result["metrics"], result["metrics"]["evidence"]
    group = zarr.open_group(folder / result["outputs"]["store"], mode="r")["recordings"][metrics["recording"]]
    fit = group["fits"][metrics["name"]]
    attributes = fit.attrs["causalprune"]["attributes"]
    options, gamma = attributes["config"], fit["gamma"][:].astype(np.float64)
    plain = (options["scope"], options["granularity"]) == ("global", "parameter")
    if options["solver"] == "sgd":
        return ["the authors' solver is called certified"] if evidence["certified"] else []
    if not evidence["certified"]:
        return ["a fit that isn't certified is a success"]
    if evidence["duality_gap"] < 0:
        return ["a duality gap below 0"]
    if not plain or "row_weights" in attributes["inputs"]:
        return []
    before, after, lr = group["steps"][:][:3]
    unit = np.float32(lr[0]) if options["normalize"] == "lr" else np.float32(1)
    delta = group["delta"][:] / unit
    X, y = delta**2, after - before
    if len(gamma) == 3:
        X, y = np.concatenate([delta[1:] ** 2, delta[:-1] ** 2, delta[1:] * delta[:-1]], axis=1), y[1:]
    _, gap = true_gap(
        X,
        y,
        gamma.ravel() * np.float64(unit) ** 2,
        evidence["alpha"],
        l1_ratio=options["l1_ratio"],
        normalize=options["normalize"],
        sign=1 if options["positive"] else -1 if options["negative"] else 0,
    )
    limit = 1.01 * options["tol"] + 1e-9 * (options["normalize"] == "lr") + 1e-13
    return [f"a certificate of {options['tol']:g} where the gap is {gap:.2g}"] if not gap <= limit else []


def _accuracy(folder, result):
    """Top-1 of the checkpoint that was evaluated, by plain PyTorch, where the network is a factory of the case."""
    measured = result["metrics"]["evaluation"]
    path = folder / "run" / "final.safetensors"
    if "top1" not in measured or not path.exists() or not (folder / "net.py").exists():
        return []
    with contextlib.chdir(folder):
        from causalprune.models.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(path)
        if checkpoint.info.model.name != "net:net" or checkpoint.sha256 != result["inputs"]["checkpoint"]:
            return []
        spec = importlib.util.spec_from_file_location("net_of_the_case", Path("net.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        data = load_data(DataSpec(**vars(checkpoint.info.data)))
        test = data.split("test")
        given = {"input_shape": data.input_shape, "num_outputs": data.num_outputs}
        taken = inspect.signature(module.net).parameters
        network = module.net(**(given if "given" in taken else {n: v for n, v in given.items() if n in taken}))
        network.load_state_dict({n: t for n, t in load_file(path).items() if "/" not in n}, strict=False)
        network.eval()
        inputs, targets = test.on(torch.device("cpu"))
        with torch.no_grad():
            outputs = network(data.normalization(inputs))
    found = float((outputs.argmax(1) == targets).double().mean())
    if torch.isfinite(outputs).all() and abs(found - measured["top1"]) > 1.5 / len(targets):
        return [f"top-1 of {measured['top1']:.4f} where it is {found:.4f}"]
    return []
