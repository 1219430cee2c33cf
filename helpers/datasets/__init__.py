"""Data sets: ``datasets.load(name)`` gives a :class:`FaceSet`, whatever lies on disk.

A layout is two functions, ``files`` and ``read``; cache, splits and audit are the same for all.
"""

from helpers.datasets import layouts
from helpers.datasets.audit import Audit, audit, leaked, left_out, most_alike
from helpers.datasets.faceset import FaceSet, Rejection
from helpers.datasets.loading import LAYOUTS, load

__all__ = ["LAYOUTS", "Audit", "FaceSet", "Rejection", "audit", "leaked", "left_out", "load", "most_alike"]
