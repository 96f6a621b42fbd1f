"""Cutout (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552): a black square somewhere in each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from isthmus.core.randomness import uniform


def centres(keys: Int64[Tensor, " n"], height: int, width: int) -> Int64[Tensor, "n 2"]:
    """Draw row and column of a pixel for each key, uniformly over an image of this size."""
    size = torch.tensor([height, width], dtype=torch.float64, device=keys.device)
    return (uniform(keys, (2,)).double() * size).long()


def cutout(images: UInt8[Tensor, "n c h w"], centres: Int64[Tensor, "n 2"], side: int) -> UInt8[Tensor, "n c h w"]:
    """Blacken a square in each image. What of it lies outside is lost: some images lose as little as a quarter of it.

    Args:
        centres: row and column of each square's middle, from :func:`centres`. Where the side is even, that is the
            first pixel after the middle, as in AutoAugment's code: rows centre − side/2 to centre + side/2 − 1.
        side: of the square, in pixels.
    """
    sides = torch.full((len(images),), side, device=images.device)
    return paint_squares(images, centres, sides, [0] * images.shape[1])


def paint_squares(
    images: UInt8[Tensor, "n c h w"],
    centres: Int64[Tensor, "n 2"],
    sides: Int64[Tensor, " n"],
    colour: Sequence[int],
) -> UInt8[Tensor, "n c h w"]:
    """Paint a square of one colour into each image, each of its own side; see :func:`cutout`."""
    height, width = images.shape[2:]
    first = centres - sides.unsqueeze(1) // 2
    rows, columns = (
        (place >= start.unsqueeze(1)) & (place < (start + sides).unsqueeze(1))
        for start, place in zip(
            first.unbind(1), (torch.arange(size, device=images.device) for size in (height, width)), strict=True
        )
    )
    square = (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
    paint = torch.tensor(colour, dtype=torch.uint8, device=images.device).view(1, -1, 1, 1)
    return torch.where(square, paint, images)
