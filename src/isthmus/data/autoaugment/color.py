"""Changes of colour: tables of 256 bytes, and blending with a duller image as Pillow's ImageEnhance does.

Operations that map each byte separately look up one table for each image and channel. Blending computes
``dull + factor · (image − dull)`` in float32, clips, and drops the fraction, which reproduces Pillow's rounding."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from isthmus.data.autoaugment.operations import FIXED, KIND, LEVELS, STRENGTHS

_FACTORS = torch.tensor([STRENGTHS["enhance"](level) for level in range(LEVELS)], dtype=torch.float32, device="cpu")


def color(images: UInt8[Tensor, "k c h w"], levels: Int64[Tensor, " k"]) -> UInt8[Tensor, "k c h w"]:
    """Blend with the grey image (ImageEnhance.Color)."""
    return blend(luma(images), images, levels)


def sharpness(images: UInt8[Tensor, "k c h w"], levels: Int64[Tensor, " k"]) -> UInt8[Tensor, "k c h w"]:
    """Blend with the smoothed image (ImageEnhance.Sharpness)."""
    return blend(smooth(images), images, levels)


def blend(
    dull: UInt8[Tensor, "k #c #h #w"], images: UInt8[Tensor, "k c h w"], levels: Int64[Tensor, " k"]
) -> UInt8[Tensor, "k c h w"]:
    """Blend each image with its dull version by the factor of its level.

    Args:
        levels: 0 to 9, see :data:`isthmus.data.autoaugment.operations.STRENGTHS`.
    """
    factors = _FACTORS.to(levels.device).index_select(0, levels).view(-1, 1, 1, 1)
    base = dull.float()
    return (images - base).mul_(factors).add_(base).clamp_(0.0, 255.0).byte()


def luma(images: UInt8[Tensor, "k c h w"]) -> UInt8[Tensor, "k 1 h w"]:
    """Grey value of each pixel: ITU-R 601-2 in fixed point, as Pillow's mode "L"; grey images are unchanged."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).byte().unsqueeze(1)


def smooth(images: UInt8[Tensor, "k c h w"]) -> UInt8[Tensor, "k c h w"]:
    """Weighted mean of 3×3 pixels with centre weight 5 of 13 (ImageFilter.SMOOTH); the border is unchanged."""
    height, width = images.shape[2:]
    smoothed = images.clone()
    if min(height, width) < 3:
        return smoothed
    wide = images.short()
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    smoothed[:, :, 1:-1, 1:-1] = ((2 * sums + 13) // 26).byte()  # to the nearest; 13 is odd, so there are no ties
    return smoothed


_LAST_FIXED = KIND[FIXED[-1]]


def map_bytes(
    images: UInt8[Tensor, "k c h w"], kinds: Int64[Tensor, " k"], levels: Int64[Tensor, " k"]
) -> UInt8[Tensor, "k c h w"]:
    """Invert, posterize, solarize, brighten, autocontrast, equalize or change the contrast, as Pillow does.

    Args:
        kinds: indices of these operations in :data:`isthmus.data.autoaugment.operations.KINDS`, one for each image.
        levels: 0 to 9.
    """
    values = images.flatten(2).long()
    fixed = _fixed_tables(images.device)
    tables = fixed[kinds.clamp(max=_LAST_FIXED), levels].unsqueeze(1).repeat(1, images.shape[1], 1)
    for name, make in (("autocontrast", autocontrast), ("equalize", equalize)):
        rows = (kinds == KIND[name]).nonzero().squeeze(1)
        if len(rows):
            tables[rows] = make(values.index_select(0, rows))
    rows = (kinds == KIND["contrast"]).nonzero().squeeze(1)
    if len(rows):
        tables[rows] = contrast(images.index_select(0, rows), levels.index_select(0, rows))
    return tables.gather(2, values).view_as(images)


@lru_cache(maxsize=4)
def _fixed_tables(device: torch.device) -> UInt8[Tensor, "kinds levels 256"]:
    byte = torch.arange(256, dtype=torch.uint8)
    levels = range(LEVELS)
    tables = byte.repeat(_LAST_FIXED + 1, LEVELS, 1)
    tables[KIND["invert"]] = 255 - byte
    for kind in ("posterize", "posterize_to"):
        tables[KIND[kind]] = torch.stack([byte & (256 - 2 ** (8 - STRENGTHS[kind](level))) for level in levels])
    for kind in ("solarize", "solarize_from"):
        tables[KIND[kind]] = torch.stack(
            [torch.where(byte.int() < STRENGTHS[kind](level), byte, 255 - byte) for level in levels]
        )
    row = byte.expand(LEVELS, 1, 1, 256)
    tables[KIND["brightness"]] = blend(torch.zeros_like(row), row, torch.arange(LEVELS)).flatten(1)
    return tables.to(device)


def autocontrast(values: Int64[Tensor, "k c p"]) -> UInt8[Tensor, "k c 256"]:
    """Tables that stretch each channel from its darkest and brightest pixel to 0 and 255 (ImageOps.autocontrast)."""
    low, high = (bound.unsqueeze(2).double() for bound in values.aminmax(dim=2))
    byte = torch.arange(256, dtype=torch.float64, device=values.device)
    scale = torch.full_like(low, 255.0) / (high - low)  # a Python number divided by a tensor would be rounded twice
    stretched = (byte * scale - low * scale).clamp(0.0, 255.0)
    return torch.where(high > low, stretched, byte).byte()


def equalize(values: Int64[Tensor, "k c p"]) -> UInt8[Tensor, "k c 256"]:
    """Tables that make each channel's histogram as uniform as possible (ImageOps.equalize)."""
    images, channels, count = values.shape
    first = torch.arange(images * channels, device=values.device).view(images, channels, 1) * 256
    histogram = (values + first).flatten().bincount(minlength=images * channels * 256).view(images, channels, 256)
    brightest = histogram.gather(2, values.amax(2, keepdim=True))
    step = (count - brightest) // 255
    below = histogram.cumsum(2) - histogram + step // 2
    byte = torch.arange(256, device=values.device)
    return torch.where(step > 0, (below // step.clamp(min=1)).clamp(max=255), byte).byte()


def contrast(images: UInt8[Tensor, "k c h w"], levels: Int64[Tensor, " k"]) -> UInt8[Tensor, "k 1 256"]:
    """Tables that blend with the mean grey of the image (ImageEnhance.Contrast)."""
    grey = luma(images).flatten(1)
    count = grey.shape[1]
    mean = (2 * grey.sum(1) + count) // (2 * count)  # to the nearest, ties up
    byte = torch.arange(256, dtype=torch.uint8, device=images.device).expand(len(images), 1, 1, 256)
    return blend(mean.byte().view(-1, 1, 1, 1), byte, levels).flatten(2)
