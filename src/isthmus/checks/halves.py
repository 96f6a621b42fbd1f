"""The audited examples in two parts: one to fit recalibration and prediction sets on, one to measure them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from isthmus import metrics
from isthmus.core.errors import ModelError
from isthmus.core.randomness import fold, uniform
from isthmus.core.types import Metric

FEWEST = 2
"""Smallest number of examples in either part."""

Scaling = Literal["temperature", "vector", "isotonic"]
SCALINGS: tuple[Scaling, ...] = ("temperature", "vector", "isotonic")
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Halves:
    """Logits and labels of both parts.

    Attributes:
        fitted, fitted_labels: of the examples that something is fitted on.
        logits, labels: of the others, on which it is measured.
        shares: a number in [0, 1] for each of the former and the latter, for randomised sets.
    """

    fitted: NDArray[Any]
    fitted_labels: NDArray[np.int64]
    logits: NDArray[Any]
    labels: NDArray[np.int64]
    shares: tuple[Floats, Floats]

    def scaled(self, scalings: Sequence[Scaling]) -> dict[str, NDArray[Any]]:
        """Logits of the second part as they are ("none") and after each scaling, fitted on the first."""
        found = {"none": self.logits}
        if "temperature" in scalings:
            found["temperature"] = self.logits / self.temperature
        if "vector" in scalings:
            weights, biases = metrics.fit_vector(self.fitted, self.fitted_labels)
            found["vector"] = self.logits * weights + biases
        if "isotonic" in scalings:
            found["isotonic"] = metrics.fit_isotonic(self.fitted, self.fitted_labels)(self.logits)
        return found

    @property
    def temperature(self) -> float:
        """The temperature of the first part."""
        return metrics.fit_temperature(self.fitted, self.fitted_labels)

    def facts(self, alpha: float) -> dict[str, Any]:
        """Sizes of both parts, and the range in which chance puts the coverage of prediction sets (95%)."""
        sizes = len(self.fitted), len(self.logits)
        return {"fitted": sizes[0], "measured": sizes[1], "coverage": metrics.coverage_range(*sizes, alpha)}

    def sets(self, alpha: float, seed: int, resamples: int) -> dict[str, dict[str, Metric]]:
        """Coverage and size of the prediction sets of each conformal score ("lac", "aps")."""
        scores = {
            "lac": (metrics.lac_scores(self.fitted), metrics.lac_scores(self.logits)),
            "aps": (metrics.aps_scores(self.fitted, self.shares[0]), metrics.aps_scores(self.logits, self.shares[1])),
        }
        found = {}
        for name, (own, others) in scores.items():
            within = others <= metrics.conformal_threshold(own, self.fitted_labels, alpha)
            covered = np.take_along_axis(within, self.labels[:, None], axis=1)[:, 0]
            sizes = within.sum(axis=1)
            found[name] = {
                "coverage": metrics.accuracy(covered),
                "set_size": metrics.mean(sizes, "classes", seed, resamples=resamples),
                "empty_sets": metrics.accuracy(sizes == 0),
            }
        return found


def halved(logits: NDArray[Any], labels: NDArray[np.int64], keys: Int[Tensor, " n"], fraction: float) -> Halves:
    """Draw the first part by the examples' keys, so that it depends neither on their order nor on the batch size.

    Args:
        logits: finite.
        fraction: of the examples that belong to the first part.

    Raises:
        ModelError: there are too few examples for two parts.
    """
    draws, shares = (
        uniform(folded, (1,)).squeeze(1).cpu().double().numpy()
        for folded in (fold(keys, "calibration/fitted"), fold(keys, "calibration/sets"))
    )
    count = min(max(round(fraction * draws.size), FEWEST), draws.size)
    if draws.size - count < FEWEST:
        raise ModelError(
            f"{draws.size} images have finite logits; scalings are fitted on at least {FEWEST} and measured on "
            f"as many others. Audit more images, or omit split."
        )
    fitted = draws <= np.partition(draws, count - 1)[count - 1]
    return Halves(logits[fitted], labels[fitted], logits[~fitted], labels[~fitted], (shares[fitted], shares[~fitted]))
