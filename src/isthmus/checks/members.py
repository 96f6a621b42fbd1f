"""The examples that a classifier was trained on: where they lie, which of them are shown to it, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.checks.views import MEAN, STOCHASTIC

if TYPE_CHECKING:
    from jaxtyping import Int64
    from torch import Tensor

    from isthmus.checks.context import Context


class Labelled(Protocol):
    """Labelled images that are read when they are needed: a split of data (:class:`isthmus.data.images.Examples`), or
    :class:`InMemory`."""

    @property
    def images(self) -> Tensor:
        """N×C×H×W: bytes, or floats in [0, 1]."""

    @property
    def labels(self) -> Tensor:
        """N class indices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of every image."""

    def __len__(self) -> int: ...

    def select(self, indices: Int64[Tensor, " m"], /) -> Labelled:
        """The examples at these positions, in this order."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Images in [0, 1] and labels that somebody handed over, on any device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of every image."""
        return tuple(self.images.shape[1:])

    def select(self, indices: Int64[Tensor, " m"], /) -> InMemory:
        """The examples at these positions, in this order."""
        return InMemory(self.images[indices.to(self.images.device)], self.labels[indices.to(self.labels.device)])


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """What a classifier was trained on, and a SHA-256 (hex) that tells it from other examples."""

    examples: Labelled
    hash: str


def alike(labels: Int64[Tensor, " n"], audited: Int64[Tensor, " m"], most: int | None = None) -> Int64[Tensor, " k"]:
    """Positions of as many examples of each class as are audited, or all where there are fewer.

    So both have the same classes in the same shares, wherever the data allow it, and a difference between them is not
    one of which classes there are more of. Always the same ones: the first of a class in the fixed shuffle of
    :func:`isthmus.data.order.balanced`. A smaller ``most`` keeps the shares and gives the first of the same positions.
    """
    import torch

    from isthmus.data.order import balanced

    labels, audited = labels.cpu(), audited.cpu()
    order = balanced(labels)
    classes = labels[order]
    wanted = audited.bincount(minlength=int(classes.max()) + 1)[classes]
    counts = classes.bincount()
    by_class = classes.argsort(stable=True)
    ranks = torch.empty_like(order)
    ranks[by_class] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[classes[by_class]]
    kept = ranks < wanted
    share = (ranks[kept] + 0.5) / wanted[kept]
    return order[kept][share.argsort(stable=True)][:most]


def answers(
    context: Context,
    examples: Labelled,
    positions: Int64[Tensor, " k"],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, NDArray[Any]]:
    """Logits or log-probabilities, by mode, of the examples at these positions; a batch of them is read at a time.

    Args:
        progress: called with (done, total) examples.

    Raises:
        DataError: a file is missing or no image.
    """
    import torch

    from isthmus.checks.context import answer
    from isthmus.core import randomness
    from isthmus.data.images import as_float

    device = context.images.device
    modes = {MEAN: context.model} | ({} if context.stochastic is None else {STOCHASTIC: context.stochastic})
    found: dict[str, list[NDArray[Any]]] = {mode: [] for mode in modes}
    for start in range(0, len(positions), context.batch_size):
        progress(start, len(positions))
        part = positions[start : start + context.batch_size]
        images = examples.select(part).images
        images = as_float(images) if images.dtype == torch.uint8 else images.float()
        keys = randomness.fold(randomness.example_keys(context.seed, part.to(device)), "members/example")
        for mode, model in modes.items():
            found[mode].append(answer(model, images.to(device), keys).numpy())
    return {mode: np.concatenate(parts) for mode, parts in found.items()}
