"""How good HOG with an RBF SVM is on real faces, as the workbook reports it.

    python -m benchmarks.real_hog_svm fer2013 --data FOLDER
    python -m benchmarks.real_hog_svm muxspace --data FOLDER

C and gamma are chosen on validation faces that are cut from the training ones; the machine is then fitted to
both, and the test faces are read once. Writes data/results/hog_svm_<set>.json.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import shlex
import sys
import time

import numpy as np
import sklearn

from helpers import datasets, files, hog, metrics, runtime

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


def scores(test: datasets.FaceSet, predicted: np.ndarray, majority: int) -> dict:
    """Return accuracy and macro F1 with 95 % intervals; where people are known, whole people are drawn.

    Args:
        test: the faces.
        predicted: their predicted classes.
        majority: the class that the baseline always names.
    """
    always = np.full(len(test), majority)

    def interval(statistic, answers: np.ndarray) -> dict:
        found = metrics.bootstrap(statistic, test.labels, answers, groups=test.subject)
        return {"value": found.value, "low": found.low, "high": found.high}

    return {
        "faces": len(test),
        "accuracy": interval(metrics.accuracy, predicted),
        "macro_f1": interval(metrics.macro_f1, predicted),
        "majority_accuracy": interval(metrics.accuracy, always),
        "majority_macro_f1": interval(metrics.macro_f1, always),
        "mcnemar_p_against_majority": metrics.mcnemar(test.labels, predicted, always),
    }


def main() -> None:
    """Choose, fit, read the test once, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=("fer2013", "muxspace"))
    parser.add_argument("--data", required=True, help="folder that holds the set")
    parser.add_argument("--seed", type=int, default=0, help="of the cut")
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
    majority, copied = int(np.bincount(learned.labels).argmax()), datasets.leaked(test, learned)
    record = {
        "set": options.name,
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.real_hog_svm", *sys.argv[1:]]),
        "seed": options.seed,
        "machine": runtime.machine() | {"numpy": np.__version__, "scikit-learn": sklearn.__version__},
        "faces": {"train": len(train), "validation": len(validation), "test": len(test)},
        "hog": hog.DEFAULTS,
        "grid_faces": len(some),
        "validation": tried,
        "chosen": {"C": best["C"], "gamma_factor": best["gamma_factor"], "by": options.select_by} | made,
        "test": scores(test, predicted, majority),
        "test_without_leaked": scores(test.select(~copied), predicted[~copied], majority),
        "leaked": int(copied.sum()),
        "per_class_f1": dict(
            zip(
                faces.classes,
                metrics.per_class(test.labels, predicted, len(faces.classes)).f1.round(4).tolist(),
                strict=True,
            )
        ),
    }
    with files.replacing(f"data/results/hog_svm_{options.name}.json") as file:
        file.write(json.dumps(record, indent=1).encode())
    print(json.dumps({key: record[key] for key in ("chosen", "test", "test_without_leaked")}, indent=1))


if __name__ == "__main__":
    main()
