"""Answers to the exercises: each ``check_...`` takes the function you wrote and tries it on random inputs.

It prints a tick, or the first input on which something else was expected; it raises nothing, changes nothing
and tells nobody. An exercise that waits for its answer says so, and the notebook runs on.
"""

from helpers.checks.data import (
    check_eye_opening,
    check_rater_agreement,
    check_split_by_person,
    check_without_copies,
)
from helpers.checks.distributions import (
    check_calibration_error,
    check_jensen_shannon,
    check_ordered_emd,
    check_total_variation,
)
from helpers.checks.edges import check_hinge_loss, check_rbf_kernel, check_soft_histogram
from helpers.checks.heat import check_area, check_pointing_hit, check_rank_correlation, check_weighted_map
from helpers.checks.multitask import check_ccc, check_class_means, check_masked_mse, check_sign_agreement
from helpers.checks.networks import (
    check_class_weights,
    check_cross_entropy,
    check_learning_rate,
    check_output_size,
)
from helpers.checks.transfer import check_freeze, check_grey_stem, check_layer_rates

__all__ = [
    "check_area",
    "check_calibration_error",
    "check_ccc",
    "check_class_means",
    "check_class_weights",
    "check_cross_entropy",
    "check_eye_opening",
    "check_freeze",
    "check_grey_stem",
    "check_hinge_loss",
    "check_jensen_shannon",
    "check_layer_rates",
    "check_learning_rate",
    "check_masked_mse",
    "check_ordered_emd",
    "check_output_size",
    "check_pointing_hit",
    "check_rank_correlation",
    "check_rater_agreement",
    "check_rbf_kernel",
    "check_sign_agreement",
    "check_soft_histogram",
    "check_split_by_person",
    "check_total_variation",
    "check_weighted_map",
    "check_without_copies",
]
