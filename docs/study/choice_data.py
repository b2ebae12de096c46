"""The data that defaults are chosen on: training data alone, of which a part plays the test split.

    python docs/study/choice_data.py --data-root data

writes ``choice-mnist.npz`` and ``choice-breast-cancer.npz`` into the working directory. The published test split of
MNIST and the fixed one of breast-cancer are left out, so that no choice can have seen them.
"""

import argparse
from pathlib import Path

import numpy as np

from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data

SHARES = {"mnist": 1 / 6, "breast-cancer": 0.3}
"""Part of the training data that plays the test split: 10,000 images, and 137 tumors."""


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="data", help="folder with MNIST/raw")
    root = parser.parse_args().data_root
    for name, share in SHARES.items():
        data = load_data(DataSpec(name, root=root if name == "mnist" else "", validation_fraction=share))
        arrays = {}
        for part, split in (("train", data.train), ("test", data.validation)):
            arrays |= {f"x_{part}": np.asarray(split.inputs), f"y_{part}": np.asarray(split.targets)}
        np.savez(Path(f"choice-{name}.npz"), **arrays)
        print(name, {key: array.shape for key, array in arrays.items()})


if __name__ == "__main__":
    main()
