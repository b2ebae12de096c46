"""The data sets that scikit-learn brings with it: no file, no download."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from causalprune.data.splits import RawData, Split
from causalprune.data.statistics import fingerprint_tensors


def read_bundled(name: str) -> RawData:
    """Read ``digits``, ``breast-cancer`` or ``diabetes``; none has a published test split.

    Digits keep their 17 gray levels, 0 to 16, as uint8. Diabetes has its features in their original units.
    """
    from sklearn import datasets

    if name == "digits":
        bunch: Any = datasets.load_digits()
        inputs = torch.from_numpy(bunch.images.astype(np.uint8)[:, None])
        class_names = tuple(map(str, bunch.target_names))
    elif name == "breast-cancer":
        bunch = datasets.load_breast_cancer()
        inputs = torch.from_numpy(bunch.data.astype(np.float32))
        class_names = tuple(map(str, bunch.target_names))
    else:
        bunch = datasets.load_diabetes(scaled=False)
        inputs = torch.from_numpy(bunch.data.astype(np.float32))
        class_names = ()
    targets = torch.from_numpy(bunch.target.astype(np.int64 if class_names else np.float32))
    fingerprint = fingerprint_tensors({"x": inputs, "y": targets}, class_names)
    task = "classification" if class_names else "regression"
    return RawData(task, Split(inputs, targets), None, class_names, fingerprint)  # type: ignore[arg-type]
