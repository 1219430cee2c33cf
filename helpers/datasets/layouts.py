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
    """Write ``fer2013.csv`` of grey 48 by 48 faces in seven classes; a face without a split is Training."""
    if faces.images.shape[1:] != (48, 48):
        raise ValueError(
            f"fer2013 cannot be written from {faces.name!r}: it needs grey images of 48 by 48 pixels"
        )
    lines = ["emotion,pixels,Usage"]
    for code, image, split in zip(_codes(faces, emotions.FER7), faces.images, faces.split, strict=True):
        lines.append(f"{code},{' '.join(map(str, image.ravel()))},{_USAGE[str(split)]}")
    return _write(Path(root) / "fer2013.csv", lines)


def write_ferplus(faces: FaceSet, root: str | Path) -> Path:
    """Write ``fer2013.csv`` and beside it ``fer2013new.csv``, the votes of FER+ row for row."""
    _require(faces.votes, faces, "votes")
    write_fer2013(faces, root)
    votes = np.zeros((len(faces), len(emotions.FERPLUS8)), dtype=np.int64)
    votes[:, [emotions.FERPLUS8.index(name) for name in faces.classes]] = faces.votes
    lines = [",".join(["Usage", "Image name", *emotions.FERPLUS8, "unknown", "NF"])]
    for i, (split, counts) in enumerate(zip(faces.split, votes, strict=True)):
        lines.append(f"{_USAGE[str(split)]},fer{i:07d}.png,{','.join(map(str, counts))},0,0")
    return _write(Path(root) / "fer2013new.csv", lines)


def write_muxspace(faces: FaceSet, root: str | Path) -> Path:
    """Write ``images/*.jpg`` and ``data/legend.csv``; file names tell who it is, labels have any casing."""
    _require(faces.subject, faces, "subjects")
    lines, seen = ["user.id,image,emotion"], {}
    for i, (label, subject) in enumerate(zip(faces.labels, faces.subject.tolist(), strict=True)):
        seen[subject] = seen.get(subject, 0) + 1
        name = f"Drawn_Person_{subject}_{seen[subject]:04d}.jpg"
        _write_image(Path(root) / "images" / name, faces.images[i])
        lines.append(f"{subject},{name},{_CASINGS[i % 3](faces.classes[label])}")
    return _write(Path(root) / "data" / "legend.csv", lines)


def write_affectnet(faces: FaceSet, root: str | Path) -> Path:
    """Write ``affectnet/<part>/images/*.jpg`` and ``annotations/*_{exp,val,aro,lnd}.npy``, numbers as text.

    Where valence, arousal or landmarks are missing, their files are left out; a single unknown value is -2.
    """
    top, codes = Path(root) / "affectnet", _codes(faces, emotions.AFFECTNET8)
    for i, (code, split) in enumerate(zip(codes, faces.split, strict=True)):
        folder, values = top / _PARTS[str(split)], {"exp": np.array(str(code))}
        _write_image(folder / "images" / f"{i}.jpg", faces.images[i])
        if faces.valence_arousal is not None:
            texts = [f"{-2.0 if np.isnan(value) else value:.6f}" for value in faces.valence_arousal[i]]
            values |= {"val": np.array(texts[0]), "aro": np.array(texts[1])}
        if faces.landmarks is not None:
            values["lnd"] = faces.landmarks[i].reshape(136).astype(np.float64)
        for kind, value in values.items():
            with files.replacing(folder / "annotations" / f"{i}_{kind}.npy") as file:
                np.save(file, value, allow_pickle=False)
    return top


def write_affectnet_fused(faces: FaceSet, distribution: np.ndarray, root: str | Path) -> Path:
    """Write AffectNet with thirteen values more a face, ``[N, 13]``, in ``annotations/*_prob_rank.txt``."""
    wanted = (len(faces), len(emotions.FUSED13))
    if distribution.shape != wanted:
        raise ValueError(f"affectnet_fused: distribution must be {wanted}, not {distribution.shape}")
    top = write_affectnet(faces, root)
    for i, (split, values) in enumerate(zip(faces.split, distribution, strict=True)):
        line = ",".join(f"{value:.6f}" for value in values)
        _write(top / _PARTS[str(split)] / "annotations" / f"{i}_prob_rank.txt", [line])
    return top


def _codes(faces: FaceSet, classes: tuple[str, ...]) -> np.ndarray:
    _require(set(faces.classes) <= set(classes) or None, faces, f"no classes but {', '.join(classes)}")
    return np.array([classes.index(name) for name in faces.classes])[faces.labels]


def _require(what: object, faces: FaceSet, name: str) -> None:
    if what is None:
        raise ValueError(f"this layout cannot be written from {faces.name!r}: it needs {name}")


def _write(path: Path, lines: list[str]) -> Path:
    with files.replacing(path) as file:
        file.write("\n".join([*lines, ""]).encode())
    return path


def _write_image(path: Path, image: np.ndarray) -> None:
    packed = io.BytesIO()
    Image.fromarray(np.moveaxis(image, 0, -1) if image.ndim == 3 else image).save(packed, "JPEG", quality=95)
    with files.replacing(path) as file:
        file.write(packed.getvalue())
