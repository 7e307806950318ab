"""Frames in, detections out: sessions, pre- and postprocessing, detector, stream.

Importing it needs numpy only; engines, and OpenCV, load when something is opened.
"""

from irstd.runtime.detector import Detector, StageTimes, open_bundle
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.postprocess import detect, sigmoid
from irstd.runtime.preprocess import Preprocessor
from irstd.runtime.stream import POLICIES, StreamResult, run_stream

__all__ = [
    "POLICIES",
    "Detector",
    "FrameRunner",
    "Preprocessor",
    "StageTimes",
    "StreamResult",
    "detect",
    "open_bundle",
    "run_stream",
    "sigmoid",
]
