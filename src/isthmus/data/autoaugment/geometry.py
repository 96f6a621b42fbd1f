"""Rotation, shear and translation by a table of source pixels, so that a batch costs one gather.

Nearest neighbours, black outside, and fixed-point arithmetic with 16 fractional bits, as in Pillow's Image.transform
and Image.rotate by default.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn.functional import pad

from isthmus.data.autoaugment.operations import KIND, LEVELS, MOVING, STRENGTHS, VARIANTS

Matrix = tuple[float, float, float, float, float, float]

_FIRST = KIND[MOVING[0]]


def move(
    images: UInt8[Tensor, "k c h w"],
    kinds: Int64[Tensor, " k"],
    levels: Int64[Tensor, " k"],
    variants: Int64[Tensor, " k"],
) -> UInt8[Tensor, "k c h w"]:
    """Rotate, shear or shift each image.

    Args:
        kinds: indices of these operations in :data:`isthmus.data.autoaugment.operations.KINDS`, one for each image.
        levels: 0 to 9.
        variants: values below 512 select the opposite direction.
    """
    count, channels, height, width = images.shape
    opposite = (variants < VARIANTS // 2).long()
    chosen = ((kinds - _FIRST) * LEVELS + levels) * 2 + opposite
    sources = _sources(height, width, images.device).index_select(0, chosen)
    sources = sources.unsqueeze(1).expand(count, channels, height * width)
    return pad(images.flatten(2), (0, 1)).gather(2, sources).view_as(images)


@lru_cache(maxsize=4)
def _sources(height: int, width: int, device: torch.device) -> Int64[Tensor, "moves pixels"]:
    """The source of each pixel for each operation, level and direction; one past the end means outside.

    The table takes 0.8 MB for 32×32 images.
    """
    tables = [
        source_pixels(matrix(kind, level, sign, height, width), height, width)
        for kind in MOVING
        for level in range(LEVELS)
        for sign in (1, -1)
    ]
    return torch.stack(tables).to(device)


def matrix(kind: str, level: int, sign: int, height: int, width: int) -> Matrix:
    """Coefficients a to f of an operation: point (x, y) of the result is (ax + by + c, dx + ey + f) of the image."""
    strength = sign * STRENGTHS[kind.split("_")[0]](level)
    if kind == "rotate":
        return _rotation(strength, height, width)
    return {
        "shear_x": (1.0, strength, 0.0, 0.0, 1.0, 0.0),
        "shear_y": (1.0, 0.0, 0.0, strength, 1.0, 0.0),
        "translate_x": (1.0, 0.0, float(strength), 0.0, 1.0, 0.0),
        "translate_y": (1.0, 0.0, 0.0, 0.0, 1.0, float(strength)),
    }[kind]


def _rotation(angle: int, height: int, width: int) -> Matrix:
    """Counter-clockwise by ``angle`` degrees around the centre; Pillow takes the angle modulo 360."""
    turn = -math.radians(angle % 360)
    cosine, sine = round(math.cos(turn), 15), round(math.sin(turn), 15)
    x, y = width / 2, height / 2
    return cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y


def source_pixels(coefficients: Matrix, height: int, width: int) -> Int64[Tensor, " pixels"]:
    """Index into the flattened image for each pixel of the result; ``height · width`` means outside."""
    a, b, c, d, e, f = coefficients
    column = torch.arange(width).view(1, -1)
    row = torch.arange(height).view(-1, 1)
    x = (_fixed(c + a * 0.5 + b * 0.5) + row * _fixed(b) + column * _fixed(a)) >> 16
    y = (_fixed(f + d * 0.5 + e * 0.5) + row * _fixed(e) + column * _fixed(d)) >> 16
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return torch.where(inside, y * width + x, height * width).flatten()


def _fixed(number: float) -> int:
    return math.floor(number * 65536.0 + 0.5)
