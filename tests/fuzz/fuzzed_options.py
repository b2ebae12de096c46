"""Random options for every command, made of their declarations, so that a new option is tried without a word here."""

import shlex
from pathlib import Path

from stage_cases import STAGE_OPTIONS, command_of

from causalprune.base.options import flag_of
from causalprune.commands.names import load_configs

COMMANDS = [*load_configs()]

SKIPPED = {"download", "compile"}
"""The one needs a network, the other minutes."""

TRAIN = {"pretrain", "record", "posttrain", "run", "sweep"}
"""Commands that take long unless they are told not to."""

LARGE = [2**31, 2**63, 10**30]
MAY_BE_LARGE = {"batch_size", "seed", "split_seed", "samples", "max_passes", "iteration", "patience", "stride", "lags"}
"""Whole numbers that don't multiply the work."""

WHOLE = [-1, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5]
REAL = [0.0, 1e-300, 1e-9, 0.01, 0.1, 0.1, 0.5, 0.5, 0.5, 0.9, 0.99, 1.0, 1.5, -0.1, 1e9, 1e300]
NO_NUMBERS = ["nan", "inf", "-inf", "many", "", "1,5", "0x10", "1e", "٣", "1_0"]
TEXTS = [
    "",
    " ",
    "x",
    "é γ",
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "x" * 300,
    "-1",
    "--",
    "..",
    "a/b",
    "../x",
    "%s{}",
    "\udcff",
]

SAID = {
    "dataset": ["breast-cancer", "diabetes", "digits", "npz:data.npz", "npz:", "imagefolder:images", "data:arrays"],
    "model": ["mlp", "", "net:net", "net:nothing", "torchvision:", "torchvision:resnet19", "os:system", "lenet"],
    "hidden": ["", "3", "2,2", "0", "-1", "1000000000000", "3,"],
    "memory": ["2GiB", "300MiB", "1kB", "0", "-1GB", "1e30TB", "1.5GB", "GB"],
    "checkpoint_every": ["1steps", "2steps", "never", "0steps", "1min", "0.1s", "steps", "1e30min"],
    "rows": ["0:2", "1:3", ":", "2:1", "-2:", "0:99999999999999999999", "a:b", "3"],
    "decay_at": ["", "0.5", "0.75,0.5", "1", "nan", "0.1,0.2,0.3"],
    "key_map": ["layers.=other.", "=", "a=", "=a", "layers.0.=layers.1."],
    "device": ["cpu", "auto", "cuda", "cuda:0", "cuda:99999999999", "cpu:1", "meta", "mps"],
    "name": ["default", "other", "a.b", "default.uncertified"],
    "fit": ["default", "other", "path", "nothing"],
    "other_fit": ["default", "other"],
    "recording": ["000", "001", "0", "-1"],
    "other_recording": ["000", "001"],
    "param": ["layers.0.weight", "layers.1.weight", "layers.0.bias", "layers", "*"],
    "drop": ["000", "001"],
    "stop_signals": ["TERM", "USR1,USR2", "", "KILL", "term", "SIGTERM"],
    "data_root": [".", "nowhere", "run"],
    "shard": ["0/1", "0/2", "1/2", "2/2", "a/b", "0/0", "/"],
    "sparsity": ["0.5", "0.9", "0", "1", "0.5,0.9", "0.5,0.5", "nan", ""],
    "criterion": [
        "effect",
        "gamma",
        "magnitude",
        "random",
        "fisher",
        "obd",
        "curvature",
        "chita",
        "obs",
        "gamma,effect",
    ],
    "granularity": ["parameter", "channel", "filter", "neuron", "layer"],
    "keep": ["layers.0", "layers.*", "*.weight", "conv1", "", "[", "*"],
    "layer_sparsity": ["layers.0=0.5", "*=0.9", "layers.*=0", "conv1=0.5", "layers.0", "=0.5", "layers.1=1"],
    "set": [
        "record.lr=0.02",
        "fit-gamma.alphas=3",
        "posttrain.epochs=0",
        "record.steps=2",
        "evaluate.noise=true",
        "=",
        "a.b=c",
    ],
    "vary": ["record.lr=0.01,0.02", "seed=1,2", "fit-gamma.alpha-ratio=0.1,0.5", "scope=global,layer", "x=", "=1"],
}
"""Texts that an option of this name knows, or nearly knows."""

FILES = [
    "run/pretrained.safetensors", "run/recorded.safetensors", "run/pruned.safetensors", "run/final.safetensors",
    "run/trajectory.zarr", "run/results/evaluate.json", "run/log.jsonl", "run", "data.npz", "net.py", "config.toml",
    "weights.txt", "weights.npy", "odd/fifo", "odd/loop", "odd/empty", "odd/zero", "odd/random", "odd/pickle.pt",
    "odd/latin-\udce9.bin", "odd/con\x1b[31mtrol\n.bin", "nowhere", "nowhere/at/all", "/dev/null", "/dev/zero",
    "/proc/self/mem", "", ".", "new", "new.npz", "new.png", "new.safetensors", "new.zarr", "new.pt", "new.json", "odd",
    "x" * 300, "http://user:secret@host/x", "file:///etc/passwd",
]  # fmt: skip


def command(rng, most=4):
    """A command of the kind that works, and some options beside."""
    name = rng.choice(COMMANDS)
    config = load_configs()[name]
    types = config.option_types()
    short = name in STAGE_OPTIONS and (name in TRAIN or rng.random() < 0.9)
    words = command_of(name, "run") if short else name.split()
    fields = [f for n, f in config.option_fields().items() if n not in SKIPPED]
    for field in rng.sample(fields, min(len(fields), rng.randint(0, most))):
        words += option(rng, field, types[field.name])
    if rng.random() < 0.3:
        words += ["--json"]
    if rng.random() < 0.05:
        words += ["--config", rng.choice(FILES)]
    return words


def option(rng, field, kind):
    """One option with its value, as words of a command line."""
    flag = (getattr(field, "FILE_FLAG", None) or flag_of(field)).split(",")[0]
    if kind is bool:
        return [rng.choice(flag.split("/"))]
    values = [value(rng, field, kind) for _ in range(rng.randint(1, 2) if field.metadata["repeated"] else 1)]
    if not flag.startswith("-"):
        return [v for v in values if not v.startswith("-")]
    return [word for v in values for word in ([flag, v] if rng.random() < 0.9 else [f"{flag}={v}"])]


def value(rng, field, kind):
    """A value for an option: most of the time one that it may have."""
    choices = getattr(field.metadata["check"], "choices", None)
    odd = rng.random() < 0.1
    if odd and kind in (int, float):
        return rng.choice(NO_NUMBERS)
    if odd:
        return rng.choice(TEXTS)
    if kind is int:
        large = field.name in MAY_BE_LARGE and rng.random() < 0.1
        return str(rng.choice(LARGE if large else WHOLE))
    if field.name in SAID:
        return rng.choice(SAID[field.name])
    if choices:
        return rng.choice([*choices])
    if kind is float:
        return str(rng.choice(REAL))
    if kind is str or (isinstance(kind, type) and not issubclass(kind, Path)):
        return rng.choice(TEXTS)
    return rng.choice(FILES)


def shell(words):
    """The words as a line for a shell."""
    return " ".join(shlex.quote(w) if w.isprintable() else "$" + repr(w) for w in ["causalprune", *words])
