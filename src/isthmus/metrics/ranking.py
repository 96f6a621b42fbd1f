"""How well a score separates out-of-distribution from in-distribution examples, exactly, from its ranks.

A score is larger for examples that are more out-of-distribution. The caller names the positive class: ``"in"`` as in
Fischer 2020 and ODIN (Liang et al. 2018), ``"out"`` as in pytorch-ood. Equal scores pass a threshold together; curves
are not interpolated between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Positive = Literal["in", "out"]
Floats = NDArray[np.float64]
Counts = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Ranked:
    """How many examples of either class have each distinct score, from the smallest score to the largest.

    Any leading axes are of samples of the same scores.
    """

    inside: Counts
    outside: Counts

    @cached_property
    def passed(self) -> tuple[Counts, Counts]:
        """Of either class, how many have at most each score."""
        return self.inside.cumsum(-1, dtype=np.int32), self.outside.cumsum(-1, dtype=np.int32)

    def from_positive(self, positive: Positive) -> tuple[Counts, Counts, Counts]:
        """Positives at each score, and positives and negatives up to it; the first score is most like a positive."""
        if positive == "in":
            return self.inside, *self.passed
        if positive == "out":
            (own, others), (passed, failed) = (self.outside, self.inside), self.passed[::-1]
            found = passed[..., -1:] - passed + own
            false = failed[..., -1:] - failed + others
            return own[..., ::-1], found[..., ::-1], false[..., ::-1]
        raise ValueError(f'the positive class is "in" or "out"; got {positive!r}')


def fpr_at_tpr(inside: ArrayLike, outside: ArrayLike, tpr: float = 0.95, positive: Positive = "in") -> float:
    """False positive rate at the strictest threshold whose true positive rate is at least ``tpr``; in [0, 1].

    With ``"in"``: the share of out-of-distribution examples that pass where at least 95% of the others do. With
    ``"out"``: the share of in-distribution examples that are refused where at least 95% of the others are.

    Args:
        inside, outside: scores of in- and of out-of-distribution examples.

    Raises:
        ValueError: no scores of a class, NaN among them, a rate outside (0, 1], or another name for the positive class.
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"the true positive rate lies above 0 and is at most 1; got {tpr}")
    return float(fpr_of(ranked(inside, outside), tpr, positive))


def auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """P(outside > inside) + ½·P(outside = inside), the area under the ROC curve, in [0, 1].

    It is the same whichever class is positive.

    Raises:
        ValueError: no scores of a class, or NaN among them.
    """
    return float(auroc_of(ranked(inside, outside)))


def aupr(inside: ArrayLike, outside: ArrayLike, positive: Positive = "in") -> float:
    """Average precision Σ_k (recall_k − recall_{k−1})·precision_k, the step-wise area under the precision-recall curve.

    In (0, 1]. "AUPR In" has in-distribution examples as the positive class. It depends on how many there are of either
    class: a score without information has about the share of the positive one.

    Raises:
        ValueError: no scores of a class, NaN among them, or another name for the positive class.
    """
    return float(aupr_of(ranked(inside, outside), positive))


def roc_curve(
    inside: ArrayLike, outside: ArrayLike, positive: Positive = "in", most: int | None = None
) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1), ascending.

    Args:
        most: drop points, evenly along the curve, if there are more than this (at least 2).

    Raises:
        ValueError: no scores of a class, NaN among them, or another name for the positive class.
    """
    _, *found = ranked(inside, outside).from_positive(positive)
    true, false = (np.concatenate([[0.0], count / count[-1]]) for count in found)
    if most is not None and true.size > most:
        # along the curve both rates only grow, and their sum goes from 0 to 2
        kept = np.unique(np.searchsorted(true + false, np.linspace(0, 2, max(most, 2))).clip(max=true.size - 1))
        true, false = true[kept], false[kept]
    return false, true


def ranked(inside: ArrayLike, outside: ArrayLike) -> Ranked:
    """Count the scores of both classes by their distinct values.

    Raises:
        ValueError: no scores of a class, or NaN among them.
    """
    return counted(*places(inside, outside))


def places(inside: ArrayLike, outside: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The place of each score among the distinct scores of both classes, from 0 for the smallest; infinities allowed.

    Raises:
        ValueError: no scores of a class, or NaN among them.
    """
    given = [np.asarray(scores, dtype=np.float64).ravel() for scores in (inside, outside)]
    for values, which in zip(given, ("in-distribution", "out-of-distribution"), strict=True):
        if values.size == 0:
            raise ValueError(f"there are no {which} scores; give at least one")
        if missing := int(np.isnan(values).sum()):
            raise ValueError(f"{missing} of {values.size} {which} scores are NaN, which has no rank; leave these out")
    _, found = np.unique(np.concatenate(given), return_inverse=True)
    return found[: given[0].size], found[given[0].size :]


def counted(inside: NDArray[np.intp], outside: NDArray[np.intp]) -> Ranked:
    """Counts by place: of places with the shape samples × examples, or examples alone."""
    size = 1 + max(int(inside.max()), int(outside.max()))

    def counts(found: NDArray[np.intp]) -> Counts:
        samples = found.reshape(-1, found.shape[-1])
        rows = np.arange(len(samples))[:, None] * size
        flat = np.bincount((rows + samples).ravel(), minlength=len(samples) * size)
        return flat.astype(np.int32).reshape(*found.shape[:-1], size)

    return Ranked(counts(inside), counts(outside))


def fpr_of(counts: Ranked, tpr: float, positive: Positive) -> Floats:
    """:func:`fpr_at_tpr` of counted scores."""
    _, found, false = counts.from_positive(positive)
    total = int(found.flat[-1])  # the same in every sample
    least = next(k for k in range(math.floor(tpr * total), total + 1) if k / total >= tpr)
    first = (found >= least).argmax(-1)[..., None]
    return np.asarray(np.take_along_axis(false, first, -1)[..., 0] / false[..., -1], dtype=np.float64)


def auroc_of(counts: Ranked) -> Floats:
    """:func:`auroc` of counted scores."""
    passed = counts.passed[0].astype(np.float64)
    below = passed - 0.5 * counts.inside  # in-distribution scores below each, ties at one half
    pairs = passed[..., -1] * counts.passed[1][..., -1]
    return np.asarray((counts.outside * below).sum(-1) / pairs, dtype=np.float64)


def aupr_of(counts: Ranked, positive: Positive) -> Floats:
    """:func:`aupr` of counted scores."""
    own, found, false = counts.from_positive(positive)
    # where nothing is found yet nothing is added either
    precision = found / np.maximum(found + false, 1)
    return np.asarray((own * precision).sum(-1) / found[..., -1], dtype=np.float64)
