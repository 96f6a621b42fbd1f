"""The measuring part of fault tolerance: information and accuracy along the ladder of noise, and their averages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.core.types import Metric
from isthmus.metrics.transmission import Confusions, Statistic, basic_interval, expected_at_random

if TYPE_CHECKING:
    from isthmus.attacks.noise_sweep import Descent

Floats = NDArray[np.float64]
UNMOVED = "{} images have no gradient and were given no noise"


@dataclass(frozen=True, eq=False)
class Told:
    """What there is to tell: the labels, H(Y) in bits, and why I(T;Y) cannot be measured ("" where it can)."""

    labels: NDArray[np.int64]
    classes: int
    entropy: float
    obstacle: str

    @classmethod
    def of(cls, truth: NDArray[np.int64], classes: int) -> Told:
        """Of these labels, answered with so many classes.

        The obstacle is that answers at random would already seem to tell half of H(Y).
        """
        entropy, kinds, n = Confusions.of([truth], truth, classes).entropy_bits(), len(np.unique(truth)), truth.size
        at_random = expected_at_random(classes, kinds, n)
        if at_random <= entropy / 2:
            return cls(truth, classes, entropy, "")
        said = f"answers at random to {n:,} images of {kinds} classes would seem to tell {at_random:.2g} of "
        said += f"{entropy:.2g} bits; {math.ceil(2 * at_random * n / entropy):,} images are needed"
        return cls(truth, classes, entropy, said)


@dataclass(frozen=True)
class Curve:
    """One kind of noise in one mode; rows and lists start at the clean image, with one more for each ratio.

    Attributes:
        right: bool[1 + ratios, n].
        information: I(T;Y) in bits.
        kept: the share of H(Y) that is transmitted, averaged over the ratios in dB; at each of them counts the least
            that is transmitted there or at any higher one.
        gap: ``kept`` of white noise less this one's, on the same images; None of white noise and without it.
        accuracy: the share of the ratios at which, and at all above which, an image is right, averaged over the images.
        unmoved: images that were given no noise, since their gradient is zero.
    """

    right: NDArray[np.bool_]
    information: list[Metric]
    kept: Metric
    gap: Metric | None
    accuracy: Metric
    unmoved: int


def curves(
    found: Mapping[str, Descent],
    told: Told,
    ladder: Sequence[float],
    signal: NDArray[np.bool_],
    seed: int,
    resamples: int,
) -> dict[str, Curve]:
    """Everything about one mode, by kind of noise; gaps come from the same resamples on either side.

    Args:
        found: what was answered, by kind of noise.
        ladder: ratios in dB, descending.
        signal: bool[n], whether any pixel of an image has a signal (is not black); only then can it be given noise.
    """
    names, rungs, weights = list(found), 1 + len(ladder), _weights(ladder)
    predicted = {name: of.predicted.numpy() for name, of in found.items()}
    white = names.index("white") if "white" in names else None

    def statistic(bits: Floats, entropy: Floats) -> Floats:
        """I(T;Y) at every rung of every noise, then the share that each noise leaves, then what white leaves more."""
        least = np.minimum.accumulate(bits.reshape(len(names), rungs, -1), axis=1)[:, 1:]
        total = np.einsum("r,nrd->nd", weights, least)
        kept = np.divide(total, entropy, out=np.zeros_like(total), where=entropy > 0)
        return np.concatenate([bits, kept, np.zeros_like(kept) if white is None else kept[white] - kept])

    information = _Information(np.concatenate(list(predicted.values())), told, statistic, seed, resamples)
    first = len(names) * rungs  # of the rows that are no rungs
    measured = {}
    for at, (name, of) in enumerate(found.items()):
        right = np.asarray(predicted[name] == told.labels)
        standing = weights @ np.logical_and.accumulate(right, axis=0)[1:]
        unmoved = int((signal & (of.size[-1].numpy() == 0)).sum())
        noted = {"note": UNMOVED.format(unmoved)} if unmoved else {}
        kept = information.metric(first + at, "fraction", 0.0, 1.0)
        paired = white is not None and white != at
        measured[name] = Curve(
            right=right,
            information=[information.metric(at * rungs + rung, "bits", 0.0, told.entropy) for rung in range(rungs)],
            kept=kept if kept.note else kept.model_copy(update=noted),
            gap=information.metric(first + len(names) + at, "fraction", -1.0, 1.0) if paired else None,
            accuracy=metrics.mean(standing, "fraction", seed, resamples=resamples).model_copy(update=noted),
            unmoved=unmoved,
        )
    return measured


def _weights(ladder: Sequence[float]) -> Floats:
    """Of the trapezoid rule for a mean over the ratios; of a single one, all of it."""
    if len(ladder) == 1:
        return np.ones(1)
    steps = -np.diff(ladder)
    weights: Floats = (np.append(steps, 0.0) + np.append(0.0, steps)) / 2 / steps.sum()
    return weights


class _Information:
    """A row of numbers made of I(T;Y), each with its interval; none of them is measured where there is an obstacle."""

    def __init__(self, rows: NDArray[Any], told: Told, statistic: Statistic, seed: int, resamples: int) -> None:
        self.told = told
        if not told.obstacle:
            confusions = Confusions.of(rows, told.labels, told.classes)
            self.values = statistic(confusions.bits()[:, None], np.array([told.entropy]))[:, 0]
            self.errors = confusions.resampled(seed, statistic, resamples)

    def metric(self, row: int, unit: str, least: float, most: float) -> Metric:
        n = self.told.labels.size
        if self.told.obstacle:
            return Metric(value=None, unit=unit, n=n, note=self.told.obstacle)
        value = float(self.values[row])
        interval = basic_interval(value, self.errors[row], n, least=least, most=most)
        return Metric(value=value, unit=unit, n=n, interval=interval)
