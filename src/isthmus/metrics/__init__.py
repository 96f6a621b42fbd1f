"""Numbers about predictions, as pure functions of numpy arrays, each with the interval that belongs to it.

``intervals`` holds confidence intervals of proportions and means, ``scores`` per-example losses of
probabilities, ``calibration`` reliability bins and the expected calibration error, and ``corruption`` the corruption
error. Import from here: ``from isthmus.metrics import wilson``.
"""

from isthmus.metrics.calibration import Bin, Scheme, bin_edges, calibration_error, ece, reliability_bins
from isthmus.metrics.corruption import (
    ALEXNET,
    ALEXNET_CLEAN,
    CORRUPTIONS,
    SEVERITIES,
    corruption_errors,
    mean_corruption_error,
    relative_mean_corruption_error,
)
from isthmus.metrics.corruption_intervals import errors_by_severity, mce_shares, measured_mce, measured_relative_mce
from isthmus.metrics.intervals import (
    accuracy,
    bootstrap,
    clopper_pearson,
    mean,
    norm_of_mean,
    paired_difference,
    proportion,
    wilson,
)
from isthmus.metrics.scores import brier, nll, probabilities

__all__ = [
    "ALEXNET",
    "ALEXNET_CLEAN",
    "CORRUPTIONS",
    "SEVERITIES",
    "Bin",
    "Scheme",
    "accuracy",
    "bin_edges",
    "bootstrap",
    "brier",
    "calibration_error",
    "clopper_pearson",
    "corruption_errors",
    "ece",
    "errors_by_severity",
    "mce_shares",
    "mean",
    "mean_corruption_error",
    "measured_mce",
    "measured_relative_mce",
    "nll",
    "norm_of_mean",
    "paired_difference",
    "probabilities",
    "proportion",
    "relative_mean_corruption_error",
    "reliability_bins",
    "wilson",
]
