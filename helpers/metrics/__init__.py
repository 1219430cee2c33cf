"""Scores of predictions, each a pure function of arrays, and how sure one can be of them.

The truth comes first, the prediction second. N faces, K classes; a class is an integer from 0 to K - 1.
"""

from helpers.metrics.certainty import Interval, bootstrap, mcnemar
from helpers.metrics.classes import (
    PerClass,
    accuracy,
    balanced_accuracy,
    cohens_kappa,
    confusion,
    macro_f1,
    per_class,
)
from helpers.metrics.dimensions import ccc, mae, pearson, r2, rmse, sagr, within_class_ccc
from helpers.metrics.distributions import (
    HIGHER_IS_BETTER,
    canberra,
    chebyshev,
    clark,
    cosine,
    distribution_scores,
    emd,
    entropy,
    intersection,
    js_divergence,
    kl_divergence,
    smoothed,
    split_half,
    squared_error,
    temperature,
    total_variation,
)
from helpers.metrics.during_training import on_dimension, on_labels, on_probabilities
from helpers.metrics.probabilities import (
    calibration,
    expected_calibration_error,
    log_loss,
    log_softmax,
    softmax,
)
from helpers.metrics.raters import fleiss_kappa, krippendorff_alpha, pairwise_agreement, rater_accuracy, tally
from helpers.metrics.thresholds import Curve, average_precision, precision_recall, roc, roc_auc

__all__ = [
    "Curve",
    "HIGHER_IS_BETTER",
    "Interval",
    "PerClass",
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "bootstrap",
    "calibration",
    "canberra",
    "ccc",
    "chebyshev",
    "clark",
    "cohens_kappa",
    "confusion",
    "cosine",
    "distribution_scores",
    "emd",
    "entropy",
    "expected_calibration_error",
    "fleiss_kappa",
    "intersection",
    "js_divergence",
    "kl_divergence",
    "krippendorff_alpha",
    "log_loss",
    "log_softmax",
    "macro_f1",
    "mae",
    "mcnemar",
    "on_dimension",
    "on_labels",
    "on_probabilities",
    "pairwise_agreement",
    "pearson",
    "per_class",
    "precision_recall",
    "r2",
    "rater_accuracy",
    "rmse",
    "roc",
    "roc_auc",
    "sagr",
    "smoothed",
    "softmax",
    "split_half",
    "squared_error",
    "tally",
    "temperature",
    "total_variation",
    "within_class_ccc",
]
