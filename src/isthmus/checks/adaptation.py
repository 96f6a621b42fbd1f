"""Another data set as the input of a classifier, and copies of the classifier that are adapted to it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from isthmus import metrics
from isthmus.checks.context import Context, correct, finite, part, spread
from isthmus.checks.other_data import adapted, conversion, labels_for
from isthmus.core.config import Component
from isthmus.core.errors import one_line
from isthmus.core.randomness import example_keys, fold, uniform
from isthmus.data.images import Examples, as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.models.learner import Learner

Floats = NDArray[np.float64]
_CONVERTED_AT_ONCE = 256  # images


@dataclass(frozen=True, eq=False)
class Target:
    """The other data set, in the classifier's classes.

    Attributes:
        name: of the data set.
        positions: which images of its test split are classified.
        labels: of these.
        notice: how images were converted, as a sentence.
        test, train: its splits; ``train`` has the labels ``train_labels`` in the classifier's classes.
    """

    name: str
    positions: Tensor
    labels: NDArray[np.int64]
    notice: str
    test: Examples
    train: Examples
    train_labels: Tensor


@dataclass(frozen=True)
class Adaptation:
    """Options of one-shot adaptation; see :class:`isthmus.checks.dataset_transfer.DatasetTransfer`."""

    draws: int
    steps: int
    learning_rate: float
    degrees: float


def target_of(
    context: Context, given: Component, classes: Sequence[str] | None, images: int | None, adapt: bool
) -> Target:
    """Load a data set and match its classes with the classifier's.

    Args:
        images: how many of its test images; as many as are audited if None.
        adapt: whether its training split is used.

    Raises:
        DataError: it is missing, has other classes, or channels that cannot be converted.
    """
    data = load(given)
    notice = conversion(data.name, data.shape, tuple(context.images.shape[1:]), "Name data with other images.")
    positions = balanced(data.test.labels)[: images or len(context.labels)]
    labels = labels_for(data.test.labels[positions], data, classes, context.num_classes)
    split = data.training_split() if adapt else data.train
    train = labels_for(split.labels, data, classes, context.num_classes)
    return Target(data.name, positions, labels.numpy(), notice, data.test, split, train)


def _images(split: Examples, positions: Tensor, context: Context) -> Tensor:
    """Some of a split's images in the classifier's size and channels, on its device."""
    shape = tuple(context.images.shape[1:])
    parts = [adapted(as_float(split.select(rows).images), shape) for rows in torch.split(positions, _CONVERTED_AT_ONCE)]
    return torch.cat(parts).to(context.images.device)


def classified(
    model: nn.Module, target: Target, context: Context, position: int, parts: int
) -> tuple[NDArray[np.bool_], Floats]:
    """Whether each image is classified correctly, and its margin, NaN if logits are not finite."""

    def load(rows: Tensor) -> tuple[Tensor, Tensor]:
        positions = target.positions[rows]
        keys = fold(example_keys(context.seed, positions.to(context.images.device)), "adaptation/image")
        return _images(target.test, positions, context), keys

    progress = part(context.progress, position, parts)
    logits = context.predictions(load, len(target.positions), {"": model}, progress)[""]
    known = finite(logits)
    return correct(logits, target.labels), spread(metrics.prediction_margin(logits[known]), known)


def adapted_copies(
    target: Target, context: Context, adaptation: Adaptation, before: int, parts: int
) -> tuple[NDArray[np.bool_], Floats, NDArray[np.int64]]:
    """Outcomes and margins of each adapted copy, and the examples that it was adapted to."""
    outcomes, examples = [], []
    for draw in range(adaptation.draws):
        chosen = one_of_each(target.train_labels, draw, context.seed)
        images = _images(target.train, chosen, context)
        adapted_model = adapt(context, images, target.train_labels[chosen], draw, adaptation)
        outcomes.append(classified(adapted_model, target, context, before + draw, parts))
        examples.append(chosen.numpy())
    rights, margins = (np.stack(column) for column in zip(*outcomes, strict=True))
    return rights, margins, np.stack(examples)


def one_of_each(labels: Int[Tensor, " m"], draw: int, seed: int) -> Int[Tensor, " k"]:
    """Positions of one random example of each class, by ascending class, other ones for each draw."""
    classes = labels.bincount().nonzero().squeeze(1)
    fractions = uniform(fold(example_keys(seed, classes), "adaptation/example", draw), (1,)).squeeze(1)
    positions = []
    for label, fraction in zip(classes.tolist(), fractions.tolist(), strict=True):
        own = (labels == label).nonzero().squeeze(1)
        positions.append(own[int(fraction * len(own))])
    return torch.stack(positions)


def obstacle(context: Context) -> str:
    """Why a classifier cannot be adapted; "" if it can."""
    if context.draws > 1:
        return "its predictions are random, and only their average is used"
    try:
        clone = _trainable_copy(context.model)
        with torch.enable_grad():
            logits = clone(context.images[:2])
    except Exception as error:  # a user's module may be impossible to copy, or to train, in any way
        return f"it cannot be copied ({one_line(error)})"
    return "" if logits.requires_grad else "its logits do not depend on trainable parameters"


def _trainable_copy(model: nn.Module) -> nn.Module:
    """A copy whose parameters require gradients, except those that our own losses must not change."""
    clone = copy.deepcopy(model)
    frozen = {id(parameter) for parameter in clone.fitted_beside()} if isinstance(clone, Learner) else set()
    for parameter in clone.parameters():
        parameter.requires_grad_(parameter.is_floating_point() and id(parameter) not in frozen)
    return clone


def adapt(
    context: Context,
    images: Float[Tensor, "k c h w"],
    labels: Int[Tensor, " k"],
    draw: int,
    adaptation: Adaptation,
) -> nn.Module:
    """A copy of the audited model after some steps of plain SGD on all of these images at once.

    At every step each image is rotated by a random angle. The copy stays in eval mode: ten images are too few for batch
    normalisation. Our own models use their own loss, others the cross-entropy.
    """
    clone, device = _trainable_copy(context.model), context.images.device
    optimizer = torch.optim.SGD([p for p in clone.parameters() if p.requires_grad], lr=adaptation.learning_rate)
    images, labels = images.to(device), labels.to(device)
    keys = fold(example_keys(context.seed, labels), "adaptation/copy", draw)
    noise = torch.Generator(device).manual_seed(int(fold(keys[:1], "adaptation/noise")) & 0x7FFFFFFF)
    with torch.enable_grad():
        for step in range(adaptation.steps):
            angles = (2 * uniform(fold(keys, "adaptation/angle", step), (1,)).squeeze(1) - 1) * adaptation.degrees
            turned = rotated(images, angles)
            optimizer.zero_grad()
            if isinstance(clone, Learner):
                loss = clone.loss(turned, labels, noise=noise).total
            else:
                loss = cross_entropy(clone(turned), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return clone.requires_grad_(False)


def rotated(images: Float[Tensor, "k c h w"], degrees: Float[Tensor, " k"]) -> Float[Tensor, "k c h w"]:
    """Each image rotated counter-clockwise around its centre, bilinear; the border is extended."""
    turn = torch.deg2rad(degrees.to(images.dtype))
    height, width = images.shape[2:]
    cosine, sine, none = turn.cos(), turn.sin(), torch.zeros_like(turn)
    # affine_grid measures either side of the image as 2, so the aspect ratio enters between the axes
    rows = [cosine, -sine * height / width, none, sine * width / height, cosine, none]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
