"""Corruption error: errors on corrupted images relative to a baseline (Hendrycks & Dietterich 2019).

For corruption c at severity s = 1 … 5 let E_{c,s} be a classifier's error and B_{c,s} the baseline's. Then

    CE_c = Σ_s E_{c,s} / Σ_s B_{c,s}                        the corruption error
    mCE  = mean of CE_c over the 15 corruptions
    relative CE_c = Σ_s (E_{c,s} − E_clean) / Σ_s (B_{c,s} − B_clean)

Everything is a fraction here: errors lie in [0, 1], and the baseline's own mCE is 1. Papers print percentages.
Without a baseline, CE_c is the mean error over severities, which the CEB paper calls the average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Errors = Mapping[str, float | Sequence[float]]
"""For each corruption, its five errors by severity, or their mean; in [0, 1]."""
Floats = NDArray[np.float64]

SEVERITIES = (1, 2, 3, 4, 5)
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
        "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        "weather": ("snow", "frost", "fog", "brightness"),
        "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
        "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
    }
)
"""All published corruptions in the archives they come in. Those of "extra" were held out and do not count in an mCE."""
CORRUPTIONS = tuple(name for group, names in GROUPS.items() if group != "extra" for name in names)
"""The 15 corruptions of an mCE."""
ALEXNET: Errors = MappingProxyType(
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    }
)
"""AlexNet's mean errors on ImageNet-C, as the benchmark's authors publish them. With these, all twelve mCEs of the CEB
paper's tables 1 and 2 follow from their rows to within a tenth of a percent."""
ALEXNET_CLEAN = 0.435
"""AlexNet's error on clean ImageNet (Hendrycks & Dietterich 2019, table 1, in tenths of a percent)."""


def corruption_errors(
    errors: Errors, baseline: Errors | None = ALEXNET, corruptions: Sequence[str] = CORRUPTIONS
) -> dict[str, float]:
    """CE_c of each corruption, as a fraction: 1 is as many errors as the baseline makes.

    Args:
        baseline: whose errors to divide by; None for no division.
        corruptions: the ones to use; others are ignored.

    Raises:
        ValueError: a corruption is missing from either, does not have five severities, or an error lies outside [0, 1]
            (percents, say) or, in the baseline, is zero.
    """
    relative = _means(errors, corruptions, "the errors") / divisors(baseline, corruptions)
    return {name: float(value) for name, value in zip(corruptions, relative, strict=True)}


def mean_corruption_error(
    errors: Errors, baseline: Errors | None = ALEXNET, corruptions: Sequence[str] = CORRUPTIONS
) -> float:
    """The mCE as a fraction (CEB paper, eq 9). Without a baseline, the average error over all corruptions.

    Raises:
        ValueError: as :func:`corruption_errors`.
    """
    return float(np.mean(list(corruption_errors(errors, baseline, corruptions).values())))


def relative_mean_corruption_error(
    errors: Errors,
    clean: float,
    baseline: Errors = ALEXNET,
    baseline_clean: float = ALEXNET_CLEAN,
    corruptions: Sequence[str] = CORRUPTIONS,
) -> float:
    """The relative mCE as a fraction: how much corruption adds to the clean error, relative to the baseline.

    Args:
        clean, baseline_clean: errors on the clean images, in [0, 1].

    Raises:
        ValueError: as :func:`corruption_errors`, or corruption adds nothing to the baseline's error.
    """
    _check_fractions(np.array([clean, baseline_clean]), "an error on clean images")
    added = _means(errors, corruptions, "the errors") - clean
    return float(np.mean(added / divisors(baseline, corruptions, baseline_clean)))


def _means(errors: Errors, corruptions: Sequence[str], what: str) -> Floats:
    """Mean over severities of each corruption, float[corruptions], checked."""
    check_names(errors, corruptions, what)
    found = np.empty(len(corruptions))
    for index, name in enumerate(corruptions):
        values = np.asarray(errors[name], dtype=np.float64)
        if values.shape not in {(), (len(SEVERITIES),)}:
            raise ValueError(
                f"{what} of {name} have the shape {values.shape}; expected one of each severity 1 to 5, or their mean"
            )
        _check_fractions(values, f"{what}: one of {name}")
        found[index] = values.mean()
    return found


def divisors(baseline: Errors | None, corruptions: Sequence[str], clean: float = 0.0) -> Floats:
    """Mean error of the baseline over severities, less its error on clean images: float[corruptions], all above zero.

    Raises:
        ValueError: as :func:`corruption_errors`.
    """
    errors = dict.fromkeys(corruptions, 1.0) if baseline is None else baseline
    found = _means(errors, corruptions, "the baseline's errors") - clean
    for name, value in zip(corruptions, found, strict=True):
        if value <= 0:
            raise ValueError(f"{name} adds {value:g} to the baseline's error, and nothing can be divided by that")
    return found


def check_names(given: Mapping[str, object], corruptions: Sequence[str], what: str) -> None:
    """Raise ValueError with the names of missing corruptions, if any."""
    if not corruptions:
        raise ValueError("a mean over no corruptions is not defined")
    missing = [name for name in corruptions if name not in given]
    if missing:
        raise ValueError(
            f"{what} lack {len(missing)} of {len(corruptions)} corruptions: {', '.join(missing)}; measure them, or "
            "name in `corruptions` those to average over (which is then not the benchmark's mCE)"
        )


def _check_fractions(values: Floats, what: str) -> None:
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{what} is {values}; errors are fractions in [0, 1] (divide percents by 100)")
