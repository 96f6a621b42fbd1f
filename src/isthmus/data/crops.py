"""Crops of training images.

* Crop and flip: pad, crop at random and mirror, for whole batches of small images.
* Resized crop, for photographs: a part of 8 to 100% of the area, with a width between 3/4 and 4/3 of its height
  (Szegedy et al. 2015, section 6), drawn up to ten times until it fits, as in torchvision's RandomResizedCrop;
  otherwise the largest central part of such a shape. It is scaled to one size and perhaps mirrored.
* Cutout (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552): a black square in each image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import pad

from isthmus.core.randomness import uniform

if TYPE_CHECKING:
    from PIL.Image import Image

PAD = 4
_EDGES = 2 * PAD + 1
MOVES = _EDGES * _EDGES * 2


def draw_moves(keys: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Draw one of the 162 ways to crop and flip an image for each key, uniformly.

    Move ``2 · (9 · top + left) + flipped`` crops at row ``top`` and column ``left`` of the padded image, and
    then mirrors the result if ``flipped`` is 1.
    """
    return (uniform(keys, ()).double() * MOVES).long()


def crop_flip(images: UInt8[Tensor, "n c h w"], moves: Int64[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
    """Pad each image with 4 black pixels on every side, crop it to its original size, and perhaps mirror it.

    Args:
        moves: crop and flip of each image, from :func:`draw_moves`.
    """
    n, channels, height, width = images.shape
    positions = _positions(height, width, images.device).index_select(0, moves)
    positions = positions.unsqueeze(1).expand(n, channels, height * width)
    return pad(images, (PAD, PAD, PAD, PAD)).flatten(2).gather(2, positions).view_as(images)


@lru_cache(maxsize=4)
def _positions(height: int, width: int, device: torch.device) -> Int64[Tensor, "moves pixels"]:
    """The pixel of the padded image for each move and each pixel of the result.

    With this table a batch costs one gather, half as much as cropping by views and flipping a copy. The table takes
    1.3 MB for 32×32 images.
    """
    move = torch.arange(MOVES, device=device).view(-1, 1, 1)
    top, left, flipped = move // (2 * _EDGES), move // 2 % _EDGES, move % 2 == 1
    row = torch.arange(height, device=device).view(1, -1, 1)
    column = torch.arange(width, device=device).view(1, 1, -1)
    column = torch.where(flipped, width - 1 - column, column)
    return ((top + row) * (width + 2 * PAD) + left + column).flatten(1)


AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10

Box = tuple[int, int, int, int]
Interpolation = Literal["bilinear", "bicubic"]


def draw_parts(keys: Int64[Tensor, " n"]) -> Float[Tensor, "n 41"]:
    """Numbers in [0, 1) for each key: area, shape, left and top of ten parts, and whether the image is mirrored."""
    return uniform(keys, (4 * TRIES + 1,))


def part_box(width: int, height: int, numbers: Sequence[float]) -> Box:
    """The part of an image of this size given by numbers of :func:`draw_parts`: left, top, right and bottom."""
    low, high = (math.log(ratio) for ratio in RATIO)
    for attempt in range(TRIES):
        area, form, x, y = numbers[4 * attempt : 4 * attempt + 4]
        pixels = width * height * (AREA[0] + (AREA[1] - AREA[0]) * area)
        ratio = math.exp(low + (high - low) * form)
        across, down = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = int((width - across + 1) * x), int((height - down + 1) * y)
            return left, top, left + across, top + down
    return _central(width, height)


def _central(width: int, height: int) -> Box:
    across = min(width, round(height * RATIO[1]))
    down = min(height, round(width / RATIO[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def resized_crop(
    image: Image, numbers: Sequence[float], size: tuple[int, ...], interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Crop, scale and perhaps mirror an image; returns height × width × channels bytes.

    Args:
        image: of mode RGB or L, of any size.
        numbers: from :func:`draw_parts`.
        size: height and width of the result.
        interpolation: Pillow's filter, antialiased; pixels outside the part do not enter.
    """
    from PIL import Image

    height, width = size
    part = image.crop(part_box(image.width, image.height, numbers))
    part = part.resize((width, height), Image.Resampling[interpolation.upper()])
    if numbers[-1] < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(part).reshape(height, width, -1)


def draw_centres(keys: Int64[Tensor, " n"], height: int, width: int) -> Int64[Tensor, "n 2"]:
    """Draw row and column of a pixel for each key, uniformly over an image of this size."""
    size = torch.tensor([height, width], dtype=torch.float64, device=keys.device)
    return (uniform(keys, (2,)).double() * size).long()


def cutout(images: UInt8[Tensor, "n c h w"], centres: Int64[Tensor, "n 2"], side: int) -> UInt8[Tensor, "n c h w"]:
    """Blacken a square in each image. Squares are clipped at the edges, down to a quarter of their area.

    Args:
        centres: row and column of each square's middle, from :func:`draw_centres`. For an even side, that is the first
            pixel after the middle, as in AutoAugment's code: rows centre − side/2 to centre + side/2 − 1.
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
    """Paint a square of one colour into each image, with a side per image; see :func:`cutout`."""
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
