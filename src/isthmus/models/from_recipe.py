"""The untrained model of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from isthmus.core import recipe, registry
from isthmus.core.errors import ModelError, brief
from isthmus.data.images import Examples, ImageData, as_float
from isthmus.models.backbones.layers import Normalize
from isthmus.models.factory import bottleneck
from isthmus.models.hypothesis_factory import guessing
from isthmus.models.learner import Learner
from isthmus.models.whitening import Whitening

_AT_A_TIME = 1000  # images that a transform is fitted to


def build(
    given: recipe.Recipe,
    shape: tuple[int, int, int],
    num_classes: int,
    data: ImageData | None = None,
    class_counts: Sequence[int] | None = None,
) -> Learner:
    """Build the untrained model of a recipe; the same seed gives the same weights, torch's global state is untouched.

    Args:
        given: the recipe.
        shape: channels, height, width of its images.
        num_classes: how many classes its data has.
        data: whose training images ``normalize: dataset`` and whitening are fitted to. None where weights are about to
            be loaded over that.
        class_counts: of the training labels; loaded with the weights likewise.

    Raises:
        ConfigError, ModelError: options that do not fit one another or the images, or a model too large for memory.
    """
    try:
        return _built(given, shape, num_classes, data, class_counts)
    except (RuntimeError, MemoryError) as error:  # torch's words for sizes that overflow or find no memory
        raise ModelError(
            f"The recipe's model cannot be built for images of {'×'.join(map(str, shape))} and {num_classes} classes "
            f"({brief(error)}); give smaller sizes."
        ) from error


def _built(
    given: recipe.Recipe,
    shape: tuple[int, int, int],
    num_classes: int,
    data: ImageData | None,
    class_counts: Sequence[int] | None,
) -> Learner:
    model = given.model
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(given.seed)
        normalizer = _normalizer(model.normalize, shape, data)
        entering = normalizer.shape if isinstance(normalizer, Whitening) else shape
        backbone = registry.find("backbones", model.backbone.name).build(model.backbone, entering)
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
            classifier_unit_norm=model.classifier_unit_norm,
            classifier_hidden=model.classifier_hidden,
            encoder_std=model.encoder_std,
            encoder_std_offset=model.encoder_std_offset,
        )


def _normalizer(
    kind: Literal["symmetric", "dataset", "none"] | recipe.Whiten, shape: tuple[int, int, int], data: ImageData | None
) -> nn.Module | None:
    if kind == "none":
        return None
    if kind == "symmetric":
        return Normalize.symmetric()
    if isinstance(kind, recipe.Whiten):
        whitening = Whitening(shape, kind.components, kind.epsilon, kind.size)
        return whitening if data is None else whitening.fit(lambda: _batches(data.train))
    mean, std = ((0.0,) * shape[0], (1.0,) * shape[0]) if data is None else (data.mean, data.std)
    return Normalize(mean, [deviation or 1.0 for deviation in std])  # a constant channel is only shifted


def _batches(examples: Examples) -> Iterator[Tensor]:
    """All images in [0, 1], a few at a time; those that lie in files are decoded as they are needed."""
    for part in torch.split(torch.arange(len(examples)), _AT_A_TIME):
        yield as_float(examples.select(part).images)
