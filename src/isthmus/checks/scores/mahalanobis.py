"""Mahalanobis distance of the features to the nearest class mean (Lee et al. 2018, arXiv:1807.03888, equation 2)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from scipy.linalg import pinvh

from isthmus.checks.scores.score import Batch, Floats, OODScore, Scoring, Training


class Mahalanobis(OODScore):
    """min over classes of (f − μ_c)ᵀ Σ⁻¹ (f − μ_c), of features f.

    The means are of training features by true class, and Σ is their common covariance around these. Unlike in the
    paper, there is only the last layer, no noise is added, and nothing is tuned on out-of-distribution images.
    """

    uses_features: ClassVar[bool] = True
    uses_training: ClassVar[bool] = True
    name: Literal["mahalanobis"] = "mahalanobis"

    def fit(self, training: Training | None) -> Scoring:
        """Fit means and covariance; classes without training images have no mean."""
        assert training is not None
        classes, places = np.unique(training.labels, return_inverse=True)
        means = np.stack([training.features[training.labels == label].mean(axis=0) for label in classes])
        around = training.features - means[places]
        precision = pinvh(around.T @ around / len(around))

        def score(batch: Batch) -> Floats:
            distances = [np.einsum("ni,ij,nj->n", d, precision, d) for d in (batch.features - mean for mean in means)]
            return np.asarray(np.min(distances, axis=0), dtype=np.float64)

        return score
