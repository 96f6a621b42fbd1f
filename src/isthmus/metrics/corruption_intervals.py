"""Corruption error measured on images, with its interval: an image counts with all its corrupted versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from isthmus.core.types import Interval, Metric
from isthmus.metrics.corruption import (
    ALEXNET,
    ALEXNET_CLEAN,
    CORRUPTIONS,
    SEVERITIES,
    Errors,
    Floats,
    check_names,
    divisors,
)
from isthmus.metrics.intervals import RESAMPLES, clopper_pearson, mean

RELATIVE = "fraction of the baseline"
"""Unit of numbers that are 1 if a classifier errs as often as the baseline."""


def errors_by_severity(right: Mapping[str, ArrayLike]) -> dict[str, tuple[float, ...]]:
    """Errors of each corruption by severity, from outcomes: booleans 5×n, right or wrong."""
    return {name: tuple(1.0 - np.asarray(flags, dtype=bool).mean(axis=1)) for name, flags in right.items()}


def mce_shares(
    right: Mapping[str, ArrayLike], baseline: Errors | None = ALEXNET, corruptions: Sequence[str] = CORRUPTIONS
) -> Floats:
    """What each image contributes to the mCE: float[n], whose mean is exactly the mCE.

    An mCE is linear in the errors, and all its errors are of the same n images. To compare two classifiers, give the
    difference of their shares to :func:`isthmus.metrics.mean`; that is paired over images, corruptions and severities.

    Args:
        right: of each corruption booleans 5×n: severity 1 … 5, and the images, always in the same order.

    Raises:
        ValueError: as :func:`corruption_errors`, or different numbers of images.
    """
    wrong = 1.0 - _outcomes(right, corruptions).mean(axis=1)
    return np.asarray((wrong / divisors(baseline, corruptions)[:, None]).mean(axis=0), dtype=np.float64)


def measured_error(
    right: Mapping[str, ArrayLike],
    seed: int,
    clean: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Metric:
    """The mean error over all given corruptions and severities, in [0, 1], with an interval as in :func:`measured_mce`.

    Args:
        right: of each corruption booleans s×n: any severities, the same ones of each, and the images, always in the
            same order.
        seed: of the bootstrap.
        clean: bool[n], right or wrong on the same images before they were corrupted. The error is then what corruption
            adds to the clean one, in [−1, 1], and the interval is paired over images.

    Raises:
        ValueError: no corruption, or outcomes of different shapes.
    """
    shapes = {name: np.shape(flags) for name, flags in right.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 2 or shape[0] == 0 for shape in shapes.values()):
        raise ValueError(f"outcomes must be severities × images, of one shape; their shapes are {shapes}")
    wrong = 1.0 - np.mean([np.asarray(flags, dtype=bool).mean(axis=0) for flags in right.values()], axis=0)
    if clean is None:
        return _with_interval(wrong, (0.0, 1.0), "fraction", seed, level, resamples)
    before = np.asarray(clean, dtype=bool).ravel()
    if before.size != wrong.size:
        raise ValueError(f"there are {before.size} clean outcomes but {wrong.size} corrupted images")
    return _with_interval(wrong - (1.0 - before), (-1.0, 1.0), "fraction", seed, level, resamples)


def measured_mce(
    right: Mapping[str, ArrayLike],
    seed: int,
    baseline: Errors | None = ALEXNET,
    corruptions: Sequence[str] = CORRUPTIONS,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Metric:
    """The mCE of n images with an interval over images, as a fraction.

    The interval is a percentile bootstrap of the images' :func:`mce_shares`: an image is drawn with all its corrupted
    versions, which err together, so intervals that take the 75 errors for independent would be too narrow. The
    baseline's errors count as known. If all images contribute equally (for example without errors), a bootstrap has no
    width; the interval then assumes that at most a fraction u of images (Clopper & Pearson) differs.

    Args:
        right: as in :func:`mce_shares`.
        seed: of the bootstrap.

    Raises:
        ValueError: as :func:`mce_shares`.
    """
    values = mce_shares(right, baseline, corruptions)
    most = float(np.mean(1.0 / divisors(baseline, corruptions)))
    unit = "fraction" if baseline is None else RELATIVE
    return _with_interval(values, (0.0, most), unit, seed, level, resamples)


def measured_relative_mce(
    right: Mapping[str, ArrayLike],
    clean: ArrayLike,
    seed: int,
    baseline: tuple[Errors, float] = (ALEXNET, ALEXNET_CLEAN),
    corruptions: Sequence[str] = CORRUPTIONS,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Metric:
    """The relative mCE of n images with an interval over images, made as in :func:`measured_mce`.

    Args:
        right: as in :func:`mce_shares`.
        clean: bool[n], right or wrong on the same images before they were corrupted, in the same order.
        baseline: its errors under corruption and on clean images.

    Raises:
        ValueError: as :func:`mce_shares` and :func:`relative_mean_corruption_error`.
    """
    outcomes = _outcomes(right, corruptions)
    before = np.asarray(clean, dtype=bool).ravel()
    if before.size != outcomes.shape[2]:
        raise ValueError(f"there are {before.size} clean outcomes but {outcomes.shape[2]} corrupted images")
    below = divisors(baseline[0], corruptions, baseline[1])
    added = before.astype(np.float64) - outcomes.mean(axis=1)
    most = float(np.mean(1.0 / below))
    return _with_interval((added / below[:, None]).mean(axis=0), (-most, most), RELATIVE, seed, level, resamples)


def _with_interval(
    values: Floats, bounds: tuple[float, float], unit: str, seed: int, level: float, resamples: int
) -> Metric:
    if values.size == 0 or np.ptp(values) > 0:
        return mean(values, unit, seed, level, resamples)
    same = float(values[0])
    others = clopper_pearson(0, values.size, level).high
    low, high = (same + others * (bound - same) for bound in bounds)
    interval = Interval(low=low, high=high, level=level, method="Clopper-Pearson, of images unlike those seen")
    return Metric(value=same, unit=unit, n=values.size, interval=interval)


def _outcomes(right: Mapping[str, ArrayLike], corruptions: Sequence[str]) -> Floats:
    """Outcomes as 0 and 1, corruptions × severities × images."""
    check_names(right, corruptions, "the outcomes")
    flags = {name: np.asarray(right[name], dtype=bool) for name in corruptions}
    for name, each in flags.items():
        if each.ndim != 2 or len(each) != len(SEVERITIES):
            raise ValueError(f"the outcomes of {name} have the shape {each.shape}; expected (5 severities, images)")
    sizes = {each.shape[1] for each in flags.values()}
    if len(sizes) != 1:
        raise ValueError(f"all corruptions must be of the same images; their numbers are {sorted(sizes)}")
    return np.stack([flags[name] for name in corruptions]).astype(np.float64)
