"""A random part of an image, scaled to one size, and perhaps mirrored: how training on ImageNet looks at photographs.

A part of 8 to 100% of the area, of a width between 3/4 and 4/3 of its height (Szegedy et al. 2015, section 6), drawn up
to ten times until it fits, as torchvision's RandomResizedCrop does; the largest central part of such a form otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from isthmus.core.randomness import uniform

if TYPE_CHECKING:
    from PIL.Image import Image

AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10

Box = tuple[int, int, int, int]
Interpolation = Literal["bilinear", "bicubic"]


def draws(keys: Int64[Tensor, " n"]) -> Float[Tensor, "n 41"]:
    """Numbers in [0, 1) for each key: area, form, left and top of ten parts, and whether the image is mirrored."""
    return uniform(keys, (4 * TRIES + 1,))


def window(width: int, height: int, numbers: Sequence[float]) -> Box:
    """The part of an image of this size that some numbers of :func:`draws` stand for: left, top, right and bottom."""
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
    """Cut, scale and perhaps mirror an image; gives height × width × channels bytes.

    Args:
        image: of mode RGB or L, of any size.
        numbers: of :func:`draws`.
        size: height and width of the result.
        interpolation: Pillow's filter, antialiased; it sees nothing of what was cut away.
    """
    from PIL import Image

    height, width = size
    part = image.crop(window(image.width, image.height, numbers))
    part = part.resize((width, height), Image.Resampling[interpolation.upper()])
    if numbers[-1] < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(part).reshape(height, width, -1)
