"""The names that ``import causalprune`` exports; everything else may move between versions.

``causalprune`` imports this module when one of the names is first used, so that ``import causalprune`` itself loads
neither PyTorch nor NumPy.
"""

from causalprune.models.mask import Mask
from causalprune.training.recorder import Recorder
from causalprune.trajectory.store import Store

__all__ = ["Mask", "Recorder", "Store"]
