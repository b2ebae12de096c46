import numpy as np
import pytest

from causalprune.analysis.diagnosis.agreement import stability


def test_stability_counts_columns():
    probability = np.float32([0, 0.05, 0.1, 0.5, 0.9, 1.0])
    found = stability(probability, np.array([0, 0, 0, 1.0, 1.0, 0]))
    assert found["thresholds"] == [0.1, 0.25, 0.5, 0.75, 0.9, 1.0]
    assert found["columns"] == [4, 3, 3, 2, 2, 1]
    assert found["selected"] == [2, 2, 2, 1, 1, 0]
    assert (found["nonzero"], found["ever"]) == (2, 5)
    assert found["mean_selected"] == pytest.approx(2.55)
