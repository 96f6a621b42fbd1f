"""Mutual information I(T;Y) of predictions and labels in bits, from confusion matrices, with intervals.

T is the predicted class, Y the label; I(T;Y) = H(Y) − H(Y|T) with relative frequencies for probabilities, and
0·log 0 = 0. This estimate is too large by about (C − 1)²/(2n) nats for C classes and n examples (Miller 1955).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from isthmus.core.types import Interval
from isthmus.information.discrete import confusion_information
from isthmus.metrics.intervals import RESAMPLES

Floats = NDArray[np.float64]
Statistic = Callable[[Floats, Floats], Floats]
"""From I(T;Y) of each row, float[rows, draws], and H(Y), float[draws], both in bits, to float[k, draws]."""

METHOD = "smoothed bootstrap over examples"
_STRETCH = 100.0
"""Examples at which the scatter of resampled errors is doubled; chosen by the coverage of channels whose I is known."""
_BLOCK = 2**22  # numbers that a block of resamples may take


def transmitted_bits(predicted: ArrayLike, labels: ArrayLike) -> float:
    """I(T;Y) of predictions and labels, int[n] each, in bits.

    Any integers are allowed, also one for a missing prediction: an erasure is a symbol too.

    Raises:
        ValueError: the two differ in length, or there are none.
    """
    symbols, truth = (np.unique(np.asarray(given), return_inverse=True)[1] for given in (predicted, labels))
    classes = int(max(symbols.max(initial=0), truth.max(initial=0))) + 1
    return float(Confusions.of([symbols], truth, classes).bits()[0])


def expected_at_random(predictions: int, labels: int, n: int) -> float:
    """Bias of I(T;Y) in bits: what predictions that are independent of the labels seem to transmit.

    Args:
        predictions, labels: number of distinct predictions and labels.
        n: examples.
    """
    return (predictions - 1) * (labels - 1) / (2 * n * math.log(2))


@dataclass(frozen=True, eq=False)
class Confusions:
    """Confusion matrices of several rows of predictions of the same examples.

    Attributes:
        predicted: int[rows, n], 0 for no prediction, else one more than the predicted class.
        labels: int[n], from 0 up.
        classes: C.
    """

    predicted: NDArray[np.intp]
    labels: NDArray[np.intp]
    classes: int

    @classmethod
    def of(cls, predicted: ArrayLike, labels: ArrayLike, classes: int) -> Confusions:
        """Build from predictions int[rows, n], −1 for no prediction, labels int[n] and the number of classes.

        Raises:
            ValueError: other shapes, no examples, or a class out of range.
        """
        rows, truth = np.asarray(predicted, dtype=np.intp), np.asarray(labels, dtype=np.intp)
        if rows.ndim != 2 or truth.ndim != 1 or rows.shape[1] != truth.size or not truth.size:
            raise ValueError(f"rows of one prediction a label, and some labels; got {rows.shape} and {truth.shape}")
        if truth.min() < 0 or max(truth.max(), rows.max(initial=0)) >= classes or rows.min(initial=0) < -1:
            raise ValueError(f"labels are 0 to {classes - 1}, and predictions too or −1; some are not")
        return cls(rows + 1, truth, classes)

    def bits(self) -> Floats:
        """I(T;Y) of each row."""
        return self._information(np.ones((self.labels.size, 1)))[:, 0]

    def entropy_bits(self) -> float:
        """H(Y)."""
        return float(self._entropy(np.ones((self.labels.size, 1)))[0])

    def resampled(self, seed: int, statistic: Statistic, resamples: int = RESAMPLES) -> Floats:
        """Errors of a statistic of n examples relative to that of their population, by a smoothed bootstrap.

        Wrong predictions of a good classifier are rare, and most confusions occur once. Confusions that the sample
        lacks can occur in another sample but never in a resample, so a plain bootstrap would miss their effect on
        I(T;Y).
        Here the prediction of every drawn example is replaced by a random class with the probability of an unseen
        confusion. That is Good & Turing's estimate (f + 1)/n, where f examples are alone in their cell, plus one
        standard error, √(f + 1)/n. The same draws are replaced in all rows, up to each row's probability.

        Returns:
            float[k, resamples]: the statistic of each resample less that of the smoothed population.
        """
        n, generator = self.labels.size, np.random.default_rng([seed, self.labels.size])
        unseen = np.array([self._unseen(row) for row in self.predicted])
        centre = statistic(self._smoothed(unseen)[:, None], self._entropy(np.ones((n, 1))))
        size = max(1, _BLOCK // max(n, (self.classes + 1) * self.classes))
        found = []
        for start in range(0, resamples, size):
            drawn = generator.integers(n, size=(min(size, resamples - start), n))
            weights = np.stack([np.bincount(row, minlength=n) for row in drawn], axis=1).astype(np.float64)
            replaced = _Replaced.of(drawn, float(unseen.max(initial=0.0)), self.classes, generator)
            found.append(statistic(self._information(weights, replaced, unseen), self._entropy(weights)) - centre)
        return np.concatenate(found, axis=1)

    def _unseen(self, predicted: NDArray[np.intp]) -> float:
        """Probability of a confusion that does not occur in the sample, an upper estimate."""
        alone = 1 + int((np.bincount(predicted * self.classes + self.labels) == 1).sum())
        return min((alone + math.sqrt(alone)) / self.labels.size, 1.0)

    def _smoothed(self, unseen: Floats) -> Floats:
        """I(T;Y) of each row's population, as expected of the resamples' examples."""
        labels = np.bincount(self.labels, minlength=self.classes)
        found = []
        for joint, share in zip(self._joints(np.ones((self.labels.size, 1))), unseen, strict=True):
            mixed = (1 - share) * joint
            mixed[1:, :, 0] += share * labels / self.classes
            found.append(_information(mixed)[0])
        return np.array(found)

    def _information(self, weights: Floats, replaced: _Replaced | None = None, unseen: Floats | None = None) -> Floats:
        """I(T;Y) of each row with examples weighted by float[n, draws], some of their predictions replaced."""
        rows = []
        for row, joint in enumerate(self._joints(weights)):
            if replaced is not None and unseen is not None:
                replaced.move(joint, self.predicted[row], self.labels, float(unseen[row]))
            rows.append(_information(joint))
        return np.array(rows).reshape(len(self.predicted), -1)

    def _joints(self, weights: Floats) -> Iterator[Floats]:
        """Each row's counts, float[1 + C, C, draws]."""
        for predicted in self.predicted:
            cell = predicted * self.classes + self.labels
            order = cell.argsort(kind="stable")
            begins = np.flatnonzero(np.concatenate([[True], np.diff(cell[order]) != 0]))
            joint = np.zeros(((1 + self.classes) * self.classes, weights.shape[1]))
            joint[cell[order][begins]] = np.add.reduceat(weights[order], begins, axis=0)
            yield joint.reshape(1 + self.classes, self.classes, -1)

    def _entropy(self, weights: Floats) -> Floats:
        """H(Y) in bits."""
        counts = np.zeros((self.classes, weights.shape[1]))
        np.add.at(counts, self.labels, weights)
        return _entropy(counts)


@dataclass(frozen=True, eq=False)
class _Replaced:
    """Drawn examples whose prediction may be replaced: draw, example, level in [0, 1), and the new prediction."""

    draw: NDArray[np.intp]
    example: NDArray[np.intp]
    level: Floats
    new: NDArray[np.intp]

    @classmethod
    def of(cls, drawn: NDArray[np.intp], most: float, classes: int, generator: np.random.Generator) -> _Replaced:
        level = generator.random(drawn.shape)
        draw, place = np.nonzero(level < most)
        new = 1 + generator.integers(classes, size=draw.size)
        return cls(draw, drawn[draw, place], level[draw, place], new)

    def move(self, joint: Floats, predicted: NDArray[np.intp], labels: NDArray[np.intp], share: float) -> None:
        """Move counts, in place, from the cell of the given prediction to that of the new one."""
        chosen = self.level < share
        draw, example, new = self.draw[chosen], self.example[chosen], self.new[chosen]
        np.add.at(joint, (predicted[example], labels[example], draw), -1.0)
        np.add.at(joint, (new, labels[example], draw), 1.0)


def _entropy(counts: Floats) -> Floats:
    """In bits, of counts along the first axis."""
    total = counts.sum(0)
    entropy: Floats = (np.log(total) - xlogy(counts, counts).sum(0) / total) / math.log(2)
    return np.maximum(entropy, 0.0)


def _information(joint: Floats) -> Floats:
    """I in bits of counts float[predictions, labels, draws]."""
    return confusion_information(np.moveaxis(joint, -1, 0)) / math.log(2)


def basic_interval(
    value: float, errors: Floats, n: int, level: float = 0.95, least: float = -math.inf, most: float = math.inf
) -> Interval:
    """The basic interval: the value less the quantiles of its errors, cut to a range and widened to hold the value.

    It removes a bias that a percentile interval would count twice. With few examples the resampled errors scatter too
    little (with 300, intervals of I(T;Y) covered 87 to 98%), so they are stretched about their mean by 1 + 100/n.

    Args:
        errors: of the value, over resamples, as :meth:`Confusions.resampled` gives them.
        n: examples.
        least, most: what the statistic of a population cannot be below and above.
    """
    centre = errors.mean()
    errors = centre + (1 + _STRETCH / n) * (errors - centre)
    low, high = value - np.quantile(errors, [(1 + level) / 2, (1 - level) / 2])
    low, high = (float(np.clip(bound, least, most)) for bound in (low, high))
    return Interval(low=min(low, value), high=max(high, value), level=level, method=METHOD)
