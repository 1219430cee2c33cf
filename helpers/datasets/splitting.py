"""Which faces belong together, and how to cut a set so that they stay together."""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Return a 16-byte hash of each image's pixels; equal where, and only where, the pixels are.

    Args:
        images: uint8 ``[N, ...]``.

    Returns:
        ``S16 [N]``.
    """
    hashes = [hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in images]
    return np.array(hashes, dtype="S16")


def identical(images: np.ndarray) -> np.ndarray:
    """Return a number for each image, the same for images with the same pixels.

    Args:
        images: uint8 ``[N, ...]``.

    Returns:
        int64 ``[N]``.
    """
    return np.unique(fingerprints(images), return_inverse=True)[1].reshape(-1)


def components(*columns: np.ndarray) -> np.ndarray:
    """Return a group for each face: two faces share it when a chain of equal entries joins them.

    Args:
        columns: int64 ``[N]`` each (who it is, which pixels it has); negative is unknown, equal to nothing.

    Returns:
        int64 ``[N]``, groups numbered from 0.
    """
    num_faces = len(columns[0])
    face, entry, nodes = [], [], num_faces
    for column in columns:
        known = np.flatnonzero(column >= 0)
        values, number = np.unique(column[known], return_inverse=True)
        face.append(known)
        entry.append(nodes + number)
        nodes += len(values)
    face, entry = np.concatenate(face), np.concatenate(entry)
    graph = coo_array((np.ones(len(face), dtype=bool), (face, entry)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][:num_faces].astype(np.int64)


def stratified(labels: np.ndarray, groups: np.ndarray, fractions: list[float], seed: int) -> np.ndarray:
    """Cut faces into parts with about the same share of each class, whole groups at a time.

    Groups of several faces are placed first, the largest first, each where it disturbs the wanted counts
    least (chi-square); faces that stand alone then fill each class up to its count.

    Args:
        labels: int64 ``[N]``, class of each face.
        groups: int64 ``[N]``, faces of one group stay together.
        fractions: of the faces, for parts 1, 2, ...; part 0 gets the rest.
        seed: which of the possible cuts.

    Returns:
        int64 ``[N]``, the part of each face.
    """
    rng = np.random.default_rng(seed)
    table = np.zeros((int(groups.max(initial=-1)) + 1, int(labels.max(initial=0)) + 1))
    np.add.at(table, (groups, labels), 1)
    wanted = np.outer([1 - sum(fractions), *fractions], table.sum(axis=0))  # [parts, classes]
    part = _place_groups(table, wanted, rng)[groups]
    alone = table.sum(axis=1)[groups] == 1
    for label in range(table.shape[1]):
        these = rng.permutation(np.flatnonzero(alone & (labels == label)))
        placed = np.bincount(part[~alone & (labels == label)], minlength=len(wanted))
        part[these] = _fill(len(these), wanted[:, label] - placed)
    return part


def _place_groups(table: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size, part, lack = table.sum(axis=1), np.zeros(len(table), dtype=np.int64), wanted.copy()
    order = rng.permutation(np.flatnonzero(size > 1))
    for group in order[np.argsort(-size[order], kind="stable")]:
        change = ((lack - table[group]) ** 2 - lack**2) / np.maximum(wanted, 1)  # [parts, classes]
        part[group] = change.sum(axis=1).argmin()
        lack[part[group]] -= table[group]
    return part


def _fill(num_faces: int, room: np.ndarray) -> np.ndarray:
    """Return the part of each of ``num_faces`` alike faces, shared out in proportion to the room left."""
    room = np.maximum(room, 0)
    room = room if room.sum() else np.eye(len(room))[0]
    edges = np.rint(np.cumsum(room) / room.sum() * num_faces)
    return np.searchsorted(edges, np.arange(num_faces), side="right")
