"""Faces from outside: a picture, a video or a camera in; expressions, places and heat maps out.

``Predictor.load("runs/03_custom_cnn_synthetic").image("me.jpg")`` finds the faces with a detector that comes
with scikit-image, cuts them out as the training pictures were cut (:mod:`helpers.images`), shows all of them
to the network at once, and returns a :class:`Reading`. What is said is about a picture, not about a person:
see the README before you point it at anybody.
"""

from helpers.predictor.detection import Box, Detector, Tracker
from helpers.predictor.network import Predictor, runs
from helpers.predictor.reading import Face, Reading
from helpers.predictor.streams import Stream, VideoError, camera_frames, video_frames

__all__ = [
    "Box",
    "Detector",
    "Face",
    "Predictor",
    "Reading",
    "Stream",
    "Tracker",
    "VideoError",
    "camera_frames",
    "runs",
    "video_frames",
]
