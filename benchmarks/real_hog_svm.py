"""How good HOG with an RBF SVM is on real faces, as the workbook reports it.

    python -m benchmarks.real_hog_svm fer2013 --data FOLDER
    python -m benchmarks.real_hog_svm muxspace --data FOLDER

C and gamma are chosen on validation faces that are cut from the training ones; the machine is then fitted to
both, and the test faces are read once. Writes data/results/hog_svm_<set>.json.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
import sklearn

from benchmarks import records
from helpers import datasets, hog, metrics

COSTS = (1.0, 3.0, 10.0)
GAMMA_FACTORS = (1.0, 2.0, 4.0)  # times hog.gamma_scale


def choose(train: datasets.FaceSet, validation: datasets.FaceSet) -> list[dict]:
    """Return validation accuracy and macro F1 at each point of the grid.

    Args:
        train: faces to fit.
        validation: faces to choose by.
    """
    features, unseen = hog.hog(train.images), hog.hog(validation.images)
    scale, tried = hog.gamma_scale(features), []
    for C, factor in itertools.product(COSTS, GAMMA_FACTORS):
        start = time.perf_counter()
        machine = hog.SVM.fit(features, train.labels, train.classes, C=C, gamma=factor * scale)
        predicted = machine.predict(unseen)
        tried.append(
            {
                "C": C,
                "gamma_factor": factor,
                "accuracy": metrics.accuracy(validation.labels, predicted),
                "macro_f1": metrics.macro_f1(validation.labels, predicted),
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
        print(tried[-1], flush=True)
    return tried


def final(
    learned: datasets.FaceSet, test: datasets.FaceSet, C: float, factor: float
) -> tuple[np.ndarray, dict]:
    """Return the predicted test classes, and what it took.

    Args:
        learned: every face but the test's.
        test: the test faces.
        C: cost.
        factor: gamma in units of hog.gamma_scale.
    """
    watch = [time.perf_counter()]
    features, unseen = hog.hog(learned.images), hog.hog(test.images)
    watch.append(time.perf_counter())
    gamma = factor * hog.gamma_scale(features)
    machine = hog.SVM.fit(features, learned.labels, learned.classes, C=C, gamma=gamma)
    watch.append(time.perf_counter())
    predicted = machine.predict(unseen)
    watch.append(time.perf_counter())
    took = dict(zip(("hog", "fit", "predict"), np.diff(watch).round(1).tolist(), strict=True))
    return predicted, {"gamma": gamma, "support_vectors": len(machine.support_vectors), "seconds": took}


def main() -> None:
    """Choose, fit, read the test once, and write the figures."""
    parser = records.options(__doc__)
    parser.add_argument(
        "--grid-faces", type=int, default=12000, help="training faces that each point of the grid gets"
    )
    parser.add_argument("--select-by", choices=("accuracy", "macro_f1"), default="accuracy")
    options = parser.parse_args()
    faces = datasets.load(options.name, options.data)
    train, validation, test = faces.splits(seed=options.seed, leaks="keep")
    some = np.random.default_rng(options.seed).permutation(len(train))[: options.grid_faces]
    tried = choose(train.select(np.sort(some)), validation)
    best = max(tried, key=lambda point: point[options.select_by])
    learned = datasets.FaceSet(
        faces.name,
        np.concatenate([train.images, validation.images]),
        np.concatenate([train.labels, validation.labels]),
        faces.classes,
        np.concatenate([train.split, validation.split]),
        np.concatenate([train.source, validation.source]),
    )
    predicted, made = final(learned, test, best["C"], best["gamma_factor"])
    record = {
        **records.circumstances(options),
        "versions": {"numpy": np.__version__, "scikit-learn": sklearn.__version__},
        "faces": {"train": len(train), "validation": len(validation), "test": len(test)},
        "hog": hog.DEFAULTS,
        "grid_faces": len(some),
        "validation": tried,
        "chosen": {"C": best["C"], "gamma_factor": best["gamma_factor"], "by": options.select_by} | made,
        **records.test_scores(test, predicted, [train, validation]),
    }
    records.write(f"hog_svm_{options.name}", record)


if __name__ == "__main__":
    main()
