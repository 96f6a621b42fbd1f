"""Rectified activations: the energy after clipping large features (Sun et al. 2021, arXiv:2111.12797)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from isthmus import metrics
from isthmus.checks.scores.score import Batch, Floats, OODScore, Scoring, Training


class ReAct(OODScore):
    """−ln Σ exp(logit), in nats, of the logits after min(f, c).

    Attributes:
        percentile: c is this percentile of all training features together.
    """

    argument: ClassVar[str | None] = "percentile"
    uses_features: ClassVar[bool] = True
    uses_training: ClassVar[bool] = True
    name: Literal["react"] = "react"
    percentile: Annotated[float, Field(gt=0, le=100)] = 90.0

    def fit(self, training: Training | None) -> Scoring:
        """Find the threshold c."""
        assert training is not None
        most = float(np.percentile(training.features, self.percentile))

        def score(batch: Batch) -> Floats:
            assert batch.extractor is not None
            logits = batch.extractor.replaced(batch.images, batch.keys, lambda features: features.clamp(max=most))
            return metrics.energy(logits.numpy())

        return score
