"""Augmentation of training images: AutoAugment, crop and flip, cutout, in this order, with one key per example.

A resized crop comes first, when images are read (:mod:`isthmus.data.prefetch`).
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Int64, UInt8
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.randomness import fold
from isthmus.core.training_options import Augmentation
from isthmus.data.autoaugment.apply import apply
from isthmus.data.autoaugment.operations import Operations, draw
from isthmus.data.crops import crop_flip, cutout, draw_centres, draw_moves


class Drawn(NamedTuple):
    """Random choices for n images; None for parts that are off.

    Attributes:
        operations: for :func:`isthmus.data.autoaugment.apply.apply`.
        moves: int64, n, for :func:`isthmus.data.crops.crop_flip`.
        centres: int64, n×2, for :func:`isthmus.data.crops.cutout`.
    """

    operations: Operations | None
    moves: Int64[Tensor, " n"] | None
    centres: Int64[Tensor, "n 2"] | None

    def at(self, indices: Int64[Tensor, " m"]) -> Drawn:
        """The choices for some of the images, in this order."""
        return Drawn(
            None if self.operations is None else self.operations.at(indices),
            None if self.moves is None else self.moves.index_select(0, indices),
            None if self.centres is None else self.centres.index_select(0, indices),
        )


def check(augmentation: Augmentation, shape: tuple[int, ...]) -> None:
    """Check that images of this shape (C, H, W) can be augmented.

    Raises:
        DataError: AutoAugment or a resized crop of images with neither 1 nor 3 channels, or a cutout that can cover a
            whole image.
    """
    channels, height, width = shape
    if augmentation.autoaugment is not None and channels not in (1, 3):
        raise DataError(
            f"AutoAugment is for images of 1 or 3 channels; these have {channels}. Set autoaugment to null."
        )
    if augmentation.resized_crop and channels not in (1, 3):
        raise DataError(
            f"resized_crop is for images of 1 or 3 channels; these have {channels}. Set resized_crop to false."
        )
    if augmentation.cutout >= min(height, width):
        raise DataError(
            f"cutout={augmentation.cutout} can blacken whole images of {height}×{width}; "
            f"give at most {min(height, width) - 1}, or 0 for none."
        )


def draw_all(augmentation: Augmentation, keys: Int64[Tensor, " n"], height: int, width: int) -> Drawn:
    """Draw the choices for each key and images of this size."""
    policy = augmentation.autoaugment
    return Drawn(
        operations=None if policy is None else draw(fold(keys, "augmentation/policy"), policy),
        moves=draw_moves(fold(keys, "augmentation/crop_flip")) if augmentation.crop_flip else None,
        centres=draw_centres(fold(keys, "augmentation/cutout"), height, width) if augmentation.cutout else None,
    )


def augment(images: UInt8[Tensor, "n c h w"], drawn: Drawn, augmentation: Augmentation) -> UInt8[Tensor, "n c h w"]:
    """Augment each image by its choices.

    Args:
        drawn: from :func:`draw_all`, on the CPU even for images elsewhere.
        augmentation: the options that it was drawn for.
    """
    if drawn.operations is not None:
        images = apply(images, drawn.operations)
    if drawn.moves is not None:
        images = crop_flip(images, _to_device_of(images, drawn.moves))
    if drawn.centres is not None:
        images = cutout(images, _to_device_of(images, drawn.centres), augmentation.cutout)
    return images


def _to_device_of(images: Tensor, numbers: Tensor) -> Tensor:
    if images.is_cuda:
        return numbers.pin_memory().to(images.device, non_blocking=True)
    return numbers.to(images.device)
