"""The base class of checks, and small functions that several checks share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from isthmus.checks.context import MEAN, Context
from isthmus.core.config import Component
from isthmus.core.format import listed
from isthmus.core.types import CheckResult, Metric


class Check(Component):
    """A measurement of one classifier. Its fields are its options.

    Attributes:
        uses: other checks whose results this one reads from the context. In an audit they run first, and whenever one
            of them runs again, so does this check.
        above_chance: whether it says nothing about a classifier at chance, for which an audit then skips it.
    """

    uses: ClassVar[tuple[str, ...]] = ()
    above_chance: ClassVar[bool] = False

    @abstractmethod
    def run(self, context: Context) -> CheckResult:
        """Measure the classifier of ``context``."""


def chance(truth: NDArray[np.int64], classes: int) -> float:
    """Accuracy of the best constant prediction: the fraction of the most frequent label.

    If all examples have the same label, that would be 1; then 1/C is returned.
    """
    most = float(np.bincount(truth).max() / truth.size)
    return most if most < 1.0 else 1.0 / classes


def not_finite(missing: Mapping[str, int], consequence: str) -> str:
    """A clause about examples with NaN or infinite logits; "" if there are none.

    Args:
        missing: number of such examples by mode.
        consequence: how they are treated, such as "count as wrong".
    """
    counts = {mode: count for mode, count in missing.items() if count}
    if not counts:
        return ""
    several = len(missing) > 1
    parts = [f"{count}{f' in {mode} mode' if several else ''}" for mode, count in counts.items()]
    return f"; images whose logits are NaN or infinite {consequence}: {listed(parts)}"


def in_mode(array: str, mode: str) -> str:
    """Name of a stored array in a mode: ``nll`` in mean mode is ``stochastic_nll`` in stochastic mode."""
    return array if mode == MEAN else f"{mode}_{array}"


def metrics_of(found: Mapping[str, Iterable[Metric]]) -> list[Metric]:
    """Metrics by mode as a list, with the coordinate ``mode``."""
    return [
        metric.model_copy(update={"coords": {"mode": mode, **metric.coords}})
        for mode, metrics in found.items()
        for metric in metrics
    ]


def arrays_of(found: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays by mode, under the names of :func:`in_mode`."""
    return {in_mode(name, mode): array for mode, arrays in found.items() for name, array in arrays.items()}


def mode_with(signs: Mapping[str, object]) -> str:
    """The first mode with signs of a problem; mean mode if there is none."""
    return next((mode for mode, found in signs.items() if found), MEAN)
