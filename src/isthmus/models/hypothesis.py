"""A classifier that guesses first: every label is a hypothesis, under which the image is looked at and scored.

"Guess First to Enable Better Compression and Adversarial Robustness", §2.1. The front is shared by all hypotheses; from
the injection on, layers are conditioned on each of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isthmus.core.errors import ModelError
from isthmus.core.tradeoff import Rho
from isthmus.core.types import Terms
from isthmus.information.codes import Gather
from isthmus.information.hypotheses import Hypotheses
from isthmus.models.injection import Injection
from isthmus.models.learner import Learner, Normalizer
from isthmus.models.noise import Noise

Objective = Callable[[Hypotheses, Tensor, float | None], Terms]
NUMBERS = 2**22
"""So many numbers of the first conditioned layer are held at a time; ten hypotheses at once for 800 images of 512."""


class Hypothesis(Learner):
    """Images in [0, 1] to a score v(x, y) for every label, N×C: logits of the posterior, for attacks and checks.

    Args:
        front: any module from images (normalised by ``normalize``) to what the injection takes.
        injection: the first conditioned layer.
        trunk: the others, ending in one number.
        objective: from hypotheses, labels and an optional ρ to the terms of the loss.
        eliminate: after how many layers of the trunk label information is eliminated (the injection is not counted).
        normalize, log_prior: as :class:`isthmus.models.learner.Learner` takes them.
    """

    def __init__(
        self,
        front: nn.Module,
        injection: Injection,
        trunk: nn.Sequential,
        objective: Objective,
        *,
        eliminate: int,
        normalize: Normalizer | None = None,
        log_prior: Float[Tensor, "classes"] | None = None,
    ) -> None:
        super().__init__(normalize, log_prior)
        self.front = front
        self.injection = injection
        self.trunk = trunk
        self.objective = objective
        self.eliminate = eliminate

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Scores of every label; the largest is the prediction."""
        return self._scores(self.features(images))

    def features(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """What the front says of images in [0, 1], before any hypothesis.

        Raises:
            ModelError: the front does not give one tensor with a row for each image.
        """
        features = self.front(self.normalize(images))
        if not isinstance(features, Tensor) or features.dim() < 2 or len(features) != len(images):
            given = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ModelError(
                f"The front gives {given} for {len(images)} images; one tensor is needed, with a row for each image."
            )
        return features

    def representations(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "hypotheses n d"]:
        """Outputs of the layer that label information is eliminated from, under each hypothesis."""
        return self._representations(self.features(images))

    def loss(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
        rho: float | Rho | None = None,
        noise: Noise = None,
        gather: Gather | None = None,
    ) -> Terms:
        """The objective's terms on one batch; minimise ``terms.total``. There is no noise to draw.

        The elimination's gradient stays in the conditioned layers up to ``eliminate``: neither the front nor the rest
        of the trunk can hide label information, or take part in removing it ("Guess First", appendices C and F).
        Arguments are those of every :class:`isthmus.models.learner.Learner`.
        """
        with self.checked(images, labels):
            features = self.features(images)
            scores = self._scores(features)
        hypotheses = Hypotheses(
            scores.float() if scores.dtype.itemsize < 4 else scores,
            lambda: self._representations(features.detach()),
            self.log_prior,
        )
        if gather is not None:
            hypotheses, labels = hypotheses.whole(gather), gather(labels, 0)
        return self.objective(hypotheses, labels.long(), self.trade_off(rho))

    def _scores(self, features: Tensor) -> Float[Tensor, "n classes"]:
        conditioned = self.injection.begin(features)

        def scored(labels: slice) -> Tensor:
            hidden = conditioned.under(labels)
            scores: Tensor = self.trunk(hidden.flatten(0, 1))
            if scores.numel() != len(hidden) * len(features):
                raise ModelError(
                    f"The trunk gives {tuple(scores.shape)} for {len(hidden) * len(features)} pairs of image and "
                    "label; it has to end in one number for each."
                )
            return scores.reshape(len(hidden), len(features))

        return self._each(features, conditioned.width, scored).T

    def _representations(self, features: Tensor) -> Float[Tensor, "hypotheses n d"]:
        conditioned = self.injection.begin(features)

        def hidden(labels: slice) -> Tensor:
            outputs = conditioned.under(labels)
            number = len(outputs)
            found: Tensor = self.trunk[: self.eliminate](outputs.flatten(0, 1)).reshape(number, len(features), -1)
            return found

        return self._each(features, conditioned.width, hidden)

    def _each(self, features: Tensor, width: int, look: Callable[[slice], Tensor]) -> Tensor:
        """All hypotheses' answers, one under the other; of several pieces each is computed again for its gradient.

        Args:
            features: of the images.
            width: numbers that one hypothesis takes for an image.
            look: gives the answers of some.
        """
        pieces = self._pieces(width * len(features))
        if len(pieces) == 1:
            return look(pieces[0])
        if torch.is_grad_enabled():
            # checkpoints repeat dropout on the devices of the tensors they are handed, and on no other

            def again(piece: slice, _: Tensor) -> Tensor:
                return look(piece)

            return torch.cat([checkpoint(again, piece, features, use_reentrant=False) for piece in pieces])
        first = look(pieces[0])
        found = first.new_empty(self.injection.num_classes, *first.shape[1:])  # small answers between large work would
        found[pieces[0]] = first  # keep the memory of that from being used again
        for piece in pieces[1:]:
            found[piece] = look(piece)
        return found

    def _pieces(self, numbers: int) -> list[slice]:
        """Hypotheses that are looked at together, so that memory need not grow with their number."""
        count = self.injection.num_classes
        if self.training and any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in self.trunk.modules()):
            return [slice(0, count)]  # its statistics are those of all hypotheses together
        size = max(1, min(count, NUMBERS // max(1, numbers)))
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]
