"""Random data files, odd files, and damage to files."""

import json
import os
import pickle
import random
from pathlib import Path

import numpy as np


def odd_files(folder, rng):
    """Files that no command expects: pipes, loops, devices, names that no text holds."""
    odd = folder / "odd"
    odd.mkdir()
    os.mkfifo(odd / "fifo")
    (odd / "loop").symlink_to("loop")
    (odd / "zero").symlink_to("/dev/zero")
    (odd / "empty").touch()
    (odd / "random").write_bytes(rng.randbytes(300))
    (odd / "pickle.pt").write_bytes(pickle.dumps({"weight": [1.0]}))
    (odd / "latin-\udce9.bin").write_bytes(b"x")
    (odd / "con\x1b[31mtrol\n.bin").write_bytes(b"x")
    (folder / "weights.txt").write_text("1\n" * rng.choice([1, 5, 5, 5]))
    np.save(folder / "weights.npy", np.ones(rng.choice([1, 5, 5, 5])) * rng.choice([0, 1, 1, -1, np.nan]))
    (folder / "config.toml").write_text(rng.choice(CONFIGS))


CONFIGS = [
    "epochs = 1\n",
    "[pretrain]\nepochs = 1\nlr = 0.1\n",
    "epochs = [1]\n",
    "epochs = 1.5\n[record]\nlr = true\n",
    "a = {b = {c = 1}}\n",
    "epochs = 1979-05-27\n",
    "seed = 99999999999999999999\n",
    'run = "a\\u0000b"\n',
    "epochs = \n",
    "\ufeffepochs = 1\n",
    "set = 3\nvary = [1, 2]\n",
    "[apply-mask]\nsparsity = nan\n",
]


def arrays(rng):
    """Arrays of a data set, usual or odd: what they are called, and whether a plain network can be trained on them."""
    generator = np.random.default_rng(rng.getrandbits(32))
    count = rng.choice([0, 1, 2, 3, 10, 40, 40, 40])
    shape = rng.choice([(3,), (3,), (5,), (1,), (4, 4), (1, 4, 4), (4, 4, 3), (3, 4, 4), (2, 2), (2, 2, 2, 2), ()])
    x = generator.normal(size=(count, *shape))
    kind = rng.choice(["", "", "", "", "nan", "inf", "constant", "huge", "offset", "one nan row", "tiny"])
    if x.size:
        if kind in ("nan", "inf"):
            x.flat[generator.integers(x.size)] = float(kind)
        elif kind == "one nan row":
            x[-1] = np.nan
        elif kind == "constant":
            x[...] = 3.0
        elif kind:
            x = x * {"huge": 1e38, "offset": 1.0, "tiny": 1e-40}[kind] + (1.7e9 if kind == "offset" else 0)
    with np.errstate(all="ignore"):
        dtype = rng.choice(["f4", "f4", "f8", "f8", "f2", "u1", "i8", "?", "c8", "i4", ">f8", "U5", "u2"])
        if dtype in ("u1", "u2", "i8", "i4"):
            x = np.abs(np.nan_to_num(x, posinf=0, neginf=0)).clip(0, 3) * 60
        x = x.astype(dtype)
    classes = rng.choice([1, 2, 2, 3, 3, 6])
    y = np.arange(count) % classes
    y = rng.choice(
        [
            lambda: y, lambda: y, lambda: y.astype("u1"), lambda: y.astype("i4"), lambda: y.astype("f4"), lambda: y + 1,
            lambda: y - 1, lambda: y == 1, lambda: y[:, None], lambda: np.eye(classes)[y], lambda: y.astype("U3"),
            lambda: generator.normal(size=count), lambda: generator.normal(size=count) * np.nan, lambda: y * 1000,
            lambda: y[:-1], lambda: y.astype("u8"), lambda: y.astype("f2"), lambda: np.full(count, 2.5),
            lambda: y * 1j, lambda: np.stack([y, y], 1), lambda: y.astype("S2"),
        ]
    )()  # fmt: skip
    named = {"x": x, "y": y}
    if rng.random() < 0.5:
        cut = rng.choice([0, 1, count // 2, count // 2, max(0, count - 5), max(0, count - 5)])
        named = {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}
    if rng.random() < 0.1:
        named["class_names"] = np.array([f"c{i}\x1b[0m" for i in range(classes)])
    if rng.random() < 0.05:
        named.pop(rng.choice([*named]))
    return named


def data_file(path, rng):
    """Write random arrays as an ``.npz`` file."""
    (np.savez_compressed if rng.random() < 0.3 else np.savez)(path, **arrays(rng))


def image_folder(root, rng):
    """Random images in folders that are laid out as users lay them out, or not."""
    from PIL import Image

    generator = np.random.default_rng(rng.getrandbits(32))
    parts = rng.choice([["train"], ["train", "test"], ["train", "val"], ["train", "valid"], [""], ["training"]])
    for part in parts:
        for number in range(rng.choice([0, 1, 2, 2, 3])):
            place = root / part / f"class {number}"
            place.mkdir(parents=True)
            for image in range(rng.choice([0, 1, 4, 8, 8])):
                side = rng.choice([4, 4, 4, 4, 1, 9])
                mode, channels = rng.choice([("L", 1), ("RGB", 3), ("RGB", 3), ("RGBA", 4), ("1", 1)])
                pixels = generator.integers(0, 256, (side, 4, channels), np.uint8)
                suffix = rng.choice(["png", "png", "png", "PNG", "jpg", "bmp", "txt", "gif"])
                picture = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
                picture = picture.convert("L" if mode == "1" else mode)
                if suffix == "jpg":
                    picture = picture.convert("RGB")
                picture.save(place / f"{image}.{suffix}", format="PNG" if suffix in ("txt", "PNG") else None)
    root.mkdir(exist_ok=True)
    if rng.random() < 0.2:
        damage(root, rng)


def files_below(folder):
    """Regular files in a folder, in an order that doesn't depend on the disk."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def damage(folder, rng):
    """Do something to one of the files below a folder; returns what."""
    found = files_below(folder)
    if not found:
        return "nothing"
    path: Path = rng.choice(found)
    kind = rng.choice([*DAMAGE])
    DAMAGE[kind](path, path.read_bytes(), rng)
    return f"{kind} {path.relative_to(folder)}"


def _json(path, data, rng):
    """Change one value in a JSON file, and leave its checksum as it is."""
    try:
        value = json.loads(data)
        spots = [(value, k) for k in value]
        target, key = rng.choice(spots)
        target[key] = rng.choice([None, -1, 1e300, "x", [], {}, True, "\x1b[31m", [1] * 3, 10**30])
        path.write_text(json.dumps(value))
    except (ValueError, TypeError, IndexError, UnicodeDecodeError):
        path.write_bytes(data + b"}")


def _flip(path, data, rng):
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    path.write_bytes(changed)


def _replace(make):
    def replaced(path, _data, _rng):
        path.unlink()
        make(path)

    return replaced


DAMAGE = {
    "truncated": lambda path, data, rng: path.write_bytes(data[: rng.randrange(len(data) + 1)]),
    "bits flipped in": _flip,
    "emptied": lambda path, _data, _rng: path.write_bytes(b""),
    "extended": lambda path, data, rng: path.write_bytes(data + rng.randbytes(9)),
    "random bytes in": lambda path, _data, rng: path.write_bytes(rng.randbytes(99)),
    "zeros in": lambda path, data, _rng: path.write_bytes(bytes(len(data))),
    "a pickle in": lambda path, _data, _rng: path.write_bytes(pickle.dumps(random.Random)),
    "another value in": _json,
    "removed": lambda path, _data, _rng: path.unlink(),
    "a directory in place of": _replace(lambda path: path.mkdir()),
    "a pipe in place of": _replace(os.mkfifo),
    "a symlink loop in place of": _replace(lambda path: path.symlink_to(path.name)),
    "a dangling symlink in place of": _replace(lambda path: path.symlink_to("nowhere")),
    "/dev/zero in place of": _replace(lambda path: path.symlink_to("/dev/zero")),
}
