"""The other data set of a transfer, as a classifier takes it, and what it and its adapted copies answer there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.checks.image_conversion import adapted, conversion
from isthmus.checks.security_curve import share
from isthmus.checks.views import correct, finite
from isthmus.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isthmus.checks.context import Context
    from isthmus.checks.dataset_transfer import Config
    from isthmus.data.images import Examples

Floats = NDArray[np.float64]
_AT_A_TIME = 256  # images that are converted at once


@dataclass(frozen=True, eq=False)
class Target:
    """The other data set, in the classifier's classes and on the way to its size.

    Attributes:
        said: its name.
        positions: which images of its test split are judged.
        labels: of these.
        notice: how images were converted, as a sentence.
        test, train: its splits; ``train`` has the labels ``train_labels`` in the classifier's classes.
    """

    said: str
    positions: Tensor
    labels: NDArray[np.int64]
    notice: str
    test: Examples
    train: Examples
    train_labels: Tensor


def target_of(context: Context, config: Config) -> Target:
    """The data set that a config names.

    Raises:
        DataError: it is missing, has other classes, or channels that cannot be converted.
    """
    from isthmus.data.loading import load
    from isthmus.data.order import balanced
    from isthmus.data.shift.shifted import relabelled

    data = load(config.data)
    if config.classes is None and data.num_classes != context.num_classes:
        raise DataError(
            f"{data.name} has {data.num_classes} classes, and the classifier {context.num_classes}; name data with the "
            "same classes, or give `classes`, their names in the order of the classifier's logits."
        )
    if config.classes is not None and len(config.classes) != context.num_classes:
        raise DataError(f"`classes` names {len(config.classes)} classes, and the classifier has {context.num_classes}.")
    notice = conversion(data.name, data.shape, tuple(context.images.shape[1:]), "Name data with other images.")
    positions = balanced(data.test.labels)[: config.images or len(context.labels)]
    labels, _ = relabelled(data.test.labels[positions], data.classes, config.classes, data.name)
    split = data.training_split() if config.draws else data.train
    train, _ = relabelled(split.labels, data.classes, config.classes, data.name)
    return Target(data.name, positions, labels.numpy(), notice, data.test, split, train)


def _images(split: Examples, positions: Tensor, context: Context) -> Tensor:
    """Some of a split's images as the classifier takes them, on its device."""
    import torch

    from isthmus.data.images import as_float

    shape = tuple(context.images.shape[1:])
    parts = [adapted(as_float(split.select(part).images), shape) for part in torch.split(positions, _AT_A_TIME)]
    return torch.cat(parts).to(context.images.device)


def judged(
    model: nn.Module, target: Target, context: Context, part: int, parts: int
) -> tuple[NDArray[np.bool_], Floats]:
    """Whether each image is right, and its margin, NaN without an answer."""
    import torch

    from isthmus.checks.context import answer
    from isthmus.core import randomness

    progress, logits = share(context.progress, part, parts), list[NDArray[Any]]()
    for rows in torch.split(torch.arange(len(target.positions)), context.batch_size):
        positions = target.positions[rows]
        keys = randomness.example_keys(context.seed, positions.to(context.images.device))
        keys = randomness.fold(keys, "transfer_target/image")
        logits.append(answer(model, _images(target.test, positions, context), keys).numpy())
        progress(int(rows[-1]) + 1, len(target.positions))
    answers = np.concatenate(logits)
    answered, margin = finite(answers), np.full(len(answers), np.nan)
    chances = np.sort(metrics.probabilities(answers[answered]), axis=1)
    margin[answered] = chances[:, -1] - chances[:, -2]
    return correct(answers, target.labels), margin


def copies(
    target: Target, context: Context, config: Config, before: int, parts: int
) -> tuple[NDArray[np.bool_], Floats, NDArray[np.int64]]:
    """Outcomes and margins of each adapted copy, and by which examples it was adapted."""
    from isthmus.checks.one_shot import adapt, one_of_each

    outcomes, examples = [], []
    for draw in range(config.draws):
        chosen = one_of_each(target.train_labels, draw, context.seed)
        images = _images(target.train, chosen, context)
        twin = adapt(context, images, target.train_labels[chosen], draw, config)
        outcomes.append(judged(twin, target, context, before + draw, parts))
        examples.append(chosen.numpy())
    rights, margins = (np.stack(column) for column in zip(*outcomes, strict=True))
    return rights, margins, np.stack(examples)
