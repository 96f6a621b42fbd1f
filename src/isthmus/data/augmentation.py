"""What happens to training images: AutoAugment, crop and flip, cutout, in this order, all of it keyed by example.

A resized crop comes before all of them: it is taken where images are read (:mod:`isthmus.data.read`).
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Int64, UInt8
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.randomness import fold
from isthmus.core.recipe import Augmentation
from isthmus.data.autoaugment.apply import apply
from isthmus.data.autoaugment.operations import Operations, draw
from isthmus.data.crop_flip import crop_flip, moves
from isthmus.data.cutout import centres, cutout


class Drawn(NamedTuple):
    """What was drawn for n images; None where that part is off.

    Attributes:
        operations: for :func:`isthmus.data.autoaugment.apply.apply`.
        moves: int64, n, for :func:`isthmus.data.crop_flip.crop_flip`.
        centres: int64, n×2, for :func:`isthmus.data.cutout.cutout`.
    """

    operations: Operations | None
    moves: Int64[Tensor, " n"] | None
    centres: Int64[Tensor, "n 2"] | None

    def at(self, indices: Int64[Tensor, " m"]) -> Drawn:
        """What was drawn for some of the images, in this order."""
        return Drawn(
            None if self.operations is None else self.operations.at(indices),
            None if self.moves is None else self.moves.index_select(0, indices),
            None if self.centres is None else self.centres.index_select(0, indices),
        )


def check(augmentation: Augmentation, shape: tuple[int, ...]) -> None:
    """Check that images of this shape (C, H, W) can be augmented so.

    Raises:
        DataError: AutoAugment or a resized crop of images of neither 1 nor 3 channels, or a cutout that may leave
            nothing of an image.
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
    """Draw for each key what happens to its image, of this size."""
    policy = augmentation.autoaugment
    return Drawn(
        operations=None if policy is None else draw(fold(keys, "augmentation/policy"), policy),
        moves=moves(fold(keys, "augmentation/crop_flip")) if augmentation.crop_flip else None,
        centres=centres(fold(keys, "augmentation/cutout"), height, width) if augmentation.cutout else None,
    )


def augment(images: UInt8[Tensor, "n c h w"], drawn: Drawn, augmentation: Augmentation) -> UInt8[Tensor, "n c h w"]:
    """Do to each image what was drawn for it.

    Args:
        drawn: from :func:`draw_all`, on the CPU wherever the images are.
        augmentation: what it was drawn for.
    """
    if drawn.operations is not None:
        images = apply(images, drawn.operations)
    if drawn.moves is not None:
        images = crop_flip(images, _beside(images, drawn.moves))
    if drawn.centres is not None:
        images = cutout(images, _beside(images, drawn.centres), augmentation.cutout)
    return images


def _beside(images: Tensor, numbers: Tensor) -> Tensor:
    if images.is_cuda:
        return numbers.pin_memory().to(images.device, non_blocking=True)
    return numbers.to(images.device)
