"""AffectNet and AffectNetFused: faces from the web, each with its annotations in small files.

An image ``images/17.jpg`` has ``annotations/17_exp.npy`` (expression), ``17_val.npy``, ``17_aro.npy`` and
``17_lnd.npy`` (68 landmarks); in AffectNetFused ``17_prob_rank.txt``, thirteen values in the order of
``emotions.FUSED13`` in one line, separated by commas.
"""

from __future__ import annotations

import io
import math
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers import emotions, images
from helpers.datasets import reading
from helpers.datasets.faceset import FaceSet, Rejection
from helpers.datasets.reading import Refused

PARTS = {"train_set": "train", "val_set": "validation", "test_set": "test"}  # folders to splits
NO_EXPRESSION = {8: "none of the expressions", 9: "uncertain", 10: "no face"}  # codes that are no class
UNKNOWN = -2.0  # stands in val and aro where nobody gave a value
TOLERANCE = 1e-3  # how far from 1 a sum may be and still be taken for a rounded 1
EXPRESSION, RANKS = "exp.npy", "prob_rank.txt"  # what each of the two sets must have
_PLACES = ("annotations", "train_set/annotations", "val_set/annotations")
_NAME = re.compile(r"(.+)_(exp\.npy|val\.npy|aro\.npy|lnd\.npy|prob_rank\.txt)")
ODD = "is no annotation (named <image>_exp.npy, _val, _aro, _lnd or _prob_rank.txt)"
_AGAIN = "get the annotation again"

Judge = Callable[[dict[str, Path]], tuple[str, dict[str, np.ndarray]]]
"""From the annotation files of one image to its class and further columns; or it raises ``Refused``."""


def files(root: Path, needed: str = EXPRESSION, **_options: object) -> list[Path]:
    """Return what is read: every image and every annotation."""
    below = [folder / name for folder, _ in _folders(root, needed) for name in ("images", "annotations")]
    return [file for folder in below if folder.is_dir() for file in reading.visible(folder)]


def fused_files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: every image and every annotation."""
    return files(root, RANKS)


def _folders(root: Path, needed: str) -> list[tuple[Path, str]]:
    """Return each folder that holds ``images`` and ``annotations``, with its split."""

    def fits(place: Path) -> bool:
        return place.is_dir() and any(file.name.endswith(needed) for file in reading.visible(place))

    name = "affectnet" if needed == EXPRESSION else "affectnet_fused"
    folder = reading.first(root, _PLACES, name, fits).parent
    there = {split: folder.parent / part for part, split in PARTS.items() if folder.name in PARTS}
    there = {split: each for split, each in there.items() if (each / "annotations").is_dir()}
    if len(there) < 2:
        return [(folder, "")]
    if "test" not in there:  # never published: all scores are on val_set, so nothing may be chosen by it
        there["test"] = there.pop("validation")
    return [(each, split) for split, each in there.items()]


def _labelled(
    root: Path, needed: str, wanted: set[str], judge: Judge
) -> tuple[list[reading.Found], list[Rejection]]:
    """Return the images with what their annotations say, and what belongs to nothing or cannot be used."""
    found, refused = [], []
    for folder, split in _folders(root, needed):
        given: dict[str, dict[str, Path]] = defaultdict(dict)
        for file in reading.visible(folder / "annotations"):
            if match := _NAME.fullmatch(file.name):
                given[match[1]][match[2]] = file
            else:
                refused.append((file, ODD, "move it elsewhere"))
        on_disk = list(reading.visible(folder / "images")) if (folder / "images").is_dir() else []
        for stem in sorted(given.keys() - {file.stem for file in on_disk}):
            why = "has no image in images/", "get the image, or remove its annotations"
            refused.append((min(given[stem].values()), *why))
        for file in on_disk:
            try:
                for kind in sorted(wanted - given[file.stem].keys()):
                    raise Refused(f"has no annotation *_{kind}", "get the file, or remove the image")
                label, values = judge(given[file.stem])
                found.append(reading.Found(file, label, split, values=values))
            except Refused as error:
                refused.append((file, error.reason, error.remedy))
    return found, [Rejection(reading.relative(file, root), 0, *why) for file, *why in refused]


def read(root: Path, pixels: reading.Pixels, num_classes: int = 8, color: bool = False) -> FaceSet:
    """Read the images whose expression is one of the classes.

    Images and annotations lie in one pair of folders, or in one for each of ``train_set``, ``val_set`` and
    ``test_set``. A value of -2 is unknown, NaN here. Where the set holds no file of valence, arousal or
    landmarks at all, it has none; where others have the file, an image without it is rejected.

    Args:
        root: the data folder.
        pixels: where the images go.
        num_classes: 8, or 7 to do without contempt.
        color: RGB instead of grey.
    """
    if num_classes not in (7, 8):
        raise ValueError(f"affectnet has num_classes=7 or num_classes=8, not {num_classes!r}")
    wanted = {match[2] for file in files(root) if (match := _NAME.fullmatch(file.name))} - {RANKS}

    def judge(given: dict[str, Path]) -> tuple[str, dict[str, np.ndarray]]:
        values, label = {}, _expression(given[EXPRESSION], num_classes)
        if wanted & {"val.npy", "aro.npy"}:
            values["valence_arousal"] = _degrees(given)
        if "lnd.npy" in wanted:
            values["landmarks"] = _points(given["lnd.npy"])
        return label, values

    labelled = _labelled(root, EXPRESSION, wanted, judge)
    return reading.face_set("affectnet", root, *labelled, emotions.AFFECTNET8[:num_classes], pixels, color)


def read_fused(root: Path, pixels: reading.Pixels, color: bool = False) -> FaceSet:
    """Read the images with their distributions; the label is the likeliest class, of tied ones the first.

    A row that is no distribution is rejected. One whose sum is 1 within a thousandth was rounded when it was
    written; it is divided by its sum, and ``notes`` says how many there were. Valence and arousal are read
    where AffectNet's own files lie beside it.
    """
    rounded = []

    def judge(given: dict[str, Path]) -> tuple[str, dict[str, np.ndarray]]:
        shares, degrees = _distribution(given[RANKS]), _degrees(given)
        rounded.append(abs(shares.sum() - 1) > 1e-9)
        values = {"distribution": np.float32(shares / shares.sum()), "valence_arousal": degrees}
        return emotions.FUSED13[int(shares.argmax())], values

    found, rejected = _labelled(root, RANKS, {RANKS}, judge)
    if np.isnan([each.values["valence_arousal"] for each in found]).all():
        for each in found:
            del each.values["valence_arousal"]
    note = (
        f"{sum(rounded)} of {len(found)} rows sum to 1 only within {TOLERANCE:g}; each was divided by its sum"
    )
    rest = emotions.FUSED13, pixels, color, (note,) if any(rounded) else ()
    return reading.face_set("affectnet_fused", root, found, rejected, *rest)


def _expression(file: Path, num_classes: int) -> str:
    code = _number(file)
    if code in NO_EXPRESSION:
        reason = f"annotated as {NO_EXPRESSION[code]} (expression {code:.0f})"
        raise Refused(reason, "nothing: it has no class")
    if code == 7 and num_classes == 7:
        raise Refused("contempt is the eighth class", "load it with num_classes=8")
    if code not in range(8):
        raise Refused(f"{file.name} holds {code:g}, no expression from 0 to 10", _AGAIN)
    return emotions.AFFECTNET8[int(code)]


def _degrees(given: dict[str, Path]) -> np.ndarray:
    """Return valence and arousal, float32 ``[2]``, NaN where unknown."""
    values = np.full(2, np.nan, dtype=np.float32)
    for i, kind in enumerate(("val.npy", "aro.npy")):
        value = _number(given[kind]) if kind in given else UNKNOWN
        if value != UNKNOWN and not -1 <= value <= 1:
            raise Refused(f"{given[kind].name} holds {value:g}, not a number from -1 to 1", _AGAIN)
        values[i] = np.nan if value == UNKNOWN else value
    return values


def _points(file: Path) -> np.ndarray:
    """Return 68 landmarks (x, y), float64 ``[68, 2]``, in pixels of the image."""
    values = _array(file)
    if values.size != 136 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise Refused(f"{file.name} holds {_kind(values)}, not 68 points (x, y)", _AGAIN)
    return values.reshape(68, 2).astype(np.float64)


def _number(file: Path) -> float:
    """Return the one number in a file, which most copies of the set hold as text."""
    values = _array(file)
    try:
        return float(values.item())
    except Exception:  # dates, records, characters beyond Unicode: NumPy raises anything at all here too
        raise Refused(f"{file.name} holds {_kind(values)}, not one number", _AGAIN) from None


def _kind(values: np.ndarray) -> str:
    return f"{values.dtype} of shape {values.shape}"


def _content(file: Path) -> bytes:
    data = file.read_bytes()
    if found := images.stand_in(data):
        raise Refused(f"{file.name} {found[0]}", found[1])
    return data


def _array(file: Path) -> np.ndarray:
    try:
        return np.lib.format.read_array(io.BytesIO(_content(file)), allow_pickle=False)
    except Refused:
        raise
    except Exception as error:  # a damaged header can make NumPy raise anything at all
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise Refused(f"{file.name} cannot be read ({reason})", _AGAIN) from error


def _distribution(file: Path) -> np.ndarray:
    """Return the thirteen values as they stand, float64 ``[13]``."""
    lines = [line for line in _content(file).decode("utf-8-sig", "replace").splitlines() if line.strip()]
    try:
        values = np.array([float(each) for each in (lines or [""])[0].split(",")])
    except ValueError as error:
        raise Refused(f"{file.name}: {str(error)[:60]}", "correct the row, or remove the image") from None
    problem = ""
    if len(lines) != 1:
        problem = f"{len(lines)} rows instead of 1"
    elif len(values) != len(emotions.FUSED13):
        problem = f"{len(values)} values instead of {len(emotions.FUSED13)}"
    elif not (np.isfinite(values) & (values >= 0)).all():
        problem = f"{values[~(np.isfinite(values) & (values >= 0))][0]:g} is no probability"
    elif abs(math.fsum(values) - 1) > TOLERANCE:
        problem = f"the values sum to {math.fsum(values):.6g}, not to 1"
    if problem:
        raise Refused(f"{file.name}: {problem}", "correct the row, or remove the image")
    return values
