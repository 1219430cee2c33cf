"""What a training computes itself on a CPU, compiled by Numba the first time it is called on a machine.

Maps lie in memory with their channels last, ``[N, H, W, C]``; the compiled loops see them as flat arrays,
with their shape beside. Pictures are shared out among PyTorch's number of threads, and what comes out is the
same for any number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba import njit, prange

from helpers import runtime

LENGTH = 8
"""Pixels or points of a tile's side, at most."""
CHANNELS = 64
"""Channels treated at a time: a tile of so many, and what is half done of it, stay close to the processor."""
_one_at_a_time = threading.Lock()  # not each of Numba's ways to share work bears two callers


def _compiled(function: Callable, *, parallel: bool = False, inline: str = "never") -> Any:
    # product and sum may be one operation, but nothing is assumed that would hide what is not finite
    how = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "inline": inline}
    try:
        return njit(function, cache=True, parallel=parallel, **how)
    except RuntimeError:  # there is nowhere to keep it
        return njit(function, parallel=parallel, **how)


def _parallel(function: Callable) -> Any:
    return _compiled(function, parallel=True)


def _inlined(function: Callable) -> Any:
    return _compiled(function, inline="always")


def _share(alone: Callable, together: Callable, pictures: int, *given: object) -> None:
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS, pictures)
    if threads <= 1:  # a forked process must not ask for the threads of the one it came from
        alone(*given, 0, pictures)
        return
    with _one_at_a_time:
        numba.set_num_threads(threads)
        together(*given, pictures, threads)


def load() -> None:
    """Have all of it ready in this process, so that the copies it forks begin with it.

    Compiling takes some seconds, once on a machine; reading what was compiled takes half of one.
    """
    maps, half = np.zeros((1, 2, 2, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    matrix, channel = np.zeros((2, LENGTH), np.float32), np.zeros(1, np.float32)
    cut, values = Cut(1, 1, 2, 2, 0, 0, 2, 2), np.zeros((4, 1, 1), np.float32)
    places = np.zeros(half.shape, np.uint8)
    with runtime.threads(1):  # a copy has one
        to_points(maps, values, matrix, matrix, cut)
        from_points(values, maps, matrix, matrix, cut)
        pool(maps, channel, half, places)
        unpool(half, places, maps, channel, channel, maps)


# Tiles to points and back


class Cut(NamedTuple):
    """How maps are cut into tiles; one begins ``above`` and ``before`` its place, and ends as far beyond."""

    rows: int
    columns: int
    height: int
    """Pixels from one row of tiles to the next; ``width``: from one column to the next."""
    width: int
    above: int
    before: int
    points_down: int
    points_across: int


def to_points(maps: np.ndarray, values: np.ndarray, down: np.ndarray, across: np.ndarray, cut: Cut) -> None:
    """Fill ``values`` with ``down @ tile @ across.T`` for each tile of the maps; beyond those is zero.

    Args:
        maps: ``[N, H, W, C]``.
        values: ``[points, N · rows · columns, C]``.
        down: ``[points down, 8]``, of a tile's rows and zeros.
        across: ``[points across, 8]``, of a tile's columns and zeros.
        cut: into tiles.
    """
    given = (maps.reshape(-1), maps.shape, values.reshape(-1), down, across, cut)
    _share(_to_points, _to_points_together, len(maps), *given)


def from_points(values: np.ndarray, maps: np.ndarray, down: np.ndarray, across: np.ndarray, cut: Cut) -> None:
    """Fill the maps with tiles ``down @ value @ across.T``, added up where they overlap.

    Args:
        values: ``[points, N · rows · columns, C]``.
        maps: ``[N, H, W, C]``.
        down: ``[rows of a tile, 8]``, of the points down and zeros.
        across: ``[columns of a tile, 8]``, of the points across and zeros.
        cut: into tiles.
    """
    given = (maps.reshape(-1), maps.shape, values.reshape(-1), down, across, cut)
    _share(_from_points, _from_points_together, len(maps), *given)


@_inlined
def _combine(out, at, source, start, stride, matrix, row, length):
    """``out[at + c] = Σ matrix[row, k] · source[start + k · stride + c]`` for each c below the length."""
    m0, m1, m2, m3 = matrix[row, 0], matrix[row, 1], matrix[row, 2], matrix[row, 3]
    m4, m5, m6, m7 = matrix[row, 4], matrix[row, 5], matrix[row, 6], matrix[row, 7]
    s1 = start + stride
    s2 = s1 + stride
    s3 = s2 + stride
    s4 = s3 + stride
    s5 = s4 + stride
    s6 = s5 + stride
    s7 = s6 + stride
    for c in range(length):
        out[at + c] = (
            m0 * source[start + c] + m1 * source[s1 + c] + m2 * source[s2 + c] + m3 * source[s3 + c]
            + m4 * source[s4 + c] + m5 * source[s5 + c] + m6 * source[s6 + c] + m7 * source[s7 + c]
        )  # fmt: skip


@_inlined
def _combine_some(out, at, source, start, stride, matrix, row, terms, length):
    """Do so where only the first numbers of a row are not zero: a tile of outputs has six pixels at most."""
    if terms > 6:
        _combine(out, at, source, start, stride, matrix, row, length)
        return
    m0, m1, m2 = matrix[row, 0], matrix[row, 1], matrix[row, 2]
    m3, m4, m5 = matrix[row, 3], matrix[row, 4], matrix[row, 5]
    s1 = start + stride
    s2 = s1 + stride
    s3 = s2 + stride
    s4 = s3 + stride
    s5 = s4 + stride
    if terms > 3:
        for c in range(length):
            out[at + c] = (
                m0 * source[start + c] + m1 * source[s1 + c] + m2 * source[s2 + c]
                + m3 * source[s3 + c] + m4 * source[s4 + c] + m5 * source[s5 + c]
            )  # fmt: skip
    else:
        for c in range(length):
            out[at + c] = m0 * source[start + c] + m1 * source[s1 + c] + m2 * source[s2 + c]


@_inlined
def _corner(number, cut):
    """Return the picture of a tile, and the row and column of its first pixel."""
    picture, place = divmod(number, cut.rows * cut.columns)
    top = place // cut.columns * cut.height - cut.above
    return picture, top, place % cut.columns * cut.width - cut.before


@_compiled
def _to_points(maps, shape, values, down, across, cut, first, last):
    """Do so for the pictures from first to last. Unsigned numbers spare the look for negative ones."""
    pictures, height, width, channels = shape
    tiles, run = cut.rows * cut.columns, min(channels, CHANNELS)
    tall, wide = cut.height + 2 * cut.above, cut.width + 2 * cut.before
    line, across_line = np.uintp(LENGTH * run), np.uintp(wide * run)
    tile, half = np.zeros(LENGTH * line, maps.dtype), np.zeros(LENGTH * line, maps.dtype)
    for number in range(first * tiles, last * tiles):
        picture, top, left = _corner(number, cut)
        for channel in range(0, channels, run):
            some = np.uintp(min(run, channels - channel))
            for i in range(tall):
                for j in range(wide):
                    at, y, x = np.uintp((i * LENGTH + j) * run), top + i, left + j
                    if 0 <= y < height and 0 <= x < width:
                        source = np.uintp(((picture * height + y) * width + x) * channels + channel)
                        for c in range(some):
                            tile[at + c] = maps[source + c]
                    else:
                        for c in range(some):
                            tile[at + c] = 0
            for i in range(cut.points_down):
                _combine_some(half, np.uintp(i) * line, tile, np.uintp(0), line, down, i, tall, across_line)
            for i in range(cut.points_down):
                for j in range(cut.points_across):
                    point = i * cut.points_across + j
                    at = np.uintp((point * pictures * tiles + number) * channels + channel)
                    _combine_some(values, at, half, np.uintp(i) * line, np.uintp(run), across, j, wide, some)


@_compiled
def _from_points(maps, shape, values, down, across, cut, first, last):
    """Do so for the pictures from first to last."""
    pictures, height, width, channels = shape
    tiles, run = cut.rows * cut.columns, min(channels, CHANNELS)
    line, across_line = np.uintp(LENGTH * run), np.uintp(cut.points_across * run)
    tile, half = np.zeros(LENGTH * line, maps.dtype), np.zeros(LENGTH * line, maps.dtype)
    pixel = np.zeros(run, maps.dtype)
    overlap = cut.above + cut.before > 0
    if overlap:
        maps[first * height * width * channels : last * height * width * channels] = 0
    for number in range(first * tiles, last * tiles):
        picture, top, left = _corner(number, cut)
        for channel in range(0, channels, run):
            some = np.uintp(min(run, channels - channel))
            for i in range(cut.points_down):
                for j in range(cut.points_across):
                    at, point = np.uintp((i * LENGTH + j) * run), i * cut.points_across + j
                    source = np.uintp((point * pictures * tiles + number) * channels + channel)
                    for c in range(some):
                        tile[at + c] = values[source + c]
            for i in range(len(down)):
                _combine(half, np.uintp(i) * line, tile, np.uintp(0), line, down, i, across_line)
            for i in range(len(down)):
                for j in range(len(across)):
                    start, y, x = np.uintp(i) * line, top + i, left + j
                    if 0 <= y < height and 0 <= x < width:
                        at = np.uintp(((picture * height + y) * width + x) * channels + channel)
                        if overlap:
                            _combine(pixel, np.uintp(0), half, start, np.uintp(run), across, j, some)
                            for c in range(some):
                                maps[at + c] += pixel[c]
                        else:
                            _combine(maps, at, half, start, np.uintp(run), across, j, some)


@_parallel
def _to_points_together(maps, shape, values, down, across, cut, pictures, chunks):
    for k in prange(chunks):
        first, last = pictures * k // chunks, pictures * (k + 1) // chunks
        _to_points(maps, shape, values, down, across, cut, first, last)


@_parallel
def _from_points_together(maps, shape, values, down, across, cut, pictures, chunks):
    for k in prange(chunks):
        first, last = pictures * k // chunks, pictures * (k + 1) // chunks
        _from_points(maps, shape, values, down, across, cut, first, last)


# Pooling of what a batch norm will scale


def pool(maps: np.ndarray, sign: np.ndarray, pooled: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Find the largest of each 2 by 2 pixels times ``sign``, and on the way what the statistics need.

    Args:
        maps: ``[N, H, W, C]``, H and W even.
        sign: ``[C]``, each -1, 0 or 1.
        pooled: ``[N, H / 2, W / 2, C]``, to be filled with the pixels found.
        places: the same shape as uint8, to be filled with which of the four it was, the first where equal.

    Returns:
        ``[2, C]`` as float64: mean and variance (divided by the number of pixels) of each channel.
    """
    num, height, width, channels = maps.shape
    centre = maps[0, height // 2, width // 2].copy()  # of the order of the mean, so that squares stay small
    sums = np.zeros((num, 2, channels))
    given = (maps.reshape(-1), maps.shape, sign, centre, pooled.reshape(-1), places.reshape(-1), sums)
    _share(_pool, _pool_together, num, *given)
    mean, square = sums.sum(0) / (num * height * width)
    return np.stack([mean + centre, square - mean**2])


def unpool(
    gradient: np.ndarray,
    places: np.ndarray,
    maps: np.ndarray,
    slope: np.ndarray,
    shift: np.ndarray,
    answer: np.ndarray,
) -> None:
    """Fill ``answer`` with ``slope · maps + shift``, and add the gradient at the places it came from.

    Args:
        gradient: ``[N, H / 2, W / 2, C]``.
        places: from :func:`pool`.
        maps: ``[N, H, W, C]``.
        slope: ``[C]``.
        shift: ``[C]``.
        answer: ``[N, H, W, C]``.
    """
    flat = (each.reshape(-1) for each in (gradient, places, maps))
    given = (*flat, maps.shape, slope, shift, answer.reshape(-1))
    _share(_unpool, _unpool_together, len(maps), *given)


@_compiled
def _pool(maps, shape, sign, centre, pooled, places, sums, first, last):
    _, height, width, channels = shape
    right, below = np.uintp(channels), np.uintp(width * channels)
    some, some_squares = np.zeros(channels, maps.dtype), np.zeros(channels, maps.dtype)
    for row in range(first * height // 2, last * height // 2):
        some[:] = 0
        some_squares[:] = 0
        for column in range(width // 2):
            at = np.uintp((row * width // 2 + column) * channels)
            a = np.uintp((2 * row * width + 2 * column) * channels)
            b, d = a + right, a + below
            e = d + right
            for c in range(right):
                largest, found, place = sign[c] * maps[a + c], maps[a + c], np.uint8(0)
                value = sign[c] * maps[b + c]
                if value > largest:
                    largest, found, place = value, maps[b + c], np.uint8(1)
                value = sign[c] * maps[d + c]
                if value > largest:
                    largest, found, place = value, maps[d + c], np.uint8(2)
                value = sign[c] * maps[e + c]
                if value > largest:
                    largest, found, place = value, maps[e + c], np.uint8(3)
                pooled[at + c], places[at + c] = found, place
            for c in range(right):
                one, two = maps[a + c] - centre[c], maps[b + c] - centre[c]
                three, four = maps[d + c] - centre[c], maps[e + c] - centre[c]
                some[c] += (one + two) + (three + four)
                some_squares[c] += (one * one + two * two) + (three * three + four * four)
        picture = row // (height // 2)
        for c in range(channels):  # a row at a time: a long sum in single precision would lose digits
            sums[picture, 0, c] += some[c]
            sums[picture, 1, c] += some_squares[c]


@_compiled
def _unpool(gradient, places, maps, shape, slope, shift, answer, first, last):
    _, height, width, channels = shape
    for row in range(first * height // 2, last * height // 2):
        for column in range(width // 2):
            at = np.uintp((row * width // 2 + column) * channels)
            for place in range(4):
                y, x = 2 * row + place // 2, 2 * column + place % 2
                pixel, this = np.uintp((y * width + x) * channels), np.uint8(place)
                for c in range(np.uintp(channels)):
                    value = slope[c] * maps[pixel + c] + shift[c]
                    if places[at + c] == this:
                        value += gradient[at + c]
                    answer[pixel + c] = value


@_parallel
def _pool_together(maps, shape, sign, centre, pooled, places, sums, pictures, chunks):
    for k in prange(chunks):
        first, last = pictures * k // chunks, pictures * (k + 1) // chunks
        _pool(maps, shape, sign, centre, pooled, places, sums, first, last)


@_parallel
def _unpool_together(gradient, places, maps, shape, slope, shift, answer, pictures, chunks):
    for k in prange(chunks):
        first, last = pictures * k // chunks, pictures * (k + 1) // chunks
        _unpool(gradient, places, maps, shape, slope, shift, answer, first, last)
