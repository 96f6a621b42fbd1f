"""Blending an image with a duller one, as Pillow's ImageEnhance does, to its last rounding.

Pillow computes ``dull + factor · (image − dull)`` in float32, clips, and drops the fraction.
"""

from __future__ import annotations

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from isthmus.data.autoaugment.operations import LEVELS, enhancement

_FACTORS = torch.tensor([enhancement(level) for level in range(LEVELS)], dtype=torch.float32, device="cpu")


def color(images: UInt8[Tensor, "k c h w"], levels: Int64[Tensor, " k"]) -> UInt8[Tensor, "k c h w"]:
    """Away from the image's own greys, or towards them (ImageEnhance.Color)."""
    return blend(luma(images), images, levels)


def sharpness(images: UInt8[Tensor, "k c h w"], levels: Int64[Tensor, " k"]) -> UInt8[Tensor, "k c h w"]:
    """Away from the smoothed image, or towards it (ImageEnhance.Sharpness)."""
    return blend(smooth(images), images, levels)


def blend(
    dull: UInt8[Tensor, "k #c #h #w"], images: UInt8[Tensor, "k c h w"], levels: Int64[Tensor, " k"]
) -> UInt8[Tensor, "k c h w"]:
    """Blend each image with its dull one by its level's factor.

    Args:
        levels: 0 to 9, see :func:`isthmus.data.autoaugment.operations.enhancement`.
    """
    factors = _FACTORS.to(levels.device).index_select(0, levels).view(-1, 1, 1, 1)
    base = dull.float()
    return (images - base).mul_(factors).add_(base).clamp_(0.0, 255.0).byte()


def luma(images: UInt8[Tensor, "k c h w"]) -> UInt8[Tensor, "k 1 h w"]:
    """Grey value of each pixel: ITU-R 601-2 in fixed point, as Pillow's mode "L"; grey images are their own."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).byte().unsqueeze(1)


def smooth(images: UInt8[Tensor, "k c h w"]) -> UInt8[Tensor, "k c h w"]:
    """Weighted mean of 3×3 pixels, the middle with weight 5 of 13 (ImageFilter.SMOOTH); the rim stays as it is."""
    height, width = images.shape[2:]
    smoothed = images.clone()
    if min(height, width) < 3:
        return smoothed
    wide = images.short()
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    smoothed[:, :, 1:-1, 1:-1] = ((2 * sums + 13) // 26).byte()  # to the nearest; 13 is odd, so nothing lies between
    return smoothed
