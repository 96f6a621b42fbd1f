"""Virtual-logit matching: features outside the principal subspace, against the energy (Wang et al. 2022).

arXiv:2203.10807.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from isthmus import metrics
from isthmus.checks.scores.score import Batch, Floats, OODScore, Scoring, Training


class ViM(OODScore):
    """α·‖P(f − o)‖₂ − ln Σ exp(logit), in nats; it orders images as the paper's probability of a virtual class does.

    o = −W⁺b is the origin, and P projects onto the directions in which the training features vary least around it. α is
    such that on the training images the mean of the first term is the mean maximum logit.

    Attributes:
        dim: dimensions of the principal subspace that P leaves out. If None, as in the authors' code: 1,000 of at least
            2,048 dimensions, 512 of at least 768, half of fewer.
    """

    argument: ClassVar[str | None] = "dim"
    uses_features: ClassVar[bool] = True
    uses_training: ClassVar[bool] = True
    name: Literal["vim"] = "vim"
    dim: Annotated[int, Field(gt=0)] | None = None

    def fit(self, training: Training | None) -> Scoring:
        """Find origin, subspace and α."""
        assert training is not None
        width = training.features.shape[1]
        kept = min(self.dim or (1000 if width >= 2048 else 512 if width >= 768 else width // 2), width - 1)
        origin = -np.linalg.pinv(training.weight) @ training.bias
        centred = training.features - origin
        _, directions = np.linalg.eigh(centred.T @ centred)  # smallest first
        rest = directions[:, : width - kept]

        def residual(features: Floats) -> Floats:
            return np.asarray(np.linalg.norm((features - origin) @ rest, axis=1), dtype=np.float64)

        mean = residual(training.features).mean()
        alpha = training.logits.max(axis=1).mean() / mean if mean > 0 else 0.0

        def score(batch: Batch) -> Floats:
            return alpha * residual(batch.features) + metrics.energy(batch.logits)

        return score
