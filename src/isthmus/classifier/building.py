"""The untrained model of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from isthmus import recipe, registry
from isthmus.classifier.assembly import bottleneck
from isthmus.classifier.guessing import guessing
from isthmus.nets.layers import Normalize
from isthmus.nets.learner import Learner

Statistics = tuple[Sequence[float], Sequence[float]]  # per-channel mean and standard deviation in [0, 1]


def build(
    given: recipe.Recipe,
    shape: tuple[int, int, int],
    num_classes: int,
    statistics: Statistics | None = None,
    class_counts: Sequence[int] | None = None,
) -> Learner:
    """Build the untrained model of a recipe; the same seed gives the same weights, torch's global state is untouched.

    Args:
        given: the recipe.
        shape: channels, height, width of its images.
        num_classes: how many classes its data has.
        statistics: per-channel mean and standard deviation in [0, 1], for ``normalize: dataset``. None where weights
            are about to be loaded over them.
        class_counts: of the training labels; loaded with the weights likewise.
    """
    model = given.model
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(given.seed)
        backbone = registry.find("nets", model.backbone.name).build(model.backbone, shape)
        normalizer = _normalizer(model.normalize, shape[0], statistics)
        if model.hypothesis is not None:
            return guessing(backbone, num_classes, given.objective, model.hypothesis, normalizer, class_counts)
        return bottleneck(
            backbone,
            num_classes,
            given.objective,
            model.dim,
            model.covariance,
            samples=model.samples,
            classifier=model.classifier,
            backward=model.backward,
            marginal=model.marginal,
            components=model.components,
            normalize=normalizer,
            class_counts=class_counts,
            levels=model.levels,
            classifier_std=model.classifier_std,
        )


def _normalizer(
    kind: Literal["symmetric", "dataset", "none"], channels: int, statistics: Statistics | None
) -> nn.Module | None:
    if kind == "none":
        return None
    if kind == "symmetric":
        return Normalize.symmetric()
    mean, std = statistics if statistics is not None else ([0.0] * channels, [1.0] * channels)
    return Normalize(mean, [deviation or 1.0 for deviation in std])  # a constant channel is only shifted
