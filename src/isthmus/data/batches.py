"""Batches of a split; each can be reproduced separately."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.randomness import example_keys, fold
from isthmus.core.training_options import Augmentation, named_augmentation
from isthmus.data.augmentation import Drawn, augment, check, draw_all
from isthmus.data.images import Examples, as_float
from isthmus.data.order import shuffled
from isthmus.data.prefetch import read


class Batch(NamedTuple):
    """One batch, on its device.

    Attributes:
        images: float32 in [0, 1], B×C×H×W.
        labels: int64, B.
        indices: int64, B; positions in the split, for randomness keyed by example.
    """

    images: Float[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"]
    indices: Int64[Tensor, " b"]


@dataclass(frozen=True)
class Batches:
    """The batches of a split, epoch by epoch.

    Order and augmentation depend only on (seed, epoch, example). So a resumed run continues within an epoch with
    bitwise the same batches, and several processes together yield the batches of one.

    Attributes:
        batch_size: images per batch, over all processes.
        shuffle: a new order each epoch; otherwise the order of the split.
        augment: a name of :data:`isthmus.core.training_options.AUGMENTATIONS` such as "crop_flip", or an
            :class:`isthmus.core.training_options.Augmentation`.
        drop_last: skip a last batch that is smaller than the others.
        channels_last: memory format of the images.
        device: of the batches; transfers to a GPU are asynchronous from pinned memory.
        rank, world: number of this process and number of processes; each yields every ``world``-th example of a batch.

    Raises:
        ConfigError: ``augment`` is an unknown name.
        DataError: ``drop_last`` would skip all images, or the images do not fit the augmentation.
        ValueError: several processes without ``drop_last``, or a batch size that they cannot share evenly.
    """

    split: Examples = field(repr=False)
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    augment: Augmentation | str = "none"
    drop_last: bool = False
    channels_last: bool = False
    device: torch.device | str = "cpu"
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size}")
        check(self._augmentation, self.split.shape)
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank must lie in 0 … {self.world - 1}; got {self.rank}")
        if self.world > 1 and (not self.drop_last or self.batch_size % self.world):
            raise ValueError(
                f"{self.world} processes share batches evenly: set drop_last, and a batch_size that "
                f"{self.world} divides; got drop_last={self.drop_last}, batch_size={self.batch_size}"
            )
        if len(self) == 0:
            raise DataError(
                f"batch_size={self.batch_size} with drop_last leaves no batch of {len(self.split)} images; "
                f"give a batch_size of at most {len(self.split)}."
            )

    @cached_property
    def _augmentation(self) -> Augmentation:
        return named_augmentation(self.augment)

    def __len__(self) -> int:
        """Batches per epoch."""
        n = len(self.split)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch number ``start`` on (``start = len(self)`` gives none).

        Raises:
            ValueError: ``start`` lies outside the epoch.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must lie in 0 … {len(self)}, the batches of an epoch; got {start}")
        return self._serve(epoch, start)

    def _serve(self, epoch: int, start: int) -> Iterator[Batch]:
        keys = fold(example_keys(self.seed, torch.arange(len(self.split))), "batches/epoch", epoch)
        order = shuffled(fold(keys, "batches/order")) if self.shuffle else torch.arange(len(self.split))
        drawn = draw_all(self._augmentation, keys, *self.split.shape[1:])
        firsts = range(start * self.batch_size, len(self) * self.batch_size, self.batch_size)
        shares = (order[first : first + self.batch_size][self.rank :: self.world] for first in firsts)
        crops = fold(keys, "batches/resized_crop") if self._augmentation.resized_crop else None
        for indices, images in read(self.split, shares, crops):
            yield self._batch(indices, images, drawn)

    def _batch(self, indices: Tensor, images: Tensor, drawn: Drawn) -> Batch:
        images = self._moved(images)
        labels = self._moved(self.split.labels.index_select(0, indices))
        # transferred and augmented as bytes: a quarter of the size
        images = augment(images, drawn.at(indices), self._augmentation)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return Batch(as_float(images), labels, self._moved(indices))

    def _moved(self, tensor: Tensor) -> Tensor:
        if torch.device(self.device).type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)
