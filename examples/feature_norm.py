"""A custom OOD score: how far the length of the features is from its mean over training images."""

from typing import ClassVar

import numpy as np

from isthmus.checks.scores.score import Batch, Floats, OODScore, Scoring, Training


class FeatureNorm(OODScore):
    """| ‖f‖₂ − mean over training images | in standard deviations, for features f."""

    uses_features: ClassVar[bool] = True
    uses_training: ClassVar[bool] = True

    def fit(self, training: Training | None) -> Scoring:
        """Measure mean and standard deviation."""
        assert training is not None
        known = np.linalg.norm(training.features, axis=1)

        def score(batch: Batch) -> Floats:
            return np.abs(np.linalg.norm(batch.features, axis=1) - known.mean()) / known.std()

        return score
