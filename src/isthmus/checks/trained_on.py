"""The examples that a classifier was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Int64
from torch import Tensor


class Labelled(Protocol):
    """Labelled images that are read on demand: a split of data (:class:`isthmus.data.images.Examples`), or
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
    """Images in [0, 1] and labels as tensors, on any device."""

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
    """Training examples, and a SHA-256 (hex) that identifies them."""

    examples: Labelled
    hash: str
