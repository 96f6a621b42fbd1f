"""Metrics of predictions: pure functions of numpy arrays, each with its confidence interval.

``intervals`` holds confidence intervals of proportions and means, ``scores`` per-example losses of probabilities,
``scaling`` recalibration, ``conformal`` sets of classes, ``calibration`` reliability bins and the expected calibration
error, ``selective`` the error among the most certain examples, ``corruption`` the corruption error, ``uncertainty``
uncertainty scores, ``ranking`` how well a score separates out-of-distribution from in-distribution examples,
``transmission`` the mutual information of predictions and labels, and ``crossed`` means over draws and examples. Import
from here: ``from isthmus.metrics import wilson``.
"""

from isthmus.metrics.calibration import Bin, Scheme, bin_edges, calibration_error, ece, reliability_bins
from isthmus.metrics.conformal import aps_scores, conformal_threshold, coverage_range, lac_scores
from isthmus.metrics.corruption import (
    ALEXNET,
    ALEXNET_CLEAN,
    CORRUPTIONS,
    SEVERITIES,
    corruption_errors,
    mean_corruption_error,
    relative_mean_corruption_error,
)
from isthmus.metrics.corruption_intervals import (
    errors_by_severity,
    mce_shares,
    measured_error,
    measured_mce,
    measured_relative_mce,
)
from isthmus.metrics.crossed import crossed_mean
from isthmus.metrics.intervals import (
    accuracy,
    bootstrap,
    clopper_pearson,
    difference,
    mean,
    mean_difference,
    norm_of_mean,
    paired_difference,
    proportion,
    wilson,
)
from isthmus.metrics.ranking import aupr, auroc, fpr_at_tpr, roc_curve
from isthmus.metrics.ranking_intervals import DETECTION, detection_metrics
from isthmus.metrics.scaling import fit_isotonic, fit_temperature, fit_vector
from isthmus.metrics.scores import brier, nll, prediction_margin, probabilities
from isthmus.metrics.selective import SELECTIVE, aurc, risk_coverage, selective_metrics
from isthmus.metrics.transmission import transmitted_bits
from isthmus.metrics.uncertainty import energy, entropy, least_confidence, negative_max_logit

__all__ = [
    "ALEXNET",
    "ALEXNET_CLEAN",
    "CORRUPTIONS",
    "DETECTION",
    "SELECTIVE",
    "SEVERITIES",
    "Bin",
    "Scheme",
    "accuracy",
    "aps_scores",
    "aupr",
    "aurc",
    "auroc",
    "bin_edges",
    "bootstrap",
    "brier",
    "calibration_error",
    "clopper_pearson",
    "conformal_threshold",
    "corruption_errors",
    "coverage_range",
    "crossed_mean",
    "detection_metrics",
    "difference",
    "ece",
    "energy",
    "entropy",
    "errors_by_severity",
    "fit_isotonic",
    "fit_temperature",
    "fit_vector",
    "fpr_at_tpr",
    "lac_scores",
    "least_confidence",
    "mce_shares",
    "mean",
    "mean_corruption_error",
    "mean_difference",
    "measured_error",
    "measured_mce",
    "measured_relative_mce",
    "negative_max_logit",
    "nll",
    "norm_of_mean",
    "paired_difference",
    "prediction_margin",
    "probabilities",
    "proportion",
    "relative_mean_corruption_error",
    "reliability_bins",
    "risk_coverage",
    "roc_curve",
    "selective_metrics",
    "transmitted_bits",
    "wilson",
]
