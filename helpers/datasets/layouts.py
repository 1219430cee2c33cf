"""Write a set of faces as the real sets lie on disk: to see a layout, and to test its reader."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import emotions, files
from helpers.datasets.faceset import FaceSet

_USAGE = {"": "Training", "train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
_PARTS = {"": "train_set", "train": "train_set", "validation": "val_set", "test": "test_set"}
_CASINGS = (str.lower, str.upper, str.capitalize)


def write_fer2013(faces: FaceSet, root: str | Path) -> Path:
    """Write ``fer2013.csv``: ``emotion,pixels,Usage``, one face a row.

    Args:
        faces: grey faces of 48 by 48 pixels in the seven classes; a face without a split is Training.
        root: the folder to write into.

    Returns:
        the file.

    Raises:
        ValueError: the faces have another size, colour or other classes.
    """
    _require(faces.images.shape[1:] == (48, 48), faces, "fer2013", "grey images of 48 by 48 pixels")
    codes = _codes(faces, emotions.FER7, "fer2013")
    rows = zip(codes, faces.images, faces.split, strict=True)
    lines = (
        f"{code},{' '.join(map(str, image.ravel()))},{_USAGE[str(split)]}" for code, image, split in rows
    )
    return _write(Path(root) / "fer2013.csv", "\n".join(["emotion,pixels,Usage", *lines, ""]))


def write_ferplus(faces: FaceSet, root: str | Path) -> Path:
    """Write ``fer2013.csv`` and beside it ``fer2013new.csv``, the votes of FER+ row for row.

    Args:
        faces: as for :func:`write_fer2013`, with votes.
        root: the folder to write into.

    Returns:
        the file of the votes.

    Raises:
        ValueError: the faces have no votes, or cannot be written as FER2013.
    """
    _require(faces.votes is not None, faces, "ferplus", "votes")
    write_fer2013(faces, root)
    votes = np.zeros((len(faces), len(emotions.FERPLUS8)), dtype=np.int64)
    for column, name in enumerate(faces.classes):
        votes[:, emotions.FERPLUS8.index(name)] = faces.votes[:, column]
    header = ",".join(["Usage", "Image name", *emotions.FERPLUS8, "unknown", "NF"])
    rows = zip(faces.split, votes, strict=True)
    lines = (
        f"{_USAGE[str(split)]},fer{i:07d}.png,{','.join(map(str, counts))},0,0"
        for i, (split, counts) in enumerate(rows)
    )
    return _write(Path(root) / "fer2013new.csv", "\n".join([header, *lines, ""]))


def write_muxspace(faces: FaceSet, root: str | Path) -> Path:
    """Write ``images/*.jpg`` and ``data/legend.csv``; file names tell the person, labels are in mixed casing.

    Args:
        faces: faces of any size with ``subject``.
        root: the folder to write into.

    Returns:
        the legend.

    Raises:
        ValueError: the faces do not say who they are.
    """
    _require(faces.subject is not None, faces, "muxspace", "subjects")
    lines, seen = [], {}
    for i, (label, subject) in enumerate(zip(faces.labels, faces.subject, strict=True)):
        seen[int(subject)] = seen.get(int(subject), 0) + 1
        name = f"Drawn_Person_{int(subject)}_{seen[int(subject)]:04d}.jpg"
        _write_image(Path(root) / "images" / name, faces.images[i])
        lines.append(f"{int(subject)},{name},{_CASINGS[i % 3](faces.classes[label])}")
    return _write(Path(root) / "data" / "legend.csv", "\n".join(["user.id,image,emotion", *lines, ""]))


def write_affectnet(faces: FaceSet, root: str | Path) -> Path:
    """Write ``affectnet/``: ``images/*.jpg`` and ``annotations/*_{exp,val,aro,lnd}.npy``, numbers as text.

    Each split has a folder: ``train_set``, ``val_set``, ``test_set``.

    Args:
        faces: faces of any size; where valence, arousal or landmarks are missing, their files are left out,
            a single unknown value is -2.
        root: the folder to write into.

    Returns:
        the folder ``affectnet``.

    Raises:
        ValueError: a class that AffectNet does not have.
    """
    codes = _codes(faces, emotions.AFFECTNET8, "affectnet")
    for i, split in enumerate(faces.split):
        folder = Path(root) / "affectnet" / _PARTS[str(split)]
        _write_image(folder / "images" / f"{i}.jpg", faces.images[i])
        for kind, value in _annotations(faces, codes, i).items():
            _write_array(folder / "annotations" / f"{i}_{kind}.npy", value)
    return Path(root) / "affectnet"


def write_affectnet_fused(faces: FaceSet, distribution: np.ndarray, root: str | Path) -> Path:
    """Write AffectNet with thirteen values more a face, comma-separated in ``annotations/*_prob_rank.txt``.

    Args:
        faces: as for :func:`write_affectnet`.
        distribution: float ``[N, 13]`` over ``emotions.FUSED13``; see ``faces.fused_probabilities``.
        root: the folder to write into.

    Returns:
        the folder ``affectnet``.

    Raises:
        ValueError: another number of rows or columns, or a class that AffectNet does not have.
    """
    wanted = (len(faces), len(emotions.FUSED13))
    if distribution.shape != wanted:
        raise ValueError(f"affectnet_fused: distribution must be {wanted}, not {distribution.shape}")
    top = write_affectnet(faces, root)
    for i, (split, values) in enumerate(zip(faces.split, distribution, strict=True)):
        line = ",".join(f"{value:.6f}" for value in values)
        _write(top / _PARTS[str(split)] / "annotations" / f"{i}_prob_rank.txt", line + "\n")
    return top


def _annotations(faces: FaceSet, codes: np.ndarray, i: int) -> dict[str, np.ndarray]:
    found = {"exp": np.array(str(codes[i]))}
    if faces.valence_arousal is not None:
        valence, arousal = (-2.0 if np.isnan(value) else float(value) for value in faces.valence_arousal[i])
        found |= {"val": np.array(f"{valence:.6f}"), "aro": np.array(f"{arousal:.6f}")}
    if faces.landmarks is not None:
        found["lnd"] = faces.landmarks[i].reshape(136).astype(np.float64)
    return found


def _codes(faces: FaceSet, classes: tuple[str, ...], layout: str) -> np.ndarray:
    strange = [name for name in faces.classes if name not in classes]
    _require(not strange, faces, layout, f"no classes but {', '.join(classes)}")
    return np.array([classes.index(name) for name in faces.classes])[faces.labels]


def _require(holds: bool, faces: FaceSet, layout: str, what: str) -> None:
    if not holds:
        raise ValueError(f"{layout}: cannot be written from {faces.name!r}, it needs {what}")


def _write(path: Path, text: str) -> Path:
    with files.replacing(path) as file:
        file.write(text.encode())
    return path


def _write_array(path: Path, values: np.ndarray) -> None:
    with files.replacing(path) as file:
        np.save(file, values, allow_pickle=False)


def _write_image(path: Path, image: np.ndarray) -> None:
    packed = io.BytesIO()
    Image.fromarray(np.moveaxis(image, 0, -1) if image.ndim == 3 else image).save(packed, "JPEG", quality=95)
    with files.replacing(path) as file:
        file.write(packed.getvalue())
