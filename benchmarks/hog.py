"""How much sooner HOG and the SVM are ready than by the loop and the class that everybody uses.

    python -m benchmarks.hog                    drawn faces
    python -m benchmarks.hog --data FOLDER      FER2013 in FOLDER; all of it: --svm-faces 28709 --repeats 1

Both sides take turns in one process, so that a busy machine slows both; the ratio is taken turn by turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from skimage import feature
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from helpers import datasets, hog, runtime

C, GAMMA_FACTOR = 3.0, 2.0  # near what validation chooses on FER2013


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder that holds FER2013; without it, drawn faces")
    parser.add_argument("--faces", type=int, default=1000, help="faces to describe by HOG")
    parser.add_argument("--svm-faces", type=int, default=3000, help="faces to train the SVM on")
    parser.add_argument("--repeats", type=int, default=5, help="turns for each row of the table")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch and BLAS")
    return parser.parse_args()


def load(options: argparse.Namespace) -> tuple[datasets.FaceSet, datasets.FaceSet]:
    """Return training and test faces.

    Args:
        options: the command line's.
    """
    if options.data:
        train, _, test = datasets.load("fer2013", options.data).splits(validation=0, leaks="keep")
    else:
        faces = datasets.load("synthetic", num_faces=2 * options.svm_faces)
        train, _, test = faces.splits(validation=0, test=0.5)
    return train.select(slice(options.svm_faces)), test


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Return how many seconds a function took, and its result.

    Args:
        work: the function.
    """
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def compare(what: str, usual: Callable, ours: Callable, difference: Callable, repeats: int) -> dict:
    """Return one row of the table.

    Args:
        what: name of the row.
        usual: the code everybody writes.
        ours: the code that should give the same, sooner.
        difference: a text from the results of both.
        repeats: how often each runs, in turn.
    """
    turns = [(timed(usual), timed(ours)) for _ in range(repeats)]
    seconds = np.array([[a[0], b[0]] for a, b in turns])
    ratio = seconds[:, 0] / seconds[:, 1]
    (_, wanted), (_, got) = turns[-1]
    return {
        "what": what,
        "usual (s)": np.median(seconds[:, 0]),
        "ours (s)": np.median(seconds[:, 1]),
        "times faster": np.median(ratio),
        "lowest": ratio.min(),
        "highest": ratio.max(),
        "difference": difference(wanted, got),
    }


def hog_rows(images: np.ndarray, repeats: int) -> list[dict]:
    """Return a row for each of a few HOG settings.

    Args:
        images: uint8 ``[N, H, W]``.
        repeats: turns a row.
    """
    rows = []
    for side, orientations in ((8, 9), (6, 8), (12, 9)):
        settings = {"orientations": orientations, "pixels_per_cell": (side, side), "cells_per_block": (2, 2)}
        hog.hog(images[:2], **settings)  # builds the table, once for all
        rows.append(
            compare(
                f"HOG, cells of {side} px, {orientations} bins",
                lambda s=settings: np.stack([feature.hog(image, **s) for image in images]),
                lambda s=settings: hog.hog(images, **s),
                lambda wanted, got: f"{np.abs(wanted - got).max():.0e} at most",
                repeats,
            )
        )
    return rows


def svm_rows(train: datasets.FaceSet, test: datasets.FaceSet, repeats: int) -> list[dict]:
    """Return a row for fitting with predicting, and one for predicting alone.

    Args:
        train: faces to fit.
        test: faces to predict.
        repeats: turns a row.
    """
    features, unseen = hog.hog(train.images), hog.hog(test.images)
    gamma = GAMMA_FACTOR * hog.gamma_scale(features)

    def usual() -> SVC:
        return SVC(C=C, gamma=gamma, cache_size=1000).fit(features, train.labels)

    def ours() -> hog.SVM:
        return hog.SVM.fit(features, train.labels, train.classes, C=C, gamma=gamma)

    def difference(wanted: np.ndarray, got: np.ndarray) -> str:
        return f"{(wanted != got).sum()} of {len(got)} classes"

    title, svc, svm = f"SVM on {len(train)} faces", usual(), ours()
    return [
        compare(
            f"{title}: fit, predict",
            lambda: usual().predict(unseen),
            lambda: ours().predict(unseen),
            difference,
            repeats,
        ),
        compare(
            f"{title}: predict", lambda: svc.predict(unseen), lambda: svm.predict(unseen), difference, repeats
        ),
    ]


def main() -> None:
    """Print one table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    train, test = load(options)
    with threadpool_limits(options.threads):
        rows = hog_rows(np.array(train.images[: options.faces]), options.repeats)
        rows += svm_rows(train, test, options.repeats)
    print(f"{train.name}, {train.images.shape[-1]} px; {runtime.machine()}")
    print(
        f"HOG of {min(options.faces, len(train))} faces; prediction of {len(test)}; {options.repeats} turns"
    )
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
