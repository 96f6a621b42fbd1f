"""Classifiers of label hypotheses: score each image under every label ("Guess First", §2.1).

The front is shared by all hypotheses; from the injection on, layers are conditioned on each of them. :func:`hypothesis`
builds such a classifier.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isthmus.core import config
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.model_options import HypothesisInjection, HypothesisLayers
from isthmus.core.tradeoff import Rho
from isthmus.core.types import Terms
from isthmus.information.codes import Gather, Hypotheses
from isthmus.information.gaussians import float32_at_least
from isthmus.models.gaussian_heads import glorot_linear
from isthmus.models.injection import Concatenation, Injection, Projection
from isthmus.models.learner import Learner, Normalizer, count_features, log_prior_of
from isthmus.models.noise import Noise
from isthmus.objectives.label_hypotheses import HypothesisObjective

NUMBERS = 2**22
"""Values of the first conditioned layer that are held at once: ten hypotheses for 800 images of 512 features."""

Size = Annotated[int, Field(gt=0)]


class HypothesisOptions(HypothesisInjection):
    """How labels enter the trunk, for :func:`hypothesis`.

    Attributes:
        eliminate: number of the trunk's modules before the representation from which label information is eliminated
            at a finite ρ; None means all but the last. With ``inject: project``, 0 is the projection.
        width: outputs of each projection, for ``inject: project``; None means the number of features.
        features: number of features, for ``inject: project``; None reads ``front.features`` or ``front.num_features``.
    """

    eliminate: int | None = None
    width: Size | None = None
    features: Size | None = None


def hypothesis(
    front: nn.Module,
    trunk: nn.Module,
    num_classes: int,
    objective: str | Mapping[str, Any] | config.Component = "donsker_varadhan",
    *,
    normalize: Normalizer | None = None,
    class_counts: Sequence[int] | None = None,
    options: HypothesisOptions | Mapping[str, Any] | None = None,
) -> Hypothesis:
    """Build a classifier whose trunk evaluates an image once under each label hypothesis, and scores it.

    ``forward`` gives N×C scores, the logits of the posterior. The front, and the part of the trunk's first layer that
    depends on its features, are computed once for all hypotheses.

    Args:
        front: unconditioned layers, an ``nn.Module`` from images to features (batch × features, or batch × channels ×
            height × width). ``nn.Identity()`` conditions all layers.
        trunk: conditioned layers that end in one number: an ``nn.Sequential`` that begins with an ``nn.Linear`` or an
            ``nn.Conv2d`` (or such a layer alone), which takes the features and the label side by side: features +
            num_classes inputs with ``inject: concatenate``, features + ``embedding`` with ``inject: embed``. With
            ``inject: project`` it takes the ``width`` outputs of each label's projection, and may be any module. A
            single layer is no trunk for a concatenation: a label would add the same number to the scores of all images.
        num_classes: number of classes.
        objective: an objective such as ``isthmus.objectives.FDivergence(rho=0)``, its name ("donsker_varadhan",
            "f_divergence" or "energy_based"), or a mapping of its options with its name.
        normalize: applied to images in [0, 1] first: a module, or (mean, std) of each channel. None passes images to
            the front unchanged.
        class_counts: number of training examples of each class, so that bounds use the entropy of the labels.
        options: see :class:`HypothesisOptions`; a mapping of its fields will do.

    Raises:
        ConfigError: an unknown objective or option, an objective of another kind, or an ``eliminate`` out of range.
        ModelError: the trunk cannot take the label, or ends with the layer that takes it; the number of features is
            unknown.
    """
    if not isinstance(num_classes, int) or num_classes < 2:
        raise ConfigError(f"A classifier needs at least two classes; got num_classes={num_classes!r}.")
    chosen = _hypothesis_objective(config.component("objectives", objective))
    settings = config.options(HypothesisOptions, options)
    layers = list(trunk) if isinstance(trunk, nn.Sequential) else [trunk]
    injection = _injection(settings, front, layers, num_classes)
    first = 0 if settings.inject == "project" else 1  # modules of the trunk that the injection contains
    eliminate = max(first, len(layers) - 1) if settings.eliminate is None else settings.eliminate
    if not first <= eliminate <= len(layers):
        raise ConfigError(
            f"eliminate={eliminate} of a trunk of {len(layers)} modules: give {first} to {len(layers)}, the number of "
            "modules before the representation."
        )
    return Hypothesis(
        front,
        injection,
        nn.Sequential(*layers[first:]),
        chosen,
        eliminate=eliminate - first,
        normalize=normalize,
        log_prior=log_prior_of(class_counts, num_classes),
    )


def _hypothesis_objective(objective: config.Component) -> HypothesisObjective:
    if not isinstance(objective, HypothesisObjective):
        raise ConfigError(
            f"The objective {objective.name!r} does not score label hypotheses; use donsker_varadhan, f_divergence or "
            "energy_based, or (in a recipe: without model.hypothesis) isthmus.bottleneck for this one."
        )
    return objective


def _injection(
    settings: HypothesisOptions, front: nn.Module, layers: Sequence[nn.Module], num_classes: int
) -> Injection:
    if settings.inject == "project":
        number = count_features(front, settings.features)
        return Projection(number, settings.width or number, num_classes)
    if not layers or not isinstance(layers[0], nn.Linear | nn.Conv2d):
        first = type(layers[0]).__name__ if layers else "nothing"
        raise ModelError(
            f"The trunk begins with {first}; a label can be concatenated before an nn.Linear or an nn.Conv2d. "
            "Give an nn.Sequential that begins with one, or use inject='project'."
        )
    injection = Concatenation(layers[0], num_classes, settings.embedding if settings.inject == "embed" else None)
    if len(layers) == 1:
        raise ModelError(
            "A trunk of one layer adds each label's number to the image's, so that all images get one prediction; "
            "give it a hidden layer, or use inject='project' with width=1 and nn.Identity()."
        )
    return injection


def hypothesis_of_recipe(
    front: nn.Module,
    num_classes: int,
    objective: config.Component,
    layers: HypothesisLayers,
    normalize: nn.Module | None,
    class_counts: Sequence[int] | None,
    features: int | None = None,
) -> Hypothesis:
    """The model of a recipe: fully connected layers with ReLU as the trunk, Glorot-uniform."""
    features = count_features(front, features)
    if not layers.hidden and _hypothesis_objective(objective).rho < math.inf:
        raise ConfigError("Label information is eliminated from a hidden layer; model.hypothesis.hidden has none.")
    project, width = layers.inject == "project", None
    sizes, trunk = list(layers.hidden), list[nn.Module]()
    if project:
        width = sizes[0] if sizes else 1
        trunk = [nn.ReLU()] if sizes else []
        sizes = sizes or [width]
    else:
        sizes = [features + (num_classes if layers.inject == "concatenate" else layers.embedding), *sizes]
    for inputs, outputs in itertools.pairwise(sizes):
        trunk += [glorot_linear(inputs, outputs), nn.ReLU()]
    if layers.hidden:
        trunk.append(glorot_linear(sizes[-1], 1))
    options = HypothesisOptions(
        inject=layers.inject,
        embedding=layers.embedding,
        eliminate=2 * layers.eliminated - project if layers.hidden else None,
        width=width,
        features=features,
    )
    return hypothesis(
        front,
        nn.Sequential(*trunk),
        num_classes,
        objective,
        normalize=normalize,
        class_counts=class_counts,
        options=options,
    )


class Hypothesis(Learner):
    """Images in [0, 1] to a score v(x, y) for every label, N×C: logits of the posterior, for attacks and checks.

    Args:
        front: any module from images (normalised by ``normalize``) to what the injection takes.
        injection: the first conditioned layer.
        trunk: the other layers, ending in one number.
        objective: the loss.
        eliminate: number of layers of the trunk before the representation from which label information is eliminated
            (without the injection).
        normalize, log_prior: see :class:`isthmus.models.learner.Learner`.
    """

    def __init__(
        self,
        front: nn.Module,
        injection: Injection,
        trunk: nn.Sequential,
        objective: HypothesisObjective,
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
        self.configured = objective.configured
        self.eliminate = eliminate

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Scores of all labels; the largest is the prediction."""
        return self._scores(self.features(images))

    def features(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The front's features of images in [0, 1], before any hypothesis.

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
        """Outputs, under each hypothesis, of the layer from which label information is eliminated."""
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

        The elimination's gradient reaches only the conditioned layers up to ``eliminate``: neither the front nor the
        rest of the trunk can hide label information, or take part in removing it ("Guess First", appendices C and F).
        Arguments as in :meth:`isthmus.models.learner.Learner.loss`.
        """
        with self.checked(images, labels):
            features = self.features(images)
            scores = self._scores(features)
        hypotheses = Hypotheses(
            float32_at_least(scores),
            lambda: self._representations(features.detach()),
            self.log_prior,
        )
        if gather is not None:
            hypotheses, labels = hypotheses.whole(gather), gather(labels, 0)
        return self.objective.terms(hypotheses, labels.long(), self.trade_off(rho))

    def _scores(self, features: Tensor) -> Float[Tensor, "n classes"]:
        return self._under_each(features, self.trunk, one_number=True).squeeze(-1).T

    def _representations(self, features: Tensor) -> Float[Tensor, "hypotheses n d"]:
        return self._under_each(features, self.trunk[: self.eliminate])

    def _under_each(
        self, features: Tensor, layers: nn.Module, one_number: bool = False
    ) -> Float[Tensor, "hypotheses n d"]:
        """Outputs of layers after the injection, under each hypothesis."""
        conditioned = self.injection.begin(features)

        def outputs(labels: slice) -> Tensor:
            hidden = conditioned.under(labels)
            found: Tensor = layers(hidden.flatten(0, 1))
            pairs = len(hidden) * len(features)
            if one_number and found.numel() != pairs:
                raise ModelError(
                    f"The trunk gives {tuple(found.shape)} for {pairs} pairs of image and label; it must end in one "
                    "number for each."
                )
            return found.reshape(len(hidden), len(features), -1)

        return self._each(features, conditioned.width, outputs)

    def _each(self, features: Tensor, width: int, compute: Callable[[slice], Tensor]) -> Tensor:
        """Outputs of all hypotheses, stacked. With several pieces, each is recomputed in the backward pass.

        Args:
            features: the images' features.
            width: size of the first layer's output for one image and hypothesis.
            compute: gives the outputs of a slice of hypotheses.
        """
        pieces = self._pieces(width * len(features))
        if len(pieces) == 1:
            return compute(pieces[0])
        if torch.is_grad_enabled():
            # a checkpoint restores the dropout state only on the devices of its tensor arguments

            def again(piece: slice, _: Tensor) -> Tensor:
                return compute(piece)

            return torch.cat([checkpoint(again, piece, features, use_reentrant=False) for piece in pieces])
        first = compute(pieces[0])
        # allocated at once: small results between large intermediates would fragment memory
        found = first.new_empty(self.injection.num_classes, *first.shape[1:])
        found[pieces[0]] = first
        for piece in pieces[1:]:
            found[piece] = compute(piece)
        return found

    def _pieces(self, numbers: int) -> list[slice]:
        """Slices of hypotheses that are computed together, so that memory does not grow with their number."""
        count = self.injection.num_classes
        if self.training and any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in self.trunk.modules()):
            return [slice(0, count)]  # batch statistics are taken over all hypotheses
        size = max(1, min(count, NUMBERS // max(1, numbers)))
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]
