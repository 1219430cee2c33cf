"""Drawn faces: as a set, and written as the real sets lie on disk, to see a layout and to test its reader."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import emotions, files
from helpers.datasets.faceset import FaceSet
from helpers.datasets.reading import Pixels

_USAGE = {"": "Training", "train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
_PARTS = {"": "train_set", "train": "train_set", "validation": "val_set", "test": "test_set"}
_COLUMNS = ("labels", "valence_arousal", "votes", "landmarks", "action_units", "subject")


def draw(
    root: Path, pixels: Pixels, num_faces: int = 4000, seed: int = 0, color: bool = False,
    balance: str | dict[str, float] = "fer2013", faces_per_person: int = 20, ambiguity: float = 1.0,
    label_noise: float = 0.03, va_noise: float = 0.1,
) -> FaceSet:  # fmt: skip
    """Draw faces by ``faces.sample``; the label is one rater's, the distribution the true p(class | face)."""
    from helpers import faces  # it brings PyTorch along, which reading a file does not need

    options = {"faces_per_person": faces_per_person, "ambiguity": ambiguity, "label_noise": label_noise}
    drawn = faces.sample(num_faces, seed, pixels.size, color, balance=balance, va_noise=va_noise, **options)
    pixels.add(np.asarray(drawn.images, dtype=np.uint8))
    columns = {name: np.asarray(getattr(drawn, name)) for name in _COLUMNS}
    columns |= {"distribution": np.asarray(drawn.class_probabilities), "split": np.full(num_faces, "", "U10")}
    columns["source"] = np.array([f"synthetic:{i}" for i in range(num_faces)])
    return FaceSet("synthetic", images=pixels.close(), classes=emotions.FER7, **columns)


def write_fer2013(faces: FaceSet, root: str | Path) -> Path:
    """Write ``fer2013.csv`` of grey 48 by 48 faces in seven classes; a face without a split is Training."""
    _require(faces, faces.images.shape[1:] == (48, 48), "grey images of 48 by 48 pixels")
    lines = ["emotion,pixels,Usage"]
    for code, image, split in zip(_codes(faces, emotions.FER7), faces.images, faces.split, strict=True):
        lines.append(f"{code},{' '.join(map(str, image.ravel()))},{_USAGE[str(split)]}")
    return _write(Path(root) / "fer2013.csv", *lines)


def write_ferplus(faces: FaceSet, root: str | Path) -> Path:
    """Write ``fer2013.csv`` and beside it ``fer2013new.csv``, the votes of FER+ row for row."""
    _require(faces, faces.votes is not None, "votes")
    write_fer2013(faces, root)
    votes = np.zeros((len(faces), len(emotions.FERPLUS8)), dtype=np.int64)
    votes[:, [emotions.FERPLUS8.index(name) for name in faces.classes]] = faces.votes
    lines = [",".join(["Usage", "Image name", *emotions.FERPLUS8, "unknown", "NF"])]
    for i, (split, counts) in enumerate(zip(faces.split, votes, strict=True)):
        lines.append(f"{_USAGE[str(split)]},fer{i:07d}.png,{','.join(map(str, counts))},0,0")
    return _write(Path(root) / "fer2013new.csv", *lines)


def write_muxspace(faces: FaceSet, root: str | Path) -> Path:
    """Write ``images/*.jpg`` and ``data/legend.csv``; file names tell who it is, labels have any casing."""
    _require(faces, faces.subject is not None, "subjects")
    lines, seen, casings = ["user.id,image,emotion"], Counter(), (str.lower, str.upper, str.capitalize)
    for i, (label, subject) in enumerate(zip(faces.labels, faces.subject.tolist(), strict=True)):
        seen[subject] += 1
        name = f"Drawn_Person_{subject}_{seen[subject]:04d}.jpg"
        _write_image(Path(root) / "images" / name, faces.images[i])
        lines.append(f"{subject},{name},{casings[i % 3](faces.classes[label])}")
    return _write(Path(root) / "data" / "legend.csv", *lines)


def write_affectnet(faces: FaceSet, root: str | Path) -> Path:
    """Write ``affectnet/<part>/images/*.jpg`` and ``annotations/*_{exp,val,aro,lnd}.npy``, numbers as text.

    Where valence, arousal or landmarks are missing, their files are left out; a single unknown value is -2.
    """
    top, codes = Path(root) / "affectnet", _codes(faces, emotions.AFFECTNET8)
    for i, (code, split) in enumerate(zip(codes, faces.split, strict=True)):
        folder, values = top / _PARTS[str(split)], {"exp": str(code)}
        _write_image(folder / "images" / f"{i}.jpg", faces.images[i])
        if faces.valence_arousal is not None:
            degrees = (f"{-2.0 if np.isnan(value) else value:.6f}" for value in faces.valence_arousal[i])
            values |= zip(("val", "aro"), degrees, strict=True)
        if faces.landmarks is not None:
            values["lnd"] = faces.landmarks[i].reshape(136).astype(np.float64)
        for kind, value in values.items():
            with files.replacing(folder / "annotations" / f"{i}_{kind}.npy") as file:
                np.save(file, np.array(value), allow_pickle=False)
    return top


def write_affectnet_fused(faces: FaceSet, distribution: np.ndarray, root: str | Path) -> Path:
    """Write AffectNet with thirteen values more a face, ``[N, 13]``, in ``annotations/*_prob_rank.txt``."""
    _require(faces, distribution.shape == (len(faces), 13), "a distribution [N, 13]")
    top = write_affectnet(faces, root)
    for i, (split, values) in enumerate(zip(faces.split, distribution, strict=True)):
        line = ",".join(f"{value:.6f}" for value in values)
        _write(top / _PARTS[str(split)] / "annotations" / f"{i}_prob_rank.txt", line)
    return top


def _codes(faces: FaceSet, classes: tuple[str, ...]) -> np.ndarray:
    _require(faces, set(faces.classes) <= set(classes), f"no classes but {', '.join(classes)}")
    return np.array([classes.index(name) for name in faces.classes])[faces.labels]


def _require(faces: FaceSet, there: bool, what: str) -> None:
    if not there:
        raise ValueError(f"this layout cannot be written from {faces.name!r}: it needs {what}")


def _write(path: Path, *lines: str) -> Path:
    files.write(path, "\n".join([*lines, ""]))
    return path


def _write_image(path: Path, image: np.ndarray) -> None:
    with files.replacing(path) as file:
        image = Image.fromarray(np.moveaxis(image, 0, -1) if image.ndim == 3 else image)
        image.save(file, "JPEG", quality=95)
