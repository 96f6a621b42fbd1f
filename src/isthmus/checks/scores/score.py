"""The base class of OOD scores, and the images of a batch with what a model computes from them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.checks.context import predict
from isthmus.checks.scores.features import Features
from isthmus.core.config import Component

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Training:
    """What a score may be fitted on: a model's outputs on training images, all finite.

    Attributes:
        features: float64[n, d], the input of the last linear layer.
        logits: float64[n, classes].
        labels: int64[n].
        weight, bias: of the last linear layer, float64[classes, d] and float64[classes].
    """

    features: Floats
    logits: Floats
    labels: NDArray[np.int64]
    weight: Floats
    bias: Floats


@dataclass(frozen=True, eq=False)
class Batch:
    """Images to score.

    Attributes:
        model: from images in [0, 1] to logits, in eval mode.
        images: on the model's device.
        keys: one per image, for a model with random predictions.
        extractor: reads and replaces features; None if the model has none.
    """

    model: nn.Module
    images: Float[Tensor, "n c h w"]
    keys: Int[Tensor, " n"]
    extractor: Features | None = None

    @cached_property
    def outputs(self) -> tuple[Floats, Floats]:
        """Features and logits of one pass, float64. Only with an extractor."""
        assert self.extractor is not None
        found = self.extractor.outputs(self.images, self.keys)
        return found[0].double().numpy(), found[1].double().numpy()

    @property
    def features(self) -> Floats:
        """float64[n, d], the input of the last linear layer. Only if the score ``uses_features``."""
        return self.outputs[0]

    @cached_property
    def logits(self) -> Floats:
        """float64[n, classes]."""
        if self.extractor is not None:
            return self.outputs[1]
        return predict(self.model, self.images, self.keys).double().numpy()


Scoring = Callable[[Batch], Floats]
"""From a batch to one number per image, larger for images that are more out-of-distribution."""


class OODScore(Component):
    """A score that is larger for images that are more out-of-distribution. Its fields are its options.

    Attributes:
        uses_features: whether it needs the input of the model's last linear layer.
        uses_training: whether it is fitted on training images; implies ``uses_features``.
        uses_gradient: whether it needs the gradient with respect to the images.
    """

    uses_features: ClassVar[bool] = False
    uses_training: ClassVar[bool] = False
    uses_gradient: ClassVar[bool] = False

    @abstractmethod
    def fit(self, training: Training | None) -> Scoring:
        """The score as a function of a batch.

        Args:
            training: outputs on training images; None unless the score ``uses_training``.
        """
