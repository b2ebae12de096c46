"""The trajectory store: what gradient descent did to each parameter, and to the loss, step by step."""

from causalprune.store.fits import Fit
from causalprune.store.info import RecordingInfo
from causalprune.store.reader import RecordingReader
from causalprune.store.steps import Steps
from causalprune.store.trajectory import TrajectoryStore
from causalprune.store.writer import RecordingWriter

__all__ = ["Fit", "RecordingInfo", "RecordingReader", "RecordingWriter", "Steps", "TrajectoryStore"]
