"""How much sooner HOG and the SVM are ready than by the loop and the class that everybody uses.

    python -m benchmarks.hog                    drawn faces
    python -m benchmarks.hog --set fer2013 --data FOLDER     all of it: --svm-faces 28709 --rounds 1

Both sides take turns in one process, so that a busy machine slows both; the ratio is taken turn by turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from skimage import feature
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from benchmarks import records
from helpers import datasets, hog, runtime

C, GAMMA_FACTOR = 3.0, 2.0  # near what validation chooses on FER2013


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Return how many seconds a function took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def compare(what: str, usual: Callable, ours: Callable, rounds: int) -> dict:
    """Return one row of the table: seconds of the usual code and of ours, in turn, and how results differ."""
    turns = [(timed(usual), timed(ours)) for _ in range(rounds)]
    seconds = np.array([[a[0], b[0]] for a, b in turns])
    ratio = seconds[:, 0] / seconds[:, 1]
    wanted, got = (np.asarray(side[1]) for side in turns[-1])
    row = {"what": what, "usual (s)": np.median(seconds[:, 0]), "ours (s)": np.median(seconds[:, 1])}
    row |= {"times faster": np.median(ratio), "lowest": ratio.min(), "highest": ratio.max()}
    return row | {"largest difference": np.abs(wanted - got).max(), "differing": (wanted != got).mean()}


def hog_rows(images: np.ndarray, rounds: int) -> list[dict]:
    """Return a row for each of a few HOG settings."""
    rows = []
    for side, orientations in ((8, 9), (6, 8), (12, 9)):
        settings = {"orientations": orientations, "pixels_per_cell": (side, side), "cells_per_block": (2, 2)}
        hog.hog(images[:2], **settings)  # builds the table, once for all

        def usual(settings: dict = settings) -> np.ndarray:
            return np.stack([feature.hog(image, **settings) for image in images])

        def ours(settings: dict = settings) -> np.ndarray:
            return hog.hog(images, **settings)

        rows.append(compare(f"HOG, cells of {side} px, {orientations} bins", usual, ours, rounds))
    return rows


def svm_rows(train: datasets.FaceSet, test: datasets.FaceSet, rounds: int) -> list[dict]:
    """Return a row for fitting with predicting, and one for predicting alone."""
    features, unseen = hog.hog(train.images), hog.hog(test.images)
    gamma = GAMMA_FACTOR * hog.gamma_scale(features)

    def usual() -> SVC:
        return SVC(C=C, gamma=gamma, cache_size=1000).fit(features, train.labels)

    def ours() -> hog.SVM:
        return hog.SVM.fit(features, train.labels, train.classes, C=C, gamma=gamma)

    title, svc, svm = f"SVM on {len(train)} faces", usual(), ours()
    both = compare(
        f"{title}: fit, predict", lambda: usual().predict(unseen), lambda: ours().predict(unseen), rounds
    )
    return [
        both,
        compare(f"{title}: predict", lambda: svc.predict(unseen), lambda: svm.predict(unseen), rounds),
    ]


def main() -> None:
    """Print one table."""
    options = records.parser(__doc__, set="synthetic", faces=1000, svm_faces=3000, rounds=5).parse_args()
    torch.set_num_threads(options.threads)
    if options.set == "synthetic":
        every = datasets.load("synthetic", options.data, num_faces=2 * options.svm_faces)
        train, _, test = every.splits(validation=0, test=0.5)
    else:
        train, _, test = datasets.load(options.set, options.data).splits(validation=0, leaks="keep")
    train = train.select(slice(options.svm_faces))
    with threadpool_limits(options.threads):
        rows = hog_rows(np.array(train.images[: options.faces]), options.rounds)
        rows += svm_rows(train, test, options.rounds)
    print(f"{train.name}, {train.images.shape[-1]} px; {options.rounds} rounds; {runtime.machine()}")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
