"""Distance to the k-th nearest training image, of normalised features (Sun et al. 2022, arXiv:2204.06507)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from isthmus.checks.scores.score import Batch, Floats, OODScore, Scoring, Training


class KNN(OODScore):
    """Euclidean distance of f/‖f‖₂ to the ``k``-th nearest of the training images.

    Attributes:
        k: which neighbour; the farthest, if there are fewer training images. The paper has 50 on CIFAR-10 and 1,000 on
            ImageNet, of all training images.
    """

    argument: ClassVar[str | None] = "k"
    uses_features: ClassVar[bool] = True
    uses_training: ClassVar[bool] = True
    name: Literal["knn"] = "knn"
    k: Annotated[int, Field(gt=0)] = 50

    def fit(self, training: Training | None) -> Scoring:
        """Keep the normalised training features."""
        assert training is not None
        known = _normalised(training.features)
        k = min(self.k, len(known))

        def score(batch: Batch) -> Floats:
            distances = torch.cdist(_normalised(batch.features), known, compute_mode="donot_use_mm_for_euclid_dist")
            return np.asarray(distances.kthvalue(k, dim=1).values.double().numpy(), dtype=np.float64)

        return score


def _normalised(features: Floats) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(features), dim=1).float()
