"""Information and accuracy over the signal-to-noise ratio, and their averages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.attacks.noise_sweep import SweepResult
from isthmus.core.types import Metric
from isthmus.metrics.transmission import Confusions, Statistic, basic_interval, expected_at_random

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelEntropy:
    """The labels, H(Y) in bits, and why I(T;Y) cannot be measured ("" if it can)."""

    labels: NDArray[np.int64]
    classes: int
    bits: float
    obstacle: str

    @classmethod
    def of(cls, truth: NDArray[np.int64], classes: int) -> LabelEntropy:
        """Build from true labels and the number of classes.

        The obstacle is that random predictions would already seem to transmit half of H(Y).
        """
        entropy, kinds, n = Confusions.of([truth], truth, classes).entropy_bits(), len(np.unique(truth)), truth.size
        at_random = expected_at_random(classes, kinds, n)
        if at_random <= entropy / 2:
            return cls(truth, classes, entropy, "")
        obstacle = f"random predictions for {n:,} images of {kinds} classes would seem to transmit {at_random:.2g} of "
        obstacle += f"{entropy:.2g} bits; {math.ceil(2 * at_random * n / entropy):,} images are needed"
        return cls(truth, classes, entropy, obstacle)


@dataclass(frozen=True)
class Curve:
    """One kind of noise in one mode; rows and lists start at the clean image, then one entry for each ratio.

    Attributes:
        right: bool[1 + ratios, n].
        information: I(T;Y) in bits.
        kept: the fraction of H(Y) that is transmitted, averaged over the ratios in dB; at each ratio the least that is
            transmitted there or at any higher one.
        gap: ``kept`` of white noise less this one's, on the same images; None for white noise and without it.
        accuracy: the fraction of ratios at which, and at all above which, an image is right, averaged over the images.
        unmoved: number of images that were given no noise, since their gradient is zero.
    """

    right: NDArray[np.bool_]
    information: list[Metric]
    kept: Metric
    gap: Metric | None
    accuracy: Metric
    unmoved: int


def curves(
    found: Mapping[str, SweepResult],
    entropy: LabelEntropy,
    ratios: Sequence[float],
    signal: NDArray[np.bool_],
    seed: int,
    resamples: int,
) -> dict[str, Curve]:
    """All curves of one mode, by kind of noise; gaps come from the same resamples on either side.

    Args:
        found: predictions by kind of noise.
        ratios: in dB, descending.
        signal: bool[n], whether an image has a pixel that is not black; only then can it be given noise.
    """
    names, rows, weights = list(found), 1 + len(ratios), _weights(ratios)
    predicted = {name: of.predicted.numpy() for name, of in found.items()}
    white = names.index("white") if "white" in names else None

    def statistic(bits: Floats, label_bits: Floats) -> Floats:
        """I(T;Y) at every ratio of every noise, then the fraction that each noise leaves, then the gap to white."""
        least = np.minimum.accumulate(bits.reshape(len(names), rows, -1), axis=1)[:, 1:]
        total = np.einsum("r,nrd->nd", weights, least)
        kept = np.divide(total, label_bits, out=np.zeros_like(total), where=label_bits > 0)
        return np.concatenate([bits, kept, np.zeros_like(kept) if white is None else kept[white] - kept])

    information = _Information(np.concatenate(list(predicted.values())), entropy, statistic, seed, resamples)
    first = len(names) * rows  # of the rows that are averages
    measured = {}
    for at, (name, of) in enumerate(found.items()):
        right = np.asarray(predicted[name] == entropy.labels)
        robust = weights @ np.logical_and.accumulate(right, axis=0)[1:]
        unmoved = int((signal & (of.size[-1].numpy() == 0)).sum())
        noted = {"note": f"{unmoved} images have no gradient and were given no noise"} if unmoved else {}
        kept = information.metric(first + at, "fraction", 0.0, 1.0)
        paired = white is not None and white != at
        measured[name] = Curve(
            right=right,
            information=[information.metric(at * rows + row, "bits", 0.0, entropy.bits) for row in range(rows)],
            kept=kept if kept.note else kept.model_copy(update=noted),
            gap=information.metric(first + len(names) + at, "fraction", -1.0, 1.0) if paired else None,
            accuracy=metrics.mean(robust, "fraction", seed, resamples=resamples).model_copy(update=noted),
            unmoved=unmoved,
        )
    return measured


def _weights(ratios: Sequence[float]) -> Floats:
    """Weights of the trapezoid rule for a mean over the ratios; 1 for a single one."""
    if len(ratios) == 1:
        return np.ones(1)
    steps = -np.diff(ratios)
    weights: Floats = (np.append(steps, 0.0) + np.append(0.0, steps)) / 2 / steps.sum()
    return weights


class _Information:
    """Statistics of I(T;Y), each with its interval; none is measured if there is an obstacle."""

    def __init__(
        self, rows: NDArray[np.int64], entropy: LabelEntropy, statistic: Statistic, seed: int, resamples: int
    ) -> None:
        self.entropy = entropy
        if not entropy.obstacle:
            confusions = Confusions.of(rows, entropy.labels, entropy.classes)
            self.values = statistic(confusions.bits()[:, None], np.array([entropy.bits]))[:, 0]
            self.errors = confusions.resampled(seed, statistic, resamples)

    def metric(self, row: int, unit: str, least: float, most: float) -> Metric:
        n = self.entropy.labels.size
        if self.entropy.obstacle:
            return Metric(value=None, unit=unit, n=n, note=self.entropy.obstacle)
        value = float(self.values[row])
        interval = basic_interval(value, self.errors[row], n, least=least, most=most)
        return Metric(value=value, unit=unit, n=n, interval=interval)
