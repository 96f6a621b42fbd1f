"""Cheap signs that the attacks were weak rather than the classifier robust, from what they left standing."""

from __future__ import annotations

import itertools

import numpy as np

from isthmus import metrics
from isthmus.checks.security_curve import Bools, Curve

_LEVEL = 0.99  # several comparisons are made per classifier, and chance should raise none of them
_NATURAL = 0.02  # even sound attacks differ in a few hard examples


def telltales(curve: Curve) -> list[str]:
    """Cheap signs that the attacks, rather than the classifier, are what is weak; each one sentence.

    Differences count where the 99% interval of the paired difference lies above zero, or above two points
    where some difference is natural. No sign is no verdict: a classifier that defeats these attacks alike at
    every ε shows none.
    """
    found = [f"{curve.invalid} examples gave logits that are not finite"] if curve.invalid else []
    return [
        *found,
        *_weaker_than_one_step(curve),
        *_weaker_at_larger_eps(curve),
        *_apart(curve),
        *_missed(curve),
    ]


def _weaker_than_one_step(curve: Curve) -> list[str]:
    if not {"fgsm", "pgd"} <= set(curve.alone):
        return []
    for eps, fgsm, pgd in zip(curve.eps, curve.alone["fgsm"], curve.alone["pgd"], strict=True):
        if gap := _gap(fgsm, pgd):
            return [f"one step (FGSM) breaks {gap} more examples than PGD at ε = {eps:.4g}"]
    return []


def _weaker_at_larger_eps(curve: Curve) -> list[str]:
    found = []
    # One step may jump over what is near, so its curve may rise; a search's may not.
    for label, standing in curve.alone.items():
        gaps = [_gap(a, b) for a, b in itertools.pairwise(standing) if label != "fgsm"]
        for position, gap in enumerate(gaps):
            if gap:
                smaller, larger = curve.eps[position : position + 2]
                found.append(f"{label} breaks {gap} fewer examples at ε = {larger:.4g} than at {smaller:.4g}")
                break
    return found


def _apart(curve: Curve) -> list[str]:
    """Attacks that break different examples: each misses what another finds, and so may all."""
    left = {label: int(standing[-1].sum()) for label, standing in curve.alone.items()}
    best = [label for label, count in left.items() if count == min(left.values())]
    together = np.logical_and.reduce([standing[-1] for standing in curve.alone.values()])
    if gap := _gap(together, curve.alone[best[0]][-1], _NATURAL):
        return [f"all attacks together break {gap} more examples than {' or '.join(best)}, the strongest of them"]
    return []


def _missed(curve: Curve) -> list[str]:
    grey = curve.unbounded
    if grey is None or not grey.missed:
        return []
    return [
        f"{grey.standing.value:.1%} stand at ε = {grey.eps:.4g}, where all images can become the same "
        f"grey and at most {grey.constant:.1%} can be right"
    ]


def _gap(first: Bools, second: Bools, least: float = 0.0) -> str:
    """How many more of ``second`` stand, in words, where that is surely more than ``least``; else nothing."""
    gap = metrics.paired_difference(first, second, _LEVEL)
    return f"{gap.value:.1%}" if gap.interval is not None and gap.interval.low > least else ""
