"""Any tree of pictures: ``<class>/*`` or ``<split>/<class>/*``."""

from __future__ import annotations

from pathlib import Path

from helpers import emotions
from helpers.datasets import find, pictures
from helpers.datasets.faceset import FaceSet

ORDER = (*emotions.FER7, *emotions.FUSED13[7:])  # label order: FER2013's, then contempt and the rest


def files(root: Path, path: str = "", **_options: object) -> list[Path]:
    """Return what is read: every file in the tree."""
    return list(find.visible(find.first(root, (path or ".",), "folder")))


def read(
    root: Path,
    image_size: int,
    path: str = "",
    classes: tuple[str, ...] | None = None,
    color: bool = False,
) -> FaceSet:
    """Read the tree; its classes are the expressions found, in the order of FER2013.

    Args:
        root: the data folder.
        image_size: side of the images in pixels.
        path: where in it the tree starts.
        classes: names in label order, for other words than the workbook's or for another order.
        color: RGB instead of grey.
    """
    found, rejected = pictures.tree(root / path, root, files(root, path), classes and tuple(classes))
    names = tuple(classes or (name for name in ORDER if name in {p.label for p in found}))
    return pictures.face_set("folder", root, found, rejected, names, image_size, color)
