"""Numbers of each seed from courses over training: arrays seeds × layers × epochs, or seeds × epochs.

The greatest value of a noisy course exceeds its last values even if nothing falls, and the largest fall of several
layers does so even more: such a statistic is at least 0 by construction. :func:`net_falls` therefore compares it with
the same statistic of noise alone: the seed's difference from the mean over seeds, which has the noise's size and
autocorrelation and no trend that all seeds share, with either sign. If nothing falls, noise without the course has the
same statistic on average, or a larger one, since a rising course hides falls of its noise. Real differences between
seeds count as noise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WINDOWS = 10
"""Courses are smoothed by means over this part of them."""
NEAR = 0.25
"""Decades within which a ratio counts as having settled."""


def fall(courses: Floats) -> Floats:
    """From the greatest mean over a tenth of a course to that over its last tenth, along the last axis; at least 0."""
    width = max(1, courses.shape[-1] // WINDOWS)
    means = np.lib.stride_tricks.sliding_window_view(courses, width, axis=-1).mean(-1)
    fallen: Floats = means.max(-1) - means[..., -1]
    return fallen


def largest_falls(courses: Floats) -> Floats:
    """:func:`fall` of each seed, in the layer that falls most."""
    largest: Floats = fall(courses).max(-1)
    return largest


def net_falls(courses: Floats) -> Floats:
    """:func:`largest_falls` less those of noise alone, of either sign; NaN for a single seed, which shows no noise.

    If no layer's expected course falls, and the noise is as likely as its negative, their expectation is at most 0.
    """
    seeds = len(courses)
    if seeds < 2:
        return np.full(seeds, np.nan)
    noise = (courses - courses.mean(0)) * math.sqrt(seeds / (seeds - 1))
    alone = (fall(noise).max(-1) + fall(-noise).max(-1)) / 2
    net: Floats = fall(courses).max(-1) - alone
    return net


def last_tenth(courses: Floats) -> Floats:
    """Mean over the last tenth of a course, along the last axis."""
    mean: Floats = courses[..., -max(1, courses.shape[-1] // WINDOWS) :].mean(-1)
    return mean


def net_rise(courses: Floats) -> Floats:
    """By how much a course rises from its first to its last value, less its fall from the greatest to the end."""
    fallen = courses.max(-1) - last_tenth(courses)
    rise: Floats = courses[..., -1] - courses[..., 0] - fallen
    return rise


def drift(ratios: Floats) -> Floats:
    """Decades from the next to last tenth of a ratio's course to its last; seeds × epochs."""
    return np.array([abs(_level(each, 0.9, 1.0) - _level(each, 0.8, 0.9)) for each in map(_decades, ratios)])


def settled_at(ratios: Floats) -> Floats:
    """Fraction of training after which every layer stays within a quarter decade of its last level, smoothed."""
    return np.array([max(map(_settled, map(_decades, layers))) for layers in ratios])


def spread(ratios: Floats) -> Floats:
    """Decades between the largest and the smallest last level of the hidden layers; the last layer is no hidden one."""
    ends = [[_level(_decades(each), 0.9, 1.0) for each in layers[:-1]] for layers in ratios]
    return np.array([max(each) - min(each) for each in ends])


def least_other_movement(ratios: Floats) -> Floats:
    """Decades by which the hidden layer that moves least moves more than the last layer, from first to last level."""
    moved = [[abs(_level(c, 0.0, 0.05) - _level(c, 0.9, 1.0)) for c in map(_decades, layers)] for layers in ratios]
    return np.array([min(each[:-1]) - each[-1] for each in moved])


def _decades(course: Floats) -> Floats:
    """log10 of a ratio; what is not measured or zero is left out."""
    known: Floats = np.log10(course[course > 0])
    return known


def _level(course: Floats, start: float, stop: float) -> float:
    """Mean over a part of training, such as from 0.9 to 1.0."""
    first = int(start * len(course))
    part = course[first : max(int(stop * len(course)), first + 1)]
    return float(part.mean()) if len(part) else math.nan


def _settled(course: Floats) -> float:
    smooth = np.array([course[max(0, at - 2) : at + 3].mean() for at in range(len(course))])
    away = np.flatnonzero(np.abs(smooth - _level(course, 0.9, 1.0)) > NEAR)
    return float(away[-1] + 1) / len(course) if len(away) else 0.0
