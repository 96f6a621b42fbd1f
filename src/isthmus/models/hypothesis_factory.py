"""Building classifiers of label hypotheses around any front and trunk."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from isthmus.core import config, recipe, registry
from isthmus.core.errors import ConfigError, ModelError, unknown
from isthmus.models.factory import count_features, log_prior_of
from isthmus.models.gaussian_heads import glorot_linear
from isthmus.models.hypothesis import Hypothesis
from isthmus.models.injection import Concatenation, Inject, Injection, Projection
from isthmus.models.learner import Normalizer

INJECTIONS: tuple[Inject, ...] = ("concatenate", "embed", "project")
EMBEDDING = 32


def hypothesis(
    front: nn.Module,
    trunk: nn.Module,
    num_classes: int,
    inject: Inject = "concatenate",
    objective: str | Mapping[str, Any] | config.Component = "donsker_varadhan",
    *,
    eliminate: int | None = None,
    embedding: int = EMBEDDING,
    width: int | None = None,
    features: int | None = None,
    normalize: Normalizer | None = None,
    class_counts: Sequence[int] | None = None,
) -> Hypothesis:
    """A classifier whose trunk looks at an image once under each label hypothesis, and scores it.

    ``forward`` gives N×C scores, which are logits of the posterior. What the front does, and the trunk's first layer on
    its features, is computed once for all hypotheses.

    Args:
        front: unconditioned layers, an ``nn.Module`` from images to features (batch × features, or batch × channels ×
            height × width). ``nn.Identity()`` conditions from the image on.
        trunk: conditioned layers, ending in one number: an ``nn.Sequential`` that begins with an ``nn.Linear`` or an
            ``nn.Conv2d`` (or such a layer alone), which takes the features and the label side by side: with
            ``inject="concatenate"`` features + num_classes inputs, with "embed" features + ``embedding``. With
            "project" it takes the ``width`` numbers that each label's own projection gives, and may be anything. The
            first layer alone is no trunk for a concatenation: a label would add one number to every image's alike.
        num_classes: how many classes.
        inject: "concatenate" one-hot labels (the paper's way), "embed" them (learned vectors, for many classes), or
            "project" features by a matrix of each label's own. A projection to one number followed by
            ``nn.Identity()`` is the hypothesis at the output: an ordinary linear classifier.
        objective: "donsker_varadhan", "f_divergence" or "energy_based", with options as a mapping:
            ``{"name": "f_divergence", "divergence": "js", "rho": 0}``.
        eliminate: how many modules of the trunk come before the representation that label information is eliminated
            from, where ρ is finite; all but the last where None. With "project" 0 is the projection itself.
        embedding: size of a learned label vector, for "embed".
        width: of a projection, for "project"; as many as features where None.
        features: number of features for "project"; read from ``front.features`` (or ``num_features``) where None.
        normalize: applied to images in [0, 1] first: a module, or (mean, std) of each channel; None hands them to the
            front as they are.
        class_counts: how many training examples each class has, so that bounds use the labels' own entropy.

    Raises:
        ConfigError: an unknown way of injecting, objective or option; one of another kind; a size or ``eliminate`` out
            of range.
        ModelError: the trunk does not begin with a layer that can take the label, or ends with it; the number of
            features is unknown.
    """
    if inject not in INJECTIONS:
        raise ConfigError(unknown("injection", inject, INJECTIONS))
    if not isinstance(num_classes, int) or num_classes < 2:
        raise ConfigError(f"A classifier needs two classes at least; got num_classes={num_classes!r}.")
    for name, size in (("embedding", embedding), ("width", width)):
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ConfigError(f"{name} is a number of units, 1 at least; got {size!r}.")
    chosen = config.component("objectives", objective)
    module = _that_scores(chosen)
    layers = list(trunk) if isinstance(trunk, nn.Sequential) else [trunk]
    injection: Injection
    if inject == "project":
        number = count_features(front, features)
        injection, rest, before = Projection(number, width or number, num_classes), layers, 0
    else:
        if not layers or not isinstance(layers[0], nn.Linear | nn.Conv2d):
            first = type(layers[0]).__name__ if layers else "nothing"
            raise ModelError(
                f"The trunk begins with {first}; a label can be concatenated before an nn.Linear or an nn.Conv2d. "
                "Give an nn.Sequential that begins with one, or use inject='project'."
            )
        injection = Concatenation(layers[0], num_classes, embedding if inject == "embed" else None)
        rest, before = layers[1:], 1
        if not rest:
            raise ModelError(
                "A trunk of one layer adds each label's number to the image's, so that all images get one prediction; "
                "give it a hidden layer, or use inject='project' with width=1 and nn.Identity()."
            )
    last = max(before, len(layers) - 1) if eliminate is None else eliminate
    if not before <= last <= len(layers):
        raise ConfigError(
            f"eliminate={last} of a trunk of {len(layers)} modules: give {before} to {len(layers)}, how many of them "
            "come before the representation."
        )
    model = Hypothesis(
        front,
        injection,
        nn.Sequential(*rest),
        lambda hypotheses, labels, rho: module.terms(chosen, hypotheses, labels, rho),
        eliminate=last - before,
        normalize=normalize,
        log_prior=log_prior_of(class_counts, num_classes),
    )
    model.configured = getattr(chosen, "configured", "")
    return model


def _that_scores(objective: config.Component) -> Any:
    """The module of an objective on label hypotheses."""
    module = registry.find("objectives", objective.name)
    if "hypotheses" not in module.PARTS:
        raise ConfigError(
            f"The objective {objective.name!r} does not score label hypotheses; use donsker_varadhan, f_divergence or "
            "energy_based, or (in a recipe: without model.hypothesis) isthmus.bottleneck for this one."
        )
    return module


def guessing(
    front: nn.Module,
    num_classes: int,
    objective: config.Component,
    options: recipe.Guesses,
    normalize: nn.Module | None,
    class_counts: Sequence[int] | None,
) -> Hypothesis:
    """The model of a recipe: fully-connected layers with ReLU as the trunk, Glorot-uniform."""
    number = count_features(front, None)
    _that_scores(objective)
    if not options.hidden and getattr(objective, "rho", math.inf) < math.inf:
        raise ConfigError("Label information is eliminated from a hidden layer; model.hypothesis.hidden has none.")
    hidden = list(options.hidden)
    if options.inject == "project":
        width = hidden.pop(0) if hidden else 1
        layers: list[nn.Module] = [nn.ReLU()] if options.hidden else []
        sizes = [width, *hidden]
    else:
        width = None
        layers = []
        sizes = [number + (num_classes if options.inject == "concatenate" else options.embedding), *hidden]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [glorot_linear(inputs, outputs), nn.ReLU()]
    if options.hidden:
        layers.append(glorot_linear(sizes[-1], 1))
    return hypothesis(
        front,
        nn.Sequential(*layers),
        num_classes,
        options.inject,
        objective,
        eliminate=2 * options.eliminated - (options.inject == "project") if options.hidden else None,
        embedding=options.embedding,
        width=width,
        normalize=normalize,
        class_counts=class_counts,
    )
