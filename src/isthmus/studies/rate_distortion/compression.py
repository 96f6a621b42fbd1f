"""By how much I(X;T) falls after its greatest value, beyond what noise alone would show.

The greatest value of a noisy course exceeds its last values even if nothing falls, and the largest fall of several
layers does so even more: such a statistic is at least 0 by construction. It is therefore compared with the same
statistic of noise alone: the seed's difference from the mean over seeds, which has the noise's size and autocorrelation
and no trend that all seeds share, with either sign. Where nothing falls, noise without the course has the same
statistic on average, or a larger one, since a rising course hides falls of its noise. Real differences between seeds
count as noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

WINDOWS = 10
"""A course is smoothed by means over this part of it."""


def fall(courses: ArrayLike) -> Floats:
    """From the greatest mean over a tenth of a course to that over its last tenth, along the last axis; at least 0."""
    values = np.asarray(courses, dtype=np.float64)
    width = max(1, values.shape[-1] // WINDOWS)
    means = np.lib.stride_tricks.sliding_window_view(values, width, axis=-1).mean(-1)
    fallen: Floats = means.max(-1) - means[..., -1]
    return fallen


def largest_falls(seeds: Sequence[ArrayLike]) -> list[float]:
    """:func:`fall` of each seed, in the layer that falls most.

    Args:
        seeds: of each seed the course of each layer, layers × looks.
    """
    return [float(fall(each).max()) for each in seeds]


def net_falls(seeds: Sequence[ArrayLike]) -> list[float]:
    """:func:`largest_falls` less those of noise alone, one for each seed, of either sign.

    Where no layer's expected course falls, and the noise is as likely as its negative, their expectation is at most 0.

    Args:
        seeds: of each seed the course of each layer, layers × looks.

    Raises:
        ValueError: fewer than two seeds, which leave no noise to look at, or courses of different shapes.
    """
    if len(seeds) < 2:
        raise ValueError(f"noise is told from other seeds, so two are needed at least; got {len(seeds)}")
    courses = np.stack([np.asarray(each, dtype=np.float64) for each in seeds])
    noise = (courses - courses.mean(0)) * math.sqrt(len(seeds) / (len(seeds) - 1))
    alone = (fall(noise).max(-1) + fall(-noise).max(-1)) / 2
    return [float(each) for each in fall(courses).max(-1) - alone]
